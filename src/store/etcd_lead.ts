/**
 * Which of several managers leads. Each has a key in etcd that lives as long as its lease there, and one of them the leader's key as well.
 * A leader that cannot renew its lease in time takes itself for deposed before etcd gives that key to another one.
 */
import type { Logger } from 'pino';
import type { Sealer } from '../crypto/record_box.js';
import type { Clock } from '../model/clock.js';
import { asInroError, InroError } from '../model/error.js';
import { Compare_CompareTarget, type KeyValue } from '../proto/gen/etcdserverpb/rpc_pb.js';
import { below, openRecord } from './etcd.js';
import { EtcdClient, type EtcdTarget } from './etcd_client.js';
import { packRecord } from './record.js';

const limits = {
  /** After which etcd gives a dead leader's place away. */
  leaseMs: 10_000,
  /** For clocks that do not run alike, and for the answer on its way. */
  marginMs: 1_500,
  roundMs: 1_000,
  /** Of one change: a service with that many tasks. */
  operations: 4_096,
} as const;

export interface Candidate {
  id: string;
  /** HOST:PORT, where agents and operators reach it. */
  address: string;
}

/** From when a manager leads until it does not. */
export interface Term {
  fence: { key: Uint8Array; createRevision: bigint };
  /** Aborts when another one may lead. */
  lost: AbortSignal;
  /** Whether that is so by now, also where nothing has run for a while. */
  isOver(): boolean;
  /** It leads no more, and another one may at once. */
  end(): Promise<void>;
}

export interface LeadOptions extends EtcdTarget {
  /** What is before every key, such as `/inro/`. */
  prefix: string;
  sealer: Sealer;
  self: Candidate;
  clock: Clock;
  log: Logger;
}

interface OwnLease {
  id: bigint;
  /** Boot-time ms. */
  goodUntilMs: number;
}

interface OwnTerm extends Term {
  lostIt: AbortController;
}

export class EtcdLead {
  readonly #options: LeadOptions;
  readonly #client: EtcdClient;
  readonly #over = new AbortController();
  readonly #prefix: string;
  readonly #leaderKey: Buffer;
  readonly #ownKey: Buffer;
  #running: Promise<void> = Promise.resolve();
  #lease: OwnLease | undefined;
  #expiry: { cancel(): void } | undefined;
  #term: OwnTerm | undefined;
  #wanted: ((term: Term) => void) | undefined;
  #leader: Candidate | undefined;
  #leaderRevision = 0n;
  #members: Candidate[] = [];
  #lastError = '';
  #wake = new AbortController();

  private constructor(options: LeadOptions) {
    const { prefix, self, clock, ...target } = options;
    this.#options = options;
    this.#client = new EtcdClient(target, clock);
    this.#prefix = `${prefix}manager/`;
    this.#leaderKey = Buffer.from(`${this.#prefix}leader`);
    this.#ownKey = Buffer.from(`${this.#prefix}member/${self.id}`);
  }

  /** @throws unreachable, store_corrupt. */
  static async join(options: LeadOptions): Promise<EtcdLead> {
    const lead = new EtcdLead(options);
    try {
      await lead.#round();
      await lead.#endFormer();
    } catch (error) {
      await lead.close();
      throw error;
    }
    lead.#running = lead.#run();
    return lead;
  }

  /** As of a second ago; undefined while there is none. */
  get leader(): Candidate | undefined {
    return this.#leader;
  }

  /** Those that run, this one among them. */
  get members(): readonly Candidate[] {
    return this.#members;
  }

  /** Says it where etcd takes fewer changes at once than a large cluster needs. */
  async tellBounds(): Promise<void> {
    const look = { request: { case: 'requestRange', value: { key: this.#leaderKey } } } as const;
    try {
      await this.#client.txn({ success: Array.from({ length: limits.operations }, () => look) });
    } catch (error) {
      const { code, message } = asInroError(error);
      if (code !== 'too_large') throw error;
      const remedy = `start its members with --max-txn-ops=${limits.operations}`;
      this.#options.log.warn(
        { why: message, remedy },
        'large changes, such as a service on many nodes, will be refused',
      );
    }
  }

  /** Waits until this manager leads. @returns undefined when the signal aborts first. */
  async lead(signal: AbortSignal): Promise<Term | undefined> {
    let give = (_term: Term | undefined): void => undefined;
    const given = new Promise<Term | undefined>((resolve) => (give = resolve));
    const stop = (): void => give(undefined);
    signal.addEventListener('abort', stop, { once: true });
    if (signal.aborted) stop();
    this.#wanted = give;
    this.#wake.abort();
    try {
      return await given;
    } finally {
      this.#wanted = undefined;
      signal.removeEventListener('abort', stop);
    }
  }

  /** Another one may lead at once. */
  async close(): Promise<void> {
    this.#over.abort();
    this.#wake.abort();
    await this.#running;
    this.#expiry?.cancel();
    this.#deposed();
    // One that cannot be reached ends it by itself.
    if (this.#lease !== undefined) await this.#client.revokeLease(this.#lease.id).catch(() => undefined);
    this.#client.close();
  }

  /** What the process before this one has left, if it was killed: who has this folder knows that it is gone. */
  async #endFormer(): Promise<void> {
    const { self } = this.#options;
    if (this.#leader?.id !== self.id || this.#term !== undefined) return;
    await this.#endAt(this.#leaderRevision);
  }

  async #endAt(value: bigint): Promise<void> {
    const key = this.#leaderKey;
    await this.#client.txn({
      compare: [
        { target: Compare_CompareTarget.CREATE, key, targetUnion: { case: 'createRevision', value } },
      ],
      success: [{ request: { case: 'requestDeleteRange', value: { key } } }],
    });
    this.#leader = undefined;
  }

