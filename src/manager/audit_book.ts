/**
 * The control audit: who did what, when and from where, and what was refused. Lines are only ever added, each names the digest of
 * the one before, and the oldest go when there are too many. No value is in it. What cannot be written just now stands in the
 * log, and is written with the next one.
 */
import { create } from '@bufbuild/protobuf';
import type { Logger } from 'pino';
import { auditDigest, noDigest } from '../crypto/audit_chain.js';
import type { Clock } from '../model/clock.js';
import { asInroError } from '../model/error.js';
import { printable } from '../model/name.js';
import {
  AuditHeadRecordSchema,
  AuditRecordSchema,
  type AuditHeadRecord,
  type AuditRecord,
} from '../proto/gen/inro/v1/records_pb.js';
import type { Store } from '../store/store.js';
import { auditKey, decodeRecord, encodeRecord, tables } from '../store/tables.js';
import type { Transaction } from '../store/transaction.js';
import { CommitQueue } from './commit_queue.js';
import { managerLimits } from './limits.js';
import { Tries } from './tries.js';

export interface AuditEntry {
  action: string;
  object?: string;
  actor?: string;
  actorId?: string;
  role?: string;
  serial?: string;
  address?: string;
  outcome: string;
  reason?: string;
}

export interface AuditBookParts {
  /** That are kept; managerLimits.maxAuditLines if not given. */
  maxLines?: number;
  clusterId: string;
  store: Store;
  clock: Clock;
  log: Logger;
}

interface Attempt {
  tx: Transaction;
}

interface Timed {
  entry: AuditEntry;
  atMs: number;
}

export class AuditBook {
  readonly #parts: AuditBookParts;
  readonly #queue: CommitQueue<Attempt>;
  readonly #listeners = new Set<() => void>();
  /** What could not be written, the oldest first. */
  #unwritten: Timed[] = [];
  #lost = 0;
  readonly #strangers: Tries;
  #uncounted = 0;

  constructor(parts: AuditBookParts) {
    this.#parts = parts;
    this.#strangers = new Tries(parts.clock, managerLimits.strangerLinesMs);
    this.#queue = new CommitQueue(parts.store, {
      begin: (tx) => ({ tx }),
      maxWeight: managerLimits.maxAuditLinesPerCommit,
    });
  }

  /**
   * Of somebody who is none of the cluster's, or is not known to be: whoever has many addresses must not push out what others did.
   * Beyond some in a minute they are counted. Never throws.
   */
  async appendStranger(entry: AuditEntry): Promise<void> {
    if (this.#strangers.count('') >= managerLimits.strangerLines) {
      this.#uncounted += 1;
      return;
    }
    this.#strangers.note('');
    const more = this.#uncounted === 0 ? '' : ` (and ${this.#uncounted} others before it)`;
    this.#uncounted = 0;
    await this.append({ ...entry, reason: `${entry.reason ?? ''}${more}` });
  }

  /** Resolves when it is durable, or when it is known that it cannot be just now. Never throws. */
  async append(entry: AuditEntry): Promise<void> {
    const { clock, log } = this.#parts;
    const own = { entry, atMs: clock.now() };
    const waiting = this.#unwritten.splice(0, managerLimits.maxAuditLinesPerCommit - 2);
    const lost = this.#lost;
    const all = lost === 0 ? [...waiting, own] : [...waiting, this.#lossOf(lost), own];
    try {
      await this.#queue.do(({ tx }) => this.#add(tx, all), all.length);
      this.#lost -= lost;
      for (const listener of this.#listeners) listener();
    } catch (thrown) {
      const error = asInroError(thrown);
      log.error(
        { ...entry, err: error, remedy: error.remedy },
        'a line of the audit could not be written yet',
      );
      this.#unwritten = [...waiting, ...this.#unwritten, own];
      const tooMany = Math.max(0, this.#unwritten.length - managerLimits.maxUnwrittenAuditLines);
      this.#unwritten.splice(0, tooMany);
      this.#lost += tooMany;
    }
  }

  /** Which there are. */
  async head(): Promise<{ first: number; last: number }> {
    const entry = await this.#parts.store.get(`${tables.auditHead.prefix}self`);
    if (entry === undefined) return { first: 0, last: 0 };
    const { first, last } = decodeRecord(tables.auditHead, entry.key, entry.value);
    return { first: Number(first), last: Number(last) };
  }

  /** Called when lines have been added. Returns how to stop. */
  onLine(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Ends when what was asked for is written; nothing is, after it. */
  stop(): Promise<void> {
    return this.#queue.stop();
  }

  #lossOf(count: number): Timed {
    const entry = { action: 'audit', outcome: 'store_full', reason: `${count} lines could not be written` };
    return { entry, atMs: this.#parts.clock.now() };
  }

  async #add(tx: Transaction, lines: readonly Timed[]): Promise<void> {
    const { clusterId } = this.#parts;
    const head =
      (await tx.get(tables.auditHead, 'self')) ?? create(AuditHeadRecordSchema, { digest: noDigest });
    for (const { entry, atMs } of lines) {
      const written = recordOf(entry, Number(head.last) + 1, atMs, head.digest);
      // As who reads it will find it: what was half a character is another one by then.
      const record = decodeRecord(tables.audit, 'audit', encodeRecord(tables.audit, written));
      const fields = { ...record, number: Number(record.number), atMs };
      head.digest = auditDigest(clusterId, fields);
      head.last = record.number;
      if (head.first === 0n) head.first = record.number;
      tx.put(tables.audit, auditKey(Number(record.number)), record);
    }
    prune(tx, head, this.#parts.maxLines ?? managerLimits.maxAuditLines);
    tx.put(tables.auditHead, 'self', head);
  }
}

function prune(tx: Transaction, head: AuditHeadRecord, maxLines: number): void {
  const first = Number(head.last) - maxLines + 1;
  for (let number = Number(head.first); number < first; number++) tx.delete(tables.audit, auditKey(number));
  if (first > Number(head.first)) head.first = BigInt(first);
}

function recordOf(entry: AuditEntry, number: number, atMs: number, previous: Uint8Array): AuditRecord {
  const text = (value = ''): string => printable(value, managerLimits.maxAuditTextChars);
  return create(AuditRecordSchema, {
    number: BigInt(number),
    atMs: BigInt(atMs),
    action: text(entry.action),
    object: text(entry.object),
    actor: text(entry.actor),
    actorId: text(entry.actorId),
    role: text(entry.role),
    serial: text(entry.serial),
    address: text(entry.address),
    outcome: text(entry.outcome),
    reason: text(entry.reason),
    previous,
  });
}
