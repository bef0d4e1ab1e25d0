/**
 * How often who accessed what, as a manager is told it: one batch at a time, numbered, and the same until a manager has taken it,
 * so that it counts once however often it is sent.
 */
import type { MessageInitShape } from '@bufbuild/protobuf';
import { InroError } from '../../model/error.js';
import type { AccessBatchSchema, AccessesTaken } from '../../proto/gen/inro/v1/dispatcher_pb.js';
import { agentLimits } from '../limits.js';
import type { AccessLog, PendingCount } from './access_log.js';

type WireBatch = MessageInitShape<typeof AccessBatchSchema>;

export class CountBatches {
  readonly #accesses: Pick<AccessLog, 'pending' | 'taken'>;
  readonly #runId: string;
  #number = 0;
  /** What the batch of this number says, until it is taken. */
  #told: { counts: PendingCount[]; wire: WireBatch } | undefined;

  /** @param runId drawn for this run of the agent alone. */
  constructor(accesses: Pick<AccessLog, 'pending' | 'taken'>, runId: string) {
    this.#accesses = accesses;
    this.#runId = runId;
  }

  /** What is to be told now; undefined when there is nothing. */
  current(): WireBatch | undefined {
    this.#told ??= this.#next();
    return this.#told?.wire;
  }

  /** A manager keeps it. @throws protocol when it cannot: it is of another run, or was never made. */
  taken({ runId, number }: Pick<AccessesTaken, 'runId' | 'number'>): void {
    if (runId !== this.#runId || number > BigInt(this.#number))
      throw new InroError(
        'protocol',
        `the manager acknowledged counts ${number}, which this agent never sent`,
      );
    if (this.#told === undefined || number < BigInt(this.#number)) return;
    this.#accesses.taken(this.#told.counts);
    this.#told = undefined;
  }

  #next(): { counts: PendingCount[]; wire: WireBatch } | undefined {
    // They go on counting in the log: these are copies.
    const counts = this.#accesses
      .pending()
      .slice(0, agentLimits.maxCountsPerBatch)
      .map((count) => ({ ...count }));
    if (counts.length === 0) return undefined;
    const wire = { runId: this.#runId, number: BigInt(++this.#number), counts: counts.map(wireCount) };
    return { counts, wire };
  }
}

function wireCount({ uid, opened, refused, openedMs, refusedMs, ...of }: PendingCount) {
  return {
    ...of,
    ...(uid === undefined ? {} : { uid }),
    opened: BigInt(opened),
    refused: BigInt(refused),
    openedMs: BigInt(openedMs),
    refusedMs: BigInt(refusedMs),
  };
}
