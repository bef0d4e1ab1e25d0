/** Waiting until the nodes have wiped a revoked version, and what each of them has said of it. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Clock } from '../model/clock.js';
import type { NodeWipeSchema, WaitForWipesRequest } from '../proto/gen/inro/v1/control_pb.js';
import type { ReceiptRecord } from '../proto/gen/inro/v1/records_pb.js';
import type { Store } from '../store/store.js';
import { decodeRecord, tables } from '../store/tables.js';
import type { Dispatcher } from './dispatcher.js';
import type { ClusterView } from './view.js';
import { neverComesMs } from './version_lease.js';
import { waitUntil } from './wait_until.js';

type NodeWipe = MessageInitShape<typeof NodeWipeSchema>;

interface WaitParts {
  store: Store;
  view: ClusterView;
  dispatcher: Dispatcher;
  clock: Clock;
}

/** Ends when none of the nodes can serve the version any more, or when time is up. */
export async function waitForWipes(
  request: WaitForWipesRequest,
  parts: WaitParts,
  signal: AbortSignal,
): Promise<{ nodes: NodeWipe[] }> {
  const { view, dispatcher, clock } = parts;
  const { secretId, version, nodeIds, timeoutMs } = request;
  const isDone = (): boolean => {
    const holders = new Set(dispatcher.holdersOf(secretId, version));
    return !nodeIds.some((id) => holders.has(id));
  };
  await waitUntil(isDone, (look) => view.onChange(look), { clock, timeoutMs, signal });
  const receipts = await receiptsFor(request, parts.store);
  return { nodes: nodeIds.map((nodeId) => outcomeOf(nodeId, receipts.get(nodeId), request, parts)) };
}

const noLease = 'and this value has no lease: it serves it as long as its agent runs';

/** @returns 0 for what never comes. */
function endOf(ms: number): bigint {
  return ms >= neverComesMs ? 0n : BigInt(Math.round(ms));
}

function outcomeOf(
  nodeId: string,
  receipt: ReceiptRecord | undefined,
  { secretId, version }: WaitForWipesRequest,
  { view, dispatcher, clock }: WaitParts,
): NodeWipe {
  const nodeHostname =
    view.nodes.get(nodeId)?.description?.hostname ?? view.refusals.ofNode(nodeId)?.hostname ?? '';
  const node = { nodeId, nodeHostname };
  const holder = view.holders.get(nodeId, secretId, version);
  const isHolder = holder !== undefined;
  if (!isHolder) {
    if (receipt === undefined) return { ...node, outcome: { case: 'gone', value: {} } };
    const { reason, wipedMs, durationUs, mapped } = receipt;
    return { ...node, outcome: { case: 'wiped', value: { reason, wipedMs, durationUs, mapped } } };
  }
  const leftMs = dispatcher.holdsUntilMs(nodeId, secretId, version) - clock.boottimeMs();
  const leaseEndsMs = endOf(clock.now() + leftMs);
  if (leftMs <= 0) return { ...node, outcome: { case: 'expired', value: { leaseEndedMs: leaseEndsMs } } };
  const isConnected = dispatcher.session(nodeId) !== undefined;
  if (holder.removedUntilMs > 0n) {
    const reason = 'it was removed while it could not be reached';
    return { ...node, outcome: { case: 'missing', value: { reason, leaseEndsMs } } };
  }
  const value = isConnected
    ? { reason: 'it has not answered yet' }
    : {
        reason: leftMs === Infinity ? `it is not connected, ${noLease}` : 'it is not connected',
        leaseEndsMs,
      };
  return { ...node, outcome: { case: 'missing', value } };
}

/** The latest of each node. */
async function receiptsFor(
  { secretId, version, sinceMs }: WaitForWipesRequest,
  store: Store,
): Promise<Map<string, ReceiptRecord>> {
  const found = new Map<string, ReceiptRecord>();
  for (const { key, value } of await store.list(tables.receipts.prefix)) {
    const receipt = decodeRecord(tables.receipts, key, value);
    const isOfIt = receipt.secretId === secretId && receipt.version === version && receipt.takenMs >= sinceMs;
    if (isOfIt && receipt.takenMs >= (found.get(receipt.nodeId)?.takenMs ?? 0n))
      found.set(receipt.nodeId, receipt);
  }
  return found;
}
