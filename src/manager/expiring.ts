/** What comes to its end by itself, the soonest first: leases of nodes that are not in contact, and certificates. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Clock } from '../model/clock.js';
import { readChain } from '../pki/chain.js';
import type { ExpirySchema } from '../proto/gen/inro/v1/control_pb.js';
import type { CaRecord } from '../proto/gen/inro/v1/records_pb.js';
import { managerLimits } from './limits.js';
import { servesForMs } from './version_lease.js';
import { ending, isServed } from './value_expiry.js';
import type { ClusterView } from './view.js';

/** What a status names; there may be thousands. */
const maxShown = 10;

export interface Contacts {
  clock: Clock;
  /** Wall-clock ms, by this run of the manager; undefined: not since it started. */
  lastSeenMs: (nodeId: string) => number | undefined;
  isConnected: (nodeId: string) => boolean;
}

/** After how long the first of what it holds is not served any more. */
function firstEndMs(view: ClusterView, nodeId: string): number {
  const held = view.holders.ofNode(nodeId);
  return Math.min(...held.map((one) => servesForMs(view.version(one.secretId, one.version) ?? one)));
}

/** The first ones. @param cas that are in use. */
export function expiring(
  view: ClusterView,
  cas: readonly CaRecord[],
  { clock, lastSeenMs, isConnected }: Contacts,
): MessageInitShape<typeof ExpirySchema>[] {
  const now = clock.now();
  const leases = [...view.nodes.values()]
    .filter(({ id }) => !isConnected(id) && view.holders.ofNode(id).length > 0)
    .map((node) => ({
      kind: 'lease',
      id: node.id,
      name: node.description?.hostname ?? '',
      // What an earlier run has noted may be behind by as much.
      atMs:
        (lastSeenMs(node.id) ?? Number(node.lastSeenMs) + managerLimits.noteSeenMs) +
        firstEndMs(view, node.id),
    }))
    .filter(({ atMs }) => atMs > now && atMs < Infinity);
  const nodes = [...view.nodes.values()]
    .filter(({ certificateExpiresMs }) => certificateExpiresMs > 0n)
    .map((node) => ({
      kind: 'node certificate',
      id: node.id,
      name: node.description?.hostname ?? '',
      atMs: Number(node.certificateExpiresMs),
    }));
  const operators = [...view.operators.values()]
    .filter(({ revokedMs }) => revokedMs === 0n)
    .map(({ id, name, expiresMs }) => ({
      kind: 'operator certificate',
      id,
      name,
      atMs: Number(expiresMs),
    }));
  const values = ending(view)
    .filter((version) => isServed(view, version))
    .map(({ secretId, version, expiresMs }) => ({
      kind: 'value',
      id: secretId,
      name: `${view.secrets.get(secretId)?.name ?? ''}@${version}`,
      atMs: Number(expiresMs),
    }));
  const ca = cas
    .slice(-1)
    .flatMap(({ chainPem }) => readChain(chainPem))
    .map(({ notAfterMs }, n) => ({
      kind: 'CA',
      id: '',
      name: n === 0 ? 'the one that signs' : 'above it',
      atMs: notAfterMs,
    }));
  return [...leases, ...values, ...nodes, ...operators, ...ca]
    .toSorted((a, b) => a.atMs - b.atMs)
    .slice(0, maxShown)
    .map(({ atMs, ...rest }) => ({ ...rest, atMs: BigInt(Math.round(atMs)) }));
}
