/**
 * What the manager writes down about the nodes' copies: who may hold which version, before it is sent there, and each
 * receipt once, before it is acknowledged.
 */
import { create } from '@bufbuild/protobuf';
import type { Clock } from '../model/clock.js';
import type { Receipt } from '../proto/gen/inro/v1/dispatcher_pb.js';
import {
  HolderRecordSchema,
  ReceiptRecordSchema,
  RunMarksRecordSchema,
  type HolderRecord,
  type ReceiptRecord,
  type RunMark,
} from '../proto/gen/inro/v1/records_pb.js';
import type { Store } from '../store/store.js';
import { decodeRecord, holderKey, receiptKey, tables } from '../store/tables.js';
import type { Transaction } from '../store/transaction.js';
import type { NeededVersion } from './assignment.js';
import { CommitQueue } from './commit_queue.js';
import { KeptReceipts, type KeptReceipt } from './kept_receipts.js';
import { managerLimits } from './limits.js';
import { keepPlace } from './read_records.js';
import { lastOf, withMark } from './run_marks.js';
import type { ClusterView } from './view.js';

interface LedgerParts {
  store: Store;
  view: ClusterView;
  clock: Clock;
}

/** One attempt of a commit. */
interface Attempt {
  tx: Transaction;
  added: KeptReceipt[];
  /** By node. */
  marks: Map<string, RunMark[]>;
  surplus: KeptReceipt[];
}

export class Ledger {
  readonly #parts: LedgerParts;
  readonly #kept = new KeptReceipts(managerLimits.maxReceipts);
  /** By node: up to which number its runs' receipts are taken. */
  readonly #marks = new Map<string, readonly RunMark[]>();
  /** By `holderKey`: CLOCK_BOOTTIME ms. The wall clock may be set. */
  readonly #removedEndsMs = new Map<string, number>();
  readonly #queue: CommitQueue<Attempt>;

