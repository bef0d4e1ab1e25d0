/** One version on its way to one node: what an assignment says of it. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Logger } from 'pino';
import { neverMs } from '../model/lease.js';
import type { VersionRecord } from '../proto/gen/inro/v1/records_pb.js';
import { managerLimits } from './limits.js';
import { leaseOf } from './version_lease.js';
import type { Plaintext } from '../crypto/plaintext.js';
import { asInroError, InroError } from '../model/error.js';
import type { DeliveredVersionSchema } from '../proto/gen/inro/v1/dispatcher_pb.js';
import type { Store } from '../store/store.js';
import { ciphertextPrefix, versionKey } from '../store/tables.js';
import type { NeededVersion } from './assignment.js';
import type { Keyring } from './keyring.js';
import type { NodeCopies } from './node_copies.js';
import type { ClusterView } from './view.js';

const neverEndsMs = 2 ** 52;

export interface DeliveryParts {
  clusterId: string;
  view: ClusterView;
  store: Store;
  keyring: Keyring;
  log: Logger;
}

export interface Receiver {
  sessionKey: Plaintext | undefined;
  copies: NodeCopies;
}

/** Beside the lease of a whole node, which the stream's Welcome has. */
function leaseShiftOf(record: VersionRecord): bigint {
  const leaseMs = leaseOf(record);
  return BigInt(leaseMs === neverMs ? neverEndsMs : leaseMs - managerLimits.leaseMs);
}

/** A record that does not open concerns the tasks that need it, and nobody else. */
export async function deliveryOf(
  needed: NeededVersion,
  { sessionKey, copies }: Receiver,
  { clusterId, view, store, keyring, log }: DeliveryParts,
): Promise<MessageInitShape<typeof DeliveredVersionSchema>> {
  const { secretId, version } = needed;
  const key = versionKey(secretId, version);
  try {
    const record = view.version(secretId, version);
    if (record === undefined || sessionKey === undefined)
      throw new InroError('store_corrupt', `the record of ${key} is missing`);
    const { ciphertextDigest, createdMs } = record;
    const head = { secretId, version, createdMs, ciphertextDigest, leaseShiftMs: leaseShiftOf(record) };
    if (copies.holds(needed, ciphertextDigest)) return head;
    const ciphertext = (await store.get(ciphertextPrefix + key))?.value;
    if (ciphertext === undefined) throw new InroError('store_corrupt', `the ciphertext of ${key} is missing`);
    const binding = { clusterId, secretId, version, ciphertextDigest };
    return { ...head, ciphertext, sealedKey: keyring.deliver(record.sealedKey, binding, sessionKey) };
  } catch (error) {
    if (!view.isRevoked(secretId, version))
      log.error({ err: error, secret: secretId, version }, 'a version cannot be delivered');
    return { secretId, version, error: asInroError(error).message };
  }
}
