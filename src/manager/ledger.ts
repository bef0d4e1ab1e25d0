/**
 * What the manager writes down about the nodes' copies: who may hold which version, before it is sent there, and each
 * receipt once, before it is acknowledged. Steps that come together go into one commit, so that a change for thousands
 * of nodes costs a few writes to the disk.
 */
import { create } from '@bufbuild/protobuf';
import type { Clock } from '../model/clock.js';
import { InroError } from '../model/error.js';
import type { Receipt } from '../proto/gen/inro/v1/dispatcher_pb.js';
import {
  HolderRecordSchema,
  ReceiptMarkSchema,
  ReceiptMarksRecordSchema,
  ReceiptRecordSchema,
  type HolderRecord,
  type ReceiptMark,
  type ReceiptRecord,
} from '../proto/gen/inro/v1/records_pb.js';
import type { Store } from '../store/store.js';
import { decodeRecord, holderKey, receiptKey, tables } from '../store/tables.js';
import { transact, type Transaction } from '../store/transaction.js';
import type { NeededVersion } from './assignment.js';
import { KeptReceipts, type KeptReceipt } from './kept_receipts.js';
import { managerLimits } from './limits.js';
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
  marks: Map<string, ReceiptMark[]>;
}

interface Step {
  run: (attempt: Attempt) => Promise<void>;
  done: () => void;
  failed: (error: unknown) => void;
}

export class Ledger {
  readonly #parts: LedgerParts;
  readonly #kept = new KeptReceipts(managerLimits.maxReceipts);
  /** By node: up to which number its runs' receipts are taken. */
  readonly #marks = new Map<string, readonly ReceiptMark[]>();
  #waiting: Step[] = [];
  #writing: Promise<void> | undefined;
  #stopped = false;

  private constructor(parts: LedgerParts) {
    this.#parts = parts;
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
    return ledger;
  }

  /** The node may hold these from now on. Durable when it resolves: only then they may be sent. */
  hand(nodeId: string, versions: readonly NeededVersion[]): Promise<void> {
    const sentMs = BigInt(this.#parts.clock.now());
    return this.#do(async ({ tx }) => {
      for (const { secretId, version } of versions) {
        const key = holderKey(nodeId, secretId, version);
        if ((await tx.get(tables.holders, key)) !== undefined) continue;
        tx.put(tables.holders, key, create(HolderRecordSchema, { nodeId, secretId, version, sentMs }));
      }
    });
  }

  /** The node holds those no more, and no receipt will say so. */
  clear(nodeId: string, isGone: (holder: HolderRecord) => boolean): Promise<void> {
    return this.#do(async ({ tx }) => {
      for (const holder of this.#parts.view.holders.ofNode(nodeId)) {
        if (isGone(holder)) tx.delete(tables.holders, holderKey(nodeId, holder.secretId, holder.version));
      }
    });
  }

  /** The number of the run's last receipt that was taken; 0 before the first. */
  lastTaken(nodeId: string, runId: string): bigint {
    return this.#marks.get(nodeId)?.find((mark) => mark.runId === runId)?.number ?? 0n;
  }

  /**
   * Takes receipts of one run, whose signatures were checked, in the order of their numbers; each counts once.
   * @param isNeeded what the node should hold now: a receipt for an earlier copy of it says nothing about this one.
   * @returns those that were new, once they are durable.
   */
  async take(
    nodeId: string,
    receipts: readonly Receipt[],
    isNeeded: (version: NeededVersion) => boolean,
  ): Promise<Receipt[]> {
    const takenMs = BigInt(this.#parts.clock.now());
    let taken: Receipt[] = [];
    const runId = receipts[0]?.runId ?? '';
    await this.#do(async ({ tx, added, marks }) => {
      const known = marks.get(nodeId) ?? this.#marks.get(nodeId) ?? [];
      const last = known.find((mark) => mark.runId === runId)?.number ?? 0n;
      taken = receipts.filter(({ number }) => number > last);
      const number = taken.at(-1)?.number;
      if (number === undefined) return;
      for (const receipt of taken) {
        const { secretId, version } = receipt;
        const key = receiptKey(nodeId, runId, Number(receipt.number));
        tx.put(tables.receipts, key, this.#record(nodeId, receipt, takenMs));
        added.push({ nodeId, key });
        if (receipt.reason === 'stopped' || !isNeeded(receipt))
          tx.delete(tables.holders, holderKey(nodeId, secretId, version));
      }
      const others = known.filter((mark) => mark.runId !== runId);
      const own = [...others, create(ReceiptMarkSchema, { runId, number })];
      marks.set(nodeId, own.slice(-managerLimits.maxReceiptRunsPerNode));
    });
    return taken;
  }

  /** Ends when what was asked for is written; nothing is, after it. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#writing;
  }

  #record(nodeId: string, receipt: Receipt, takenMs: bigint): ReceiptRecord {
    const { $typeName: _, $unknown: __, ...said } = receipt;
    const secretName = this.#parts.view.secrets.get(receipt.secretId)?.name ?? '';
    return create(ReceiptRecordSchema, { ...said, nodeId, takenMs, secretName });
  }

  #do(run: Step['run']): Promise<void> {
    if (this.#stopped) return Promise.reject(new InroError('unreachable', 'the manager is stopping'));
    return new Promise((done, failed) => {
      this.#waiting.push({ run, done, failed });
      this.#writing ??= this.#write();
    });
  }

  async #write(): Promise<void> {
    // What comes in one turn is written together.
    await Promise.resolve();
    for (let batch = this.#next(); batch.length > 0; batch = this.#next()) {
      try {
        await this.#commit(batch);
        for (const { done } of batch) done();
      } catch (error) {
        await this.#oneByOne(batch, error);
      }
    }
    this.#writing = undefined;
  }

  #next(): Step[] {
    return this.#waiting.splice(0, managerLimits.maxStepsPerCommit);
  }

  /** A record that cannot be read concerns the node that it is about, and nobody else; a full disk all of them. */
  async #oneByOne(batch: readonly Step[], error: unknown): Promise<void> {
    const isCommon = !(error instanceof InroError) || error.code !== 'store_corrupt' || batch.length === 1;
    for (const step of batch) {
      if (isCommon) step.failed(error);
      else await this.#commit([step]).then(step.done, step.failed);
    }
  }

  async #commit(batch: readonly Step[]): Promise<void> {
    const { result } = await transact(this.#parts.store, async (tx) => {
      const attempt: Attempt = { tx, added: [], marks: new Map() };
      for (const { run } of batch) await run(attempt);
      for (const [nodeId, marks] of attempt.marks)
        tx.put(tables.receiptMarks, nodeId, create(ReceiptMarksRecordSchema, { nodeId, marks }));
      const surplus = this.#kept.surplusWith(attempt.added);
      for (const { key } of surplus) tx.delete(tables.receipts, key);
      return { ...attempt, surplus };
    });
    this.#kept.add(result.added);
    this.#kept.remove(result.surplus);
    for (const [nodeId, marks] of result.marks) this.#marks.set(nodeId, marks);
  }
}