  private constructor(parts: LedgerParts) {
    this.#parts = parts;
    this.#queue = new CommitQueue<Attempt>(parts.store, {
      begin: (tx) => ({ tx, added: [], marks: new Map(), surplus: [] }),
      finish: (attempt) => this.#finish(attempt),
      committed: (attempt) => this.#committed(attempt),
      maxWeight: managerLimits.maxStepsPerCommit,
    });
  }

  /** @throws store_corrupt */
  static async open(parts: LedgerParts): Promise<Ledger> {
    const ledger = new Ledger(parts);
    const { receipts, receiptMarks } = tables;
    const kept = (await parts.store.list(receipts.prefix)).map(({ key, value }) => {
      const { nodeId, takenMs } = decodeRecord(receipts, key, value);
      return { nodeId, takenMs, key: key.slice(receipts.prefix.length) };
    });
    ledger.#kept.add(kept.sort((a, b) => Number(a.takenMs - b.takenMs) || (a.key < b.key ? -1 : 1)));
    for (const { key, value } of await parts.store.list(receiptMarks.prefix)) {
      const { nodeId, marks } = decodeRecord(receiptMarks, key, value);
      ledger.#marks.set(nodeId, marks);
    }
    for (const holder of parts.view.holders.ofRemoved()) ledger.removedEndsMs(holder);
    return ledger;
  }

  /**
   * The node may hold these from now on. Durable when it resolves: only then they may be sent.
   * @param by the node's own word, or the manager's, who is about to send them.
   * @param isOver of the stream that this is about: then it says nothing any more, and nothing is noted.
   */
  hand(
    nodeId: string,
    versions: readonly NeededVersion[],
    by: 'node' | 'manager' = 'manager',
    isOver: () => boolean = () => false,
  ): Promise<void> {
    const sentMs = BigInt(this.#parts.clock.now());
    const claimed = by === 'node';
    return this.#queue.do(async ({ tx }) => {
      if (isOver()) return;
      // Its stream has been ended: nothing is sent to it any more.
      if ((await tx.get(tables.refused, nodeId)) !== undefined) return;
      for (const { secretId, version } of versions) {
        const key = holderKey(nodeId, secretId, version);
        const known = await tx.get(tables.holders, key);
        if (known !== undefined && (claimed || !known.claimed)) continue;
        const { view } = this.#parts;
        const { leaseMs = 0n } = view.version(secretId, version) ?? {};
        const about = { leaseMs, secretName: view.secrets.get(secretId)?.name ?? '' };
        const facts = { nodeId, secretId, version, sentMs, claimed };
        tx.put(tables.holders, key, create(HolderRecordSchema, { ...facts, ...about }));
      }
    });
  }

  /** The node holds those no more, and no receipt will say so. */
  clear(nodeId: string, isGone: (holder: HolderRecord) => boolean): Promise<void> {
    return this.#queue.do(async ({ tx }) => {
      for (const holder of this.#parts.view.holders.ofNode(nodeId))
        if (isGone(holder)) await this.#end(tx, nodeId, holder);
    });
  }

  /**
   * The node is not one of the cluster any more: in one commit with `more`, what is noted of its copies goes, at once or with its
   * lease. Its receipts stay.
   * @param leaseEndsMs until when it may serve a version that it has not said to be wiped; 0: not any more.
   */
  async forget(
    nodeId: string,
    leaseEndsMs: (version: NeededVersion) => bigint,
    more: (tx: Transaction) => Promise<void>,
  ): Promise<void> {
    await this.#queue.do(async ({ tx }) => {
      for (const { secretId, version } of this.#parts.view.holders.ofNode(nodeId)) {
        const key = holderKey(nodeId, secretId, version);
        const holder = await tx.get(tables.holders, key);
        const removedUntilMs = leaseEndsMs({ secretId, version });
        if (holder === undefined || removedUntilMs === 0n) tx.delete(tables.holders, key);
        else tx.put(tables.holders, key, Object.assign(holder, { removedUntilMs }));
      }
      tx.delete(tables.receiptMarks, nodeId);
      await more(tx);
    }, managerLimits.maxStepsPerCommit);
    this.#marks.delete(nodeId);
    const { holders } = this.#parts.view;
    for (const key of this.#removedEndsMs.keys()) if (!holders.hasKey(key)) this.#removedEndsMs.delete(key);
    for (const holder of holders.ofNode(nodeId)) this.removedEndsMs(holder);
  }

  /** Until when a node that was removed may serve it: CLOCK_BOOTTIME ms, by what its record said when this manager saw it first. */
  removedEndsMs({ nodeId, secretId, version, removedUntilMs }: HolderRecord): number {
    const { clock } = this.#parts;
    const key = holderKey(nodeId, secretId, version);
    const known = this.#removedEndsMs.get(key);
    if (known !== undefined) return known;
    const endsMs = clock.boottimeMs() + Number(removedUntilMs) - clock.now();
    this.#removedEndsMs.set(key, endsMs);
    return endsMs;
  }

  /** The number of the run's last receipt that was taken; 0 before the first. */
  lastTaken(nodeId: string, runId: string): bigint {
    return lastOf(this.#marks.get(nodeId), runId);
  }

  /**
   * Takes receipts of one run, whose signatures were checked, in the order of their numbers; each counts once.
   * @param isOfAnother copy than the one that the node holds, or is being sent: then nothing ends.
   * @returns those that were new, once they are durable.
   */
  async take(
    nodeId: string,
    receipts: readonly Receipt[],
    isOfAnother: (receipt: Receipt) => boolean,
  ): Promise<Receipt[]> {
    const takenMs = BigInt(this.#parts.clock.now());
    let taken: Receipt[] = [];
    const runId = receipts[0]?.runId ?? '';
    await this.#queue.do(async ({ tx, added, marks }) => {
      const known = marks.get(nodeId) ?? this.#marks.get(nodeId) ?? [];
      const last = lastOf(known, runId);
      taken = receipts.filter(({ number }) => number > last);
      const number = taken.at(-1)?.number;
      if (number === undefined) return;
      for (const receipt of taken) {
        const key = receiptKey(nodeId, runId, Number(receipt.number));
        tx.put(tables.receipts, key, this.#record(nodeId, receipt, takenMs));
        added.push({ nodeId, key });
        if (!isOfAnother(receipt)) await this.#end(tx, nodeId, receipt);
      }
      marks.set(nodeId, withMark(known, runId, number));
    });
    return taken;
  }

  /** Ends when what was asked for is written; nothing is, after it. */
  stop(): Promise<void> {
    return this.#queue.stop();
  }

  /** What it was sent it may still tell something of. */
  async #end(tx: Transaction, nodeId: string, version: NeededVersion): Promise<void> {
    const key = holderKey(nodeId, version.secretId, version.version);
    const holder = await tx.get(tables.holders, key);
    if (holder === undefined) return;
    tx.delete(tables.holders, key);
    if (!holder.claimed) await keepPlace(tx, nodeId, version);
  }

  #finish(attempt: Attempt): void {
    const { tx, added, marks } = attempt;
    for (const [nodeId, own] of marks)
      tx.put(tables.receiptMarks, nodeId, create(RunMarksRecordSchema, { nodeId, marks: own }));
    attempt.surplus = this.#kept.surplusWith(added);
    for (const { key } of attempt.surplus) tx.delete(tables.receipts, key);
  }

  #committed({ added, marks, surplus }: Attempt): void {
    this.#kept.add(added);
    this.#kept.remove(surplus);
    for (const [nodeId, own] of marks) this.#marks.set(nodeId, own);
  }

  #record(nodeId: string, receipt: Receipt, takenMs: bigint): ReceiptRecord {
    const { $typeName: _, $unknown: __, ...said } = receipt;
    const { secretId, version } = receipt;
    const { view } = this.#parts;
    const holder = view.holders.get(nodeId, secretId, version);
    const secretName = view.secrets.get(secretId)?.name ?? holder?.secretName ?? '';
    return create(ReceiptRecordSchema, { ...said, nodeId, takenMs, secretName });
  }
}
