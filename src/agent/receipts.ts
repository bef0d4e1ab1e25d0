/** What was wiped and not yet reported. Bounded: with a manager away for long, the oldest are given up and counted. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import { signBytes } from '../crypto/signing.js';
import { receiptStatement } from '../crypto/statement.js';
import type { ReceiptSchema } from '../proto/gen/inro/v1/dispatcher_pb.js';
import type { Identity } from './identity.js';
import { agentLimits } from './limits.js';
import type { Wiped } from './vault.js';

export class Receipts {
  readonly #identity: Pick<Identity, 'key' | 'nodeId' | 'clusterId'>;
  #queue: Wiped[] = [];
  dropped = 0;

  constructor(identity: Pick<Identity, 'key' | 'nodeId' | 'clusterId'>) {
    this.#identity = identity;
  }

  add(wiped: Wiped): void {
    this.#queue.push(wiped);
    if (this.#queue.length <= agentLimits.maxQueuedReceipts) return;
    this.#queue.shift();
    this.dropped += 1;
  }

  get pending(): number {
    return this.#queue.length;
  }

  /** The oldest that wait, at most `max`; what could not be sent is put back. */
  take(max: number): Wiped[] {
    return this.#queue.splice(0, max);
  }

  putBack(wiped: readonly Wiped[]): void {
    this.#queue.unshift(...wiped);
  }

  signed(wiped: Wiped): MessageInitShape<typeof ReceiptSchema> {
    const { key, nodeId, clusterId } = this.#identity;
    return {
      secretId: wiped.secretId,
      version: wiped.version,
      reason: wiped.reason,
      wipedMs: BigInt(wiped.wipedMs),
      durationUs: BigInt(wiped.durationUs),
      signature: signBytes(key, receiptStatement({ clusterId, nodeId, ...wiped })),
    };
  }
}
