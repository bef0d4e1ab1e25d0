/**
 * Takes in what nodes tell of accesses, off the path that answers their beats: batches of all nodes are gathered for a moment,
 * written together, and only then acknowledged. Each counts once, over streams and restarts.
 */
import { create } from '@bufbuild/protobuf';
import type { Logger } from 'pino';
import type { Clock } from '../model/clock.js';
import type { AccessBatch } from '../proto/gen/inro/v1/dispatcher_pb.js';
import { ReadRecordSchema, RunMarksRecordSchema, type ReadRecord } from '../proto/gen/inro/v1/records_pb.js';
import type { Store } from '../store/store.js';
import { readKey, tables, versionKey } from '../store/tables.js';
import type { Transaction } from '../store/transaction.js';
import { CommitQueue } from './commit_queue.js';
import { managerLimits } from './limits.js';
import { checkedCounts, type Checked } from './read_check.js';
import { count, putRead, type SaidAccess } from './read_records.js';
import { lastOf, withMark } from './run_marks.js';
import type { ClusterView } from './view.js';

interface ReadBookParts {
  store: Store;
  view: ClusterView;
  clock: Clock;
  log: Logger;
}

export class ReadBook {
  readonly #parts: ReadBookParts;
  readonly #queue: CommitQueue<Transaction>;
  readonly #stopping = new AbortController();
  #waiting = 0;
  #isFailing = false;
  /** Nodes of which the log has said already that they tell what is not theirs. */
  readonly #warned = new Set<string>();

  constructor(parts: ReadBookParts) {
    this.#parts = parts;
    this.#queue = new CommitQueue(parts.store, {
      begin: (tx) => tx,
      gather: () => parts.clock.sleep(managerLimits.gatherCountsMs, this.#stopping.signal),
      maxWeight: managerLimits.maxCountsPerCommit,
    });
  }

  /**
   * @param batch as `checkBatch` has passed it.
   * @returns true once what is true of it is durable; false when it could not be taken now, and has to come again.
   */
  async take(nodeId: string, batch: AccessBatch): Promise<boolean> {
    const { log } = this.#parts;
    const weight = batch.counts.length;
    if (this.#waiting + weight > managerLimits.maxWaitingCounts) return false;
    this.#waiting += weight;
    try {
      await this.#queue.do((tx) => this.#write(tx, nodeId, batch), weight);
      if (this.#isFailing) log.info('counts of accesses are kept again');
      this.#isFailing = false;
      return true;
    } catch (error) {
      if (!this.#isFailing && !this.#stopping.signal.aborted)
        log.warn({ err: error, node: nodeId }, 'counts of accesses cannot be kept; they are asked for again');
      this.#isFailing = true;
      return false;
    } finally {
      this.#waiting -= weight;
    }
  }

  /** Ends when what was asked for is written; nothing is, after it. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#queue.stop();
  }

  async #write(tx: Transaction, nodeId: string, batch: AccessBatch): Promise<void> {
    const { runId, number } = batch;
    if ((await tx.get(tables.refused, nodeId)) !== undefined) return; // removed meanwhile
    const marks = (await tx.get(tables.readMarks, nodeId))?.marks ?? [];
    if (number <= lastOf(marks, runId)) return;
    const { view, clock } = this.#parts;
    const checked = checkedCounts(batch, nodeId, view, clock.now());
    for (const said of byVersion(checked.said)) await this.#count(tx, nodeId, said, checked);
    const record = create(RunMarksRecordSchema, { nodeId, marks: withMark(marks, runId, number) });
    if (checked.said.length > 0) tx.put(tables.readMarks, nodeId, record);
    this.#warn(nodeId, checked);
  }

  /** @param said all of one version. */
  async #count(
    tx: Transaction,
    nodeId: string,
    [first, ...more]: [SaidAccess, ...SaidAccess[]],
    { refused }: Checked,
  ): Promise<void> {
    const { secretId, version } = first;
    const record = await this.#record(tx, nodeId, secretId, version);
    if (record === undefined) {
      refused.push(`version ${version} of secret ${secretId} was never sent there`);
      return;
    }
    // Read in the same transaction: what is removed meanwhile stays removed.
    if ((await tx.get(tables.versions, versionKey(secretId, version))) === undefined) return;
    for (const one of [first, ...more]) count(record, one);
    await putRead(tx, record);
  }

  /** Only of what the node was sent. */
  async #record(
    tx: Transaction,
    nodeId: string,
    secretId: string,
    version: number,
  ): Promise<ReadRecord | undefined> {
    const known = await tx.get(tables.reads, readKey(nodeId, secretId, version));
    const holder = this.#parts.view.holders.get(nodeId, secretId, version);
    if (known !== undefined || holder === undefined || holder.claimed) return known;
    return create(ReadRecordSchema, { nodeId, secretId, version });
  }

  /** Once for each node: it may go on for as long as it likes. */
  #warn(node: string, { refused }: Checked): void {
    if (refused.length === 0) return;
    const level = this.#warned.has(node) ? 'debug' : 'warn';
    this.#warned.add(node);
    this.#parts.log[level](
      { node, why: refused[0] },
      'a node tells of accesses that are none of its business; ignored',
    );
  }
}

function byVersion(said: readonly SaidAccess[]): [SaidAccess, ...SaidAccess[]][] {
  const groups = new Map<string, [SaidAccess, ...SaidAccess[]]>();
  for (const one of said) {
    const key = versionKey(one.secretId, one.version);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [one]);
    else group.push(one);
  }
  return [...groups.values()];
}
