/** What is kept of accesses: a record for each secret, node and version, with those who accessed it last one by one. */
import { create } from '@bufbuild/protobuf';
import {
  AccessesSchema,
  ReadRecordSchema,
  ReaderSchema,
  type Accesses,
  type ReadRecord,
  type Reader,
} from '../proto/gen/inro/v1/records_pb.js';
import { readKey, tables, versionKey } from '../store/tables.js';
import type { Transaction } from '../store/transaction.js';
import type { NeededVersion } from './assignment.js';
import { managerLimits } from './limits.js';

/** What a node says of one reader of one version, once it is checked. */
export interface SaidAccess extends NeededVersion {
  /** Undefined: it does not matter who. */
  reader: Omit<Reader, 'accesses' | '$typeName' | '$unknown'> | undefined;
  accesses: Accesses;
}

/** The node was sent this version: what it has still to tell of it counts, though it holds it no more. */
export async function keepPlace(
  tx: Transaction,
  nodeId: string,
  { secretId, version }: NeededVersion,
): Promise<void> {
  if ((await tx.get(tables.reads, readKey(nodeId, secretId, version))) !== undefined) return;
  // Read last: what is removed with its secret meanwhile stays removed.
  if ((await tx.get(tables.versions, versionKey(secretId, version))) === undefined) return;
  await putRead(tx, create(ReadRecordSchema, { nodeId, secretId, version }));
}

/** Of a node's versions of one secret those with the highest numbers stay. */
export async function putRead(tx: Transaction, record: ReadRecord): Promise<void> {
  const { nodeId, secretId, version } = record;
  const key = readKey(nodeId, secretId, version);
  const isNew = (await tx.get(tables.reads, key)) === undefined;
  tx.put(tables.reads, key, record);
  if (!isNew) return;
  const all = await tx.list(tables.reads, `${secretId}/${nodeId}/`);
  for (const old of all.slice(0, -managerLimits.maxReadVersionsPerNode))
    tx.delete(tables.reads, readKey(nodeId, secretId, old.version));
}

/** Goes with its secret. */
export async function deleteReads(tx: Transaction, secretId: string): Promise<void> {
  for (const { nodeId, version } of await tx.list(tables.reads, `${secretId}/`))
    tx.delete(tables.reads, readKey(nodeId, secretId, version));
}

/** Goes with its version. */
export async function deleteReadsOf(tx: Transaction, secretId: string, version: number): Promise<void> {
  for (const read of await tx.list(tables.reads, `${secretId}/`))
    if (read.version === version) tx.delete(tables.reads, readKey(read.nodeId, secretId, version));
}

/** Adds what a node says to its record of that version. */
export function count(
  record: ReadRecord,
  { reader, accesses }: Pick<SaidAccess, 'reader' | 'accesses'>,
): void {
  if (reader === undefined) {
    record.others = sum(record.others, accesses);
    return;
  }
  const { taskId, uid, workload } = reader;
  const known = record.readers.find(
    (one) => one.taskId === taskId && one.uid === uid && one.workload === workload,
  );
  if (known !== undefined) known.accesses = sum(known.accesses, accesses);
  else record.readers.push(create(ReaderSchema, { ...reader, accesses }));
  if (record.readers.length <= managerLimits.maxReadersPerRecord) return;
  record.readers.sort((a, b) => lastMs(b.accesses) - lastMs(a.accesses));
  for (const { accesses: old } of record.readers.splice(managerLimits.maxReadersPerRecord))
    record.others = sum(record.others, old);
}

/** ms since 1970 of the latest access of either kind; 0: none. */
export function lastMs(accesses: Accesses | undefined): number {
  return Math.max(Number(accesses?.openedMs ?? 0n), Number(accesses?.refusedMs ?? 0n));
}

function sum(a: Accesses = create(AccessesSchema), b: Accesses = create(AccessesSchema)): Accesses {
  return create(AccessesSchema, {
    opened: lower(a.opened + b.opened, most),
    refused: lower(a.refused + b.refused, most),
    openedMs: higher(a.openedMs, b.openedMs),
    refusedMs: higher(a.refusedMs, b.refusedMs),
  });
}

/** What a number of JSON can hold. */
const most = BigInt(Number.MAX_SAFE_INTEGER);
const lower = (a: bigint, b: bigint): bigint => (a < b ? a : b);
const higher = (a: bigint, b: bigint): bigint => (a > b ? a : b);
