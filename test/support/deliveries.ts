/** What a manager sends to an agent: tasks, and versions sealed for one session with the real envelope. */
import { create } from '@bufbuild/protobuf';
import type { Arena } from '../../src/crypto/arena.js';
import { digestOf, sealValue, wrap } from '../../src/crypto/envelope.js';
import type { Plaintext } from '../../src/crypto/plaintext.js';
import {
  AssignedTaskSchema,
  DeliveredVersionSchema,
  type AssignedTask,
  type DeliveredVersion,
} from '../../src/proto/gen/inro/v1/dispatcher_pb.js';

export interface Used {
  secretId: string;
  version?: number;
  target?: string;
  uid?: string;
  gid?: string;
  mode?: number;
}

/** @param used a secret's id alone becomes its target, version 1, mode 0444. */
export function task(id: string, serviceName: string, ...used: (string | Used)[]): AssignedTask {
  const references = used.map((one) => {
    const {
      secretId,
      version = 1,
      target,
      uid = '0',
      gid = '0',
      mode = 0o444,
    } = typeof one === 'string' ? { secretId: one } : one;
    return {
      reference: { secretId, secretName: secretId, target: target ?? secretId, uid, gid, mode },
      version,
    };
  });
  return create(AssignedTaskSchema, { id, serviceId: `id-${serviceName}`, serviceName, slot: 1, references });
}

export function tasks(...all: AssignedTask[]): Map<string, AssignedTask> {
  return new Map(all.map((one) => [one.id, one]));
}

export interface Sealer {
  clusterId: string;
  arena: Arena;
  /** The session's shared key. */
  key: Plaintext;
}

export function delivery(
  { clusterId, arena, key }: Sealer,
  secretId: string,
  text: string,
  version = 1,
): DeliveredVersion {
  const value = arena.take(Buffer.byteLength(text));
  value.expose().set(Buffer.from(text));
  const { ciphertext, contentKey } = sealValue(value, arena);
  const ciphertextDigest = digestOf(ciphertext);
  const sealedKey = wrap(
    'delivered',
    contentKey,
    { clusterId, secretId, version, ciphertextDigest },
    key,
    arena,
  );
  value.wipe();
  contentKey.wipe();
  return create(DeliveredVersionSchema, {
    secretId,
    version,
    ciphertext,
    sealedKey,
    ciphertextDigest,
    createdMs: 1_000n,
  });
}
