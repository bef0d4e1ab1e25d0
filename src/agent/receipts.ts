/**
 * What was wiped and is not known to a manager yet: numbered, signed, and kept until it is acknowledged, over as
 * many streams as that takes. Bounded: with a manager away for long, the oldest are given up and counted.
 */
import type { MessageInitShape } from '@bufbuild/protobuf';
import { signBytes, type KeyObject } from '../crypto/signing.js';
import { receiptStatement } from '../crypto/statement.js';
import type { Clock } from '../model/clock.js';
import { InroError } from '../model/error.js';
import type { ReceiptSchema, ReceiptsTaken } from '../proto/gen/inro/v1/dispatcher_pb.js';
import type { Identity } from './identity.js';
import { agentLimits } from './limits.js';
import type { Wiped } from './vault.js';

export type SignedReceipt = MessageInitShape<typeof ReceiptSchema> & { number: bigint };

interface Waiting {
  number: number;
  wiped: Wiped;
  /** Made when it is sent first: what is to be wiped does not wait for signatures. */
  signed?: { by: KeyObject; receipt: SignedReceipt };
}

export class Receipts {
  readonly #identity: Pick<Identity, 'nodeId' | 'clusterId'>;
  readonly #runId: string;
  /** Without gaps: only the oldest are ever given up. */
  #waiting: Waiting[] = [];
  #lastNumber = 0;
  readonly #wakers = new Set<() => void>();
  dropped = 0;

  /** @param runId drawn for this run of the agent alone. */
  constructor(identity: Pick<Identity, 'nodeId' | 'clusterId'>, runId: string) {
    this.#identity = identity;
    this.#runId = runId;
  }

  add(wiped: Wiped): void {
    this.#waiting.push({ number: ++this.#lastNumber, wiped });
    if (this.#waiting.length > agentLimits.maxQueuedReceipts) {
      this.#waiting.shift();
      this.dropped += 1;
    }
    this.#wake();
  }

  /** Not acknowledged yet. */
  get pending(): number {
    return this.#waiting.length;
  }

  /**
   * The oldest with a number above this one, at most `max`.
   * @param key of the certificate of the stream that they go out in: since the last one it may have been renewed.
   */
  after(number: number, max: number, key: KeyObject): SignedReceipt[] {
    const from = this.#indexAfter(number);
    return this.#waiting.slice(from, from + max).map((one) => {
      if (one.signed?.by !== key) one.signed = { by: key, receipt: this.#sign(one, key) };
      return one.signed.receipt;
    });
  }

  hasAfter(number: number): boolean {
    return this.#indexAfter(number) < this.#waiting.length;
  }

  /** A manager keeps them. @throws protocol when it cannot: they are of another run, or were never made. */
  taken({ runId, number }: Pick<ReceiptsTaken, 'runId' | 'number'>): void {
    if (runId !== this.#runId || number > BigInt(this.#lastNumber))
      throw new InroError(
        'protocol',
        `the manager acknowledged receipt ${number}, which this agent never sent`,
      );
    this.#waiting.splice(0, this.#indexAfter(Number(number)));
    this.#wake();
  }

  /** Resolves when there is one with a number above this one, or the signal aborts. */
  async untilAfter(number: number, signal: AbortSignal): Promise<void> {
    await this.#until(() => this.hasAfter(number), signal);
  }

  /** Resolves when every one is acknowledged, or after `ms`. */
  async untilTaken(clock: Clock, ms: number): Promise<void> {
    const over = new AbortController();
    await Promise.race([this.#until(() => this.pending === 0, over.signal), clock.sleep(ms, over.signal)]);
    over.abort();
  }

  #indexAfter(number: number): number {
    const first = this.#waiting[0]?.number ?? number + 1;
    return Math.max(0, number + 1 - first);
  }

  #sign({ number, wiped }: Waiting, key: KeyObject): SignedReceipt {
    const { nodeId, clusterId } = this.#identity;
    const { secretId, version, reason, wipedMs, durationUs, mapped } = wiped;
    const runId = this.#runId;
    return {
      runId,
      number: BigInt(number),
      secretId,
      version,
      reason,
      wipedMs: BigInt(wipedMs),
      durationUs: BigInt(durationUs),
      mapped,
      signature: signBytes(key, receiptStatement({ clusterId, nodeId, runId, number, ...wiped })),
    };
  }

  #wake(): void {
    for (const waker of this.#wakers) waker();
  }

  async #until(isSo: () => boolean, signal: AbortSignal): Promise<void> {
    while (!isSo() && !signal.aborted) {
      await new Promise<void>((resolve) => {
        const done = (): void => {
          this.#wakers.delete(done);
          signal.removeEventListener('abort', done);
          resolve();
        };
        this.#wakers.add(done);
        signal.addEventListener('abort', done, { once: true });
      });
    }
  }
}