  async #run(): Promise<void> {
    const { clock, log } = this.#options;
    const { signal } = this.#over;
    while (!signal.aborted) {
      await clock.sleep(limits.roundMs, this.#wake.signal);
      this.#wake = new AbortController();
      if (signal.aborted) return;
      try {
        await this.#round();
        if (this.#lastError !== '') log.info('etcd answers again');
        this.#lastError = '';
      } catch (thrown) {
        const { message, remedy } = asInroError(thrown);
        if (message !== this.#lastError) log.error({ why: message, remedy }, 'etcd does not do as it should');
        this.#lastError = message;
      }
    }
  }

  async #round(): Promise<void> {
    const lease = await this.#leased();
    await this.#look();
    if (this.#wanted === undefined || this.#leader !== undefined) return;
    const { self, sealer } = this.#options;
    const value = sealer.seal(packRecord('leader', 0, Buffer.from(JSON.stringify(self))));
    const key = this.#leaderKey;
    await this.#client.txn({
      compare: [
        {
          target: Compare_CompareTarget.CREATE,
          key,
          targetUnion: { case: 'createRevision', value: 0n },
        },
      ],
      success: [{ request: { case: 'requestPut', value: { key, value, lease: lease.id } } }],
    });
    await this.#look();
  }

  /** Its lease, renewed; a new one where there is none, or no more. */
  async #leased(): Promise<OwnLease> {
    const { clock, self, sealer } = this.#options;
    const askedMs = clock.boottimeMs();
    if (this.#lease !== undefined) {
      const isKept = await this.#client.keepLease(this.#lease.id);
      // It may have been given up while that was asked.
      if (isKept && this.#lease !== undefined) return this.#goodSince(this.#lease.id, askedMs);
      this.#lease = undefined;
      this.#deposed();
    }
    const grantedMs = clock.boottimeMs();
    const id = await this.#client.grantLease(limits.leaseMs / 1000);
    const lease = this.#goodSince(id, grantedMs);
    const value = sealer.seal(packRecord(`member/${self.id}`, 0, Buffer.from(JSON.stringify(self))));
    await this.#client.txn({
      success: [{ request: { case: 'requestPut', value: { key: this.#ownKey, value, lease: id } } }],
    });
    return lease;
  }

  #goodSince(id: bigint, sinceMs: number): OwnLease {
    const { clock } = this.#options;
    const goodUntilMs = sinceMs + limits.leaseMs - limits.marginMs;
    const lease = { id, goodUntilMs };
    this.#lease = lease;
    this.#expiry?.cancel();
    this.#expiry = clock.timer(Math.max(0, goodUntilMs - clock.boottimeMs()), () => {
      this.#lease = undefined;
      this.#leader = undefined;
      this.#deposed();
    });
    return lease;
  }

  async #look(): Promise<void> {
    const range = below(this.#prefix);
    const { kvs } = await this.#client.range(range);
    const leader = kvs.find(({ key }) => this.#leaderKey.equals(key));
    this.#members = kvs.filter((kv) => kv !== leader).map((kv) => this.#candidate(kv));
    this.#leader = leader === undefined ? undefined : this.#candidate(leader);
    this.#leaderRevision = leader?.createRevision ?? 0n;
    const isOwn = leader !== undefined && leader.lease === this.#lease?.id;
    if (this.#term !== undefined && leader?.createRevision !== this.#term.fence.createRevision)
      this.#deposed();
    if (isOwn && this.#term === undefined) this.#begin(leader.createRevision);
  }

  #begin(createRevision: bigint): void {
    const key = this.#leaderKey;
    const lostIt = new AbortController();
    const term: OwnTerm = {
      fence: { key, createRevision },
      lost: lostIt.signal,
      lostIt,
      isOver: () => lostIt.signal.aborted || !this.#isGood(),
      end: () => this.#resign(term),
    };
    if (this.#wanted === undefined) return void this.#resign(term);
    this.#term = term;
    this.#wanted(term);
    this.#wanted = undefined;
  }

  #isGood(): boolean {
    return this.#lease !== undefined && this.#options.clock.boottimeMs() < this.#lease.goodUntilMs;
  }

  #deposed(): void {
    this.#term?.lostIt.abort();
    this.#term = undefined;
  }

  async #resign(term: OwnTerm): Promise<void> {
    if (this.#term === term) this.#deposed();
    try {
      await this.#endAt(term.fence.createRevision);
    } catch (error) {
      // It ends with its lease.
      this.#options.log.warn({ err: error }, 'the lead could not be given back');
    }
  }

  #candidate({ key, value }: KeyValue): Candidate {
    const name = Buffer.from(key).toString().slice(this.#prefix.length);
    const { value: text } = openRecord(this.#options.sealer, name, value);
    const { id, address } = JSON.parse(text.toString()) as Partial<Candidate>;
    if (typeof id !== 'string' || typeof address !== 'string')
      throw new InroError('store_corrupt', `the record ${name} in etcd is not what a manager wrote`);
    return { id, address };
  }
}
