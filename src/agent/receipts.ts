/**
 * What was wiped and is not known to a manager yet: numbered, signed, and kept until it is acknowledged, over as
 * many streams as that takes. Bounded: with a manager away for long, the oldest are given up and counted. The newest are
 * noted in the arena: an agent that is killed leaves them to its successor, who goes on with the numbers.
 */
import { create, fromBinary, toBinary, type MessageInitShape } from '@bufbuild/protobuf';
import { signBytes, type KeyObject } from '../crypto/signing.js';
import { receiptStatement } from '../crypto/statement.js';
import type { Clock } from '../model/clock.js';
import { InroError } from '../model/error.js';
import { isId } from '../model/id.js';
import { isWipeReason } from '../model/receipt.js';
import type { ReceiptSchema, ReceiptsTaken } from '../proto/gen/inro/v1/dispatcher_pb.js';
import { ReceiptsNoteSchema, type ReceiptsNote } from '../proto/gen/inro/v1/inheritance_pb.js';
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

export interface ReceiptsParts {
  identity: Pick<Identity, 'nodeId' | 'clusterId'>;
  /** Drawn for this run of the agent alone; not used where a predecessor's goes on. */
  runId: string;
  /** For a successor, in place of the one before; empty: nothing. */
  keepNote: (note: Uint8Array) => void;
  /** What a predecessor has noted; empty when there is none. */
  left: Uint8Array;
}

export class Receipts {
  readonly #identity: Pick<Identity, 'nodeId' | 'clusterId'>;
  readonly #runId: string;
  readonly #keepNote: (note: Uint8Array) => void;
  /** The note says less, or more, than there is. */
  #isNoteOld = false;
  /** Without gaps: only the oldest are ever given up. */
  #waiting: Waiting[] = [];
  #lastNumber = 0;
  readonly #wakers = new Set<() => void>();
  dropped = 0;

  constructor({ identity, runId, keepNote, left }: ReceiptsParts) {
    const note = readNote(left);
    this.#identity = identity;
    this.#runId = note?.runId ?? runId;
    this.#lastNumber = Number(note?.lastNumber ?? 0);
    this.#waiting = note === undefined ? [] : waitingIn(note);
    this.#keepNote = keepNote;
  }

  add(wiped: Wiped): void {
    this.#waiting.push({ number: ++this.#lastNumber, wiped });
    if (this.#waiting.length > agentLimits.maxQueuedReceipts) {
      this.#waiting.shift();
      this.dropped += 1;
    }
    this.#noteSoon();
    this.#wake();
  }

  /** 0 before the first. */
  get lastNumber(): number {
    return this.#lastNumber;
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
    this.#note(); // what a manager knows of may not get another number
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
    this.#noteSoon();
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

  /** Once for all that is wiped in one turn. */
  #noteSoon(): void {
    if (this.#isNoteOld) return;
    this.#isNoteOld = true;
    queueMicrotask(() => this.#note());
  }

  #note(): void {
    if (!this.#isNoteOld) return;
    this.#isNoteOld = false;
    const waiting = this.#waiting.slice(-agentLimits.maxNotedReceipts).map(({ number, wiped }) => ({
      ...wiped,
      taskIds: [...wiped.taskIds],
      number: BigInt(number),
      wipedMs: BigInt(wiped.wipedMs),
      durationUs: BigInt(wiped.durationUs),
    }));
    const lastNumber = BigInt(this.#lastNumber);
    const note = create(ReceiptsNoteSchema, { runId: this.#runId, lastNumber, waiting });
    // With nothing that waits, and where there is no room, a successor begins a run of its own.
    this.#keepNote(waiting.length === 0 ? new Uint8Array() : toBinary(ReceiptsNoteSchema, note));
  }

  #indexAfter(number: number): number {
    const first = this.#waiting[0]?.number ?? number + 1;
    return Math.max(0, number + 1 - first);
  }

  #sign({ number, wiped }: Waiting, key: KeyObject): SignedReceipt {
    const { nodeId, clusterId } = this.#identity;
    const { secretId, version, taskIds, reason, wipedMs, durationUs, mapped } = wiped;
    const runId = this.#runId;
    return {
      runId,
      number: BigInt(number),
      secretId,
      version,
      taskIds: [...taskIds],
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

/** Nothing for what is no note of an agent. */
function readNote(bytes: Uint8Array): ReceiptsNote | undefined {
  if (bytes.length === 0) return undefined;
  try {
    const note = fromBinary(ReceiptsNoteSchema, bytes);
    return isId(note.runId) && note.lastNumber <= BigInt(Number.MAX_SAFE_INTEGER) ? note : undefined;
  } catch {
    return undefined;
  }
}

function waitingIn({ waiting, lastNumber }: ReceiptsNote): Waiting[] {
  const all = waiting.flatMap(
    ({ number, secretId, version, taskIds, reason, wipedMs, durationUs, mapped }) =>
      isWipeReason(reason)
        ? [
            {
              number: Number(number),
              wiped: {
                secretId,
                version,
                taskIds,
                reason,
                wipedMs: Number(wipedMs),
                durationUs: Number(durationUs),
                mapped,
              },
            },
          ]
        : [],
  );
  const isWhole = all.every(({ number }, at) => number === Number(lastNumber) - all.length + 1 + at);
  return isWhole ? all : [];
}
