/** The store's tables: which record lies under which key. Keys are on disk: for ever. */
import { fromBinary, toBinary, type DescMessage, type MessageShape } from '@bufbuild/protobuf';
import { InroError } from '../model/error.js';
import {
  AuditHeadRecordSchema,
  AuditRecordSchema,
  ClusterRecordSchema,
  HolderRecordSchema,
  JoinTokenRecordSchema,
  ManagerRecordSchema,
  NodeRecordSchema,
  OperatorRecordSchema,
  ReadRecordSchema,
  ReceiptRecordSchema,
  RefusedRecordSchema,
  RunMarksRecordSchema,
  SecretRecordSchema,
  ServiceRecordSchema,
  TaskRecordSchema,
  VersionRecordSchema,
} from '../proto/gen/inro/v1/records_pb.js';

export interface Table<S extends DescMessage> {
  readonly prefix: string;
  readonly schema: S;
}

export const tables = {
  cluster: { prefix: 'cluster/', schema: ClusterRecordSchema },
  nodes: { prefix: 'node/', schema: NodeRecordSchema },
  secrets: { prefix: 'secret/', schema: SecretRecordSchema },
  versions: { prefix: 'version/', schema: VersionRecordSchema },
  services: { prefix: 'service/', schema: ServiceRecordSchema },
  tasks: { prefix: 'task/', schema: TaskRecordSchema },
  holders: { prefix: 'holder/', schema: HolderRecordSchema },
  receipts: { prefix: 'receipt/', schema: ReceiptRecordSchema },
  receiptMarks: { prefix: 'receipt-marks/', schema: RunMarksRecordSchema },
  reads: { prefix: 'read/', schema: ReadRecordSchema },
  joinTokens: { prefix: 'join-token/', schema: JoinTokenRecordSchema },
  refused: { prefix: 'refused/', schema: RefusedRecordSchema },
  operators: { prefix: 'operator/', schema: OperatorRecordSchema },
  audit: { prefix: 'audit/', schema: AuditRecordSchema },
  auditHead: { prefix: 'audit-head/', schema: AuditHeadRecordSchema },
  readMarks: { prefix: 'read-marks/', schema: RunMarksRecordSchema },
  managers: { prefix: 'manager/', schema: ManagerRecordSchema },
} as const satisfies Record<string, Table<DescMessage>>;

/** Plain bytes: a version's ciphertext, apart from its record so that lists stay small. */
export const ciphertextPrefix = 'ciphertext/';
/** Unique names: the value is the id of who has it. */
export const secretNamePrefix = 'secret-name/';
export const serviceNamePrefix = 'service-name/';
export const operatorNamePrefix = 'operator-name/';
/** Below it, by a unit's name: ids of the services that are bound to it, a line each. */
export const serviceUnitPrefix = 'service-unit/';

/** What comes behind these is a name that somebody gave: a store that is not trusted does not see it. */
export const namePrefixes: readonly string[] = [
  secretNamePrefix,
  serviceNamePrefix,
  operatorNamePrefix,
  serviceUnitPrefix,
];

/** The key of one version of a secret, below `versions` and `ciphertext/`; sorts by number. */
export function versionKey(secretId: string, version: number): string {
  return `${secretId}/${String(version).padStart(10, '0')}`;
}

/** The key of a holder, below `holders`. */
export function holderKey(nodeId: string, secretId: string, version: number): string {
  return `${nodeId}/${versionKey(secretId, version)}`;
}

/** The key of a receipt, below `receipts`; those of one run sort by number. */
export function receiptKey(nodeId: string, runId: string, number: number): string {
  return `${nodeId}/${runId}/${String(number).padStart(16, '0')}`;
}

/** The key of what a node has told of a version, below `reads`; a node's versions of one secret sort by number. */
export function readKey(nodeId: string, secretId: string, version: number): string {
  return `${secretId}/${nodeId}/${String(version).padStart(10, '0')}`;
}

/** The key of a line of the audit, below `audit`; sorts by number. */
export function auditKey(number: number): string {
  return String(number).padStart(16, '0');
}

export function encodeRecord<S extends DescMessage>(table: Table<S>, record: MessageShape<S>): Uint8Array {
  return toBinary(table.schema, record);
}

/** @throws store_corrupt */
export function decodeRecord<S extends DescMessage>(
  table: Table<S>,
  key: string,
  value: Uint8Array,
): MessageShape<S> {
  try {
    return fromBinary(table.schema, value);
  } catch (error) {
    throw new InroError('store_corrupt', `the record ${key} cannot be read`, {
      remedy:
        "move the manager's folder away and restore it from a backup: inro manager restore (docs/operations.md)",
      cause: error,
    });
  }
}
