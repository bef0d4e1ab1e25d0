/**
 * The distributed store: etcd. All is below one prefix: each record under `data/`, and `head` with the last revision, which every
 * commit compares and writes. So commits of several managers are in one order without a gap, and one that is sent
 * twice, because its answer got lost, is done once.
 */
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Sealer } from '../crypto/record_box.js';
import type { Clock, Random } from '../model/clock.js';
import { InroError } from '../model/error.js';
import {
  Compare_CompareTarget,
  type CompareSchema,
  Event_EventType,
  type Event,
  type KeyValue,
  type RequestOpSchema,
} from '../proto/gen/etcdserverpb/rpc_pb.js';
import { EtcdClient, type EtcdTarget } from './etcd_client.js';
import { packRecord, unpackRecord, type Record } from './record.js';
import type { Change, Commit, Entry, Store } from './store.js';
import { namePrefixes } from './tables.js';

const remedy =
  'somebody else wrote below its prefix: restore etcd from a snapshot, or the manager from a backup (docs/operations.md)';
const headKey = 'head';
const nonceBytes = 16;
/** A page of records: ciphertexts may have a megabyte each. */
const pageEntries = 100;
const pauseMs = 200;
/** Of a record that is kept in memory: all but ciphertexts. */
const maxKeptBytes = 4096;

export interface EtcdOptions extends EtcdTarget {
  /** What is before every key, such as `/inro/`. */
  prefix: string;
  /** What each record is sealed by: etcd neither reads nor changes one. */
  sealer: Sealer;
  /** What each commit depends on. */
  fence?: Fence;
  /** Every commit is refused. */
  isReadOnly?: boolean;
  /** Called when it is of no use any more: it has to be opened again. */
  onFailed?: () => void;
  clock: Clock;
  random: Random;
}

/** The leader's key, as it was when this manager became leader. */
export interface Fence {
  key: Uint8Array;
  createRevision: bigint;
  /** Called when a commit finds that another one leads. */
  onBroken: () => void;
}

/** Where the store was at one moment. */
interface Head {
  /** Ours: one more with each commit. */
  revision: number;
  /** etcd's, when the head was written; 0n before the first commit. */
  modRevision: bigint;
}

/** @throws unreachable, store_corrupt. */
export async function openEtcdStore(options: EtcdOptions): Promise<Store> {
  const store = new EtcdStore(options);
  try {
    await store.begin();
    return store;
  } catch (error) {
    await store.close();
    throw error;
  }
}

class EtcdStore implements Store {
  readonly #client: EtcdClient;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #sealer: Sealer;
  readonly #fence: Fence | undefined;
  readonly #isReadOnly: boolean;
  readonly #onFailed: () => void;
  readonly #dataPrefix: string;
  readonly #headKey: Buffer;
  readonly #all: { key: Uint8Array; rangeEnd: Uint8Array };
  readonly #listeners = new Set<(change: Change) => void>();
  /** Each key's revision as of `#head`: what checks are compared with. */
  readonly #revisions = new Map<string, number>();
  /** As of `#head`: what is not large. While nobody else may commit, that is all that there is to read. */
  readonly #values = new Map<string, Uint8Array>();
  /** Of what does not lie under its own name: by where it lies. */
  readonly #keys = new Map<string, string>();
  /** Called whenever `#head` has moved, or the store has ended. */
  readonly #waiting = new Set<() => void>();
  readonly #ended = new AbortController();
  #failure: InroError | undefined;
  #head: Head = { revision: 0, modRevision: 0n };
  /** The commit that is on its way, by what it writes into the head. */
  #inFlight = { nonce: Buffer.alloc(0), isDone: false };
  /** etcd's revision up to which everything has been heard. */
  #heardTo = 0n;
  #lastTurn: Promise<unknown> = Promise.resolve();
  #following: Promise<void> = Promise.resolve();

  constructor(options: EtcdOptions) {
    const { prefix, sealer, fence, isReadOnly = false, onFailed = () => undefined, ...rest } = options;
    const { clock, random, ...target } = rest;
    this.#client = new EtcdClient(target, clock);
    this.#clock = clock;
    this.#random = random;
    this.#sealer = sealer;
    this.#fence = fence;
    this.#isReadOnly = isReadOnly;
    this.#onFailed = onFailed;
    this.#dataPrefix = `${prefix}data/`;
    this.#headKey = Buffer.from(prefix + headKey);
    this.#all = below(prefix);
  }

  async begin(): Promise<void> {
    await this.snapshot(async (_, entries) => {
      for await (const entry of entries) this.#note(entry);
    });
    this.#following = this.#follow();
  }

  async get(key: string): Promise<Entry | undefined> {
    this.#checkUsable();
    if (this.#fence !== undefined) {
      const revision = this.#revisions.get(key);
      if (revision === undefined) return undefined;
      const value = this.#values.get(key);
      if (value !== undefined) return { key, revision, value: Uint8Array.from(value) };
    }
    const { kvs } = await this.#client.range({ key: this.#pathOf(key) });
    return kvs[0] === undefined ? undefined : this.#entry(kvs[0]);
  }

  async list(prefix: string): Promise<Entry[]> {
    this.#checkUsable();
    const entries: Entry[] = [];
    for await (const entry of this.#pages(prefix, 0n)) entries.push(entry);
    // Names are hidden from etcd, and so is their order.
    return namePrefixes.includes(prefix) ? entries.sort((a, b) => (a.key < b.key ? -1 : 1)) : entries;
  }

  async snapshot<T>(use: (revision: number, entries: AsyncIterable<Entry>) => Promise<T>): Promise<T> {
    this.#checkUsable();
    const { header, kvs } = await this.#client.range({ key: this.#headKey });
    const at = header?.revision ?? 0n;
    if (this.#heardTo === 0n) {
      this.#heardTo = at;
      this.#moveTo(kvs[0]);
    }
    return await use(this.#headOf(kvs[0]).revision, this.#pages('', at));
  }

  async revision(): Promise<number> {
    this.#checkUsable();
    if (this.#fence !== undefined) return this.#head.revision;
    const { kvs } = await this.#client.range({ key: this.#headKey });
    return this.#headOf(kvs[0]).revision;
  }

  commit(commit: Commit): Promise<number> {
    if (this.#isReadOnly) return Promise.reject(notLeader());
    // What was handed in may be changed by whoever did, once this has returned.
    const puts = commit.puts.map(({ key, value }) => ({ key, value: Uint8Array.from(value) }));
    const own = { checks: [...commit.checks], puts, deletes: [...commit.deletes] };
    const done = this.#lastTurn.then(() => this.#commit(own));
    this.#lastTurn = done.catch(() => undefined);
    return done;
  }

  /** etcd keeps all that there was until it is told not to: `etcdctl get --rev`. */
  async forgetPast(): Promise<void> {
    this.#checkUsable();
    await this.#client.compact(this.#head.modRevision);
  }

  watch(listener: (change: Change) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async close(): Promise<void> {
    this.#end();
    await this.#following;
  }

  /** One commit at a time: they would only meet at the head. */
  async #commit(commit: Commit): Promise<number> {
    for (;;) {
      this.#checkUsable();
      const { revision: before, modRevision } = this.#head;
      const broken = commit.checks.find(({ key, revision }) => (this.#revisions.get(key) ?? 0) !== revision);
      if (broken !== undefined) {
        // Read later than what has been heard so far, perhaps.
        const { kvs } = await this.#client.range({ key: this.#headKey });
        if (kvs[0]?.modRevision === modRevision || (kvs[0] === undefined && modRevision === 0n))
          throw new InroError('conflict', `${broken.key} was changed by somebody else`);
        await this.#heard(this.#headOf(kvs[0]).revision);
        continue;
      }
      const revision = before + 1;
      this.#inFlight = { nonce: Buffer.from(this.#random(nonceBytes)), isDone: false };
      const head = this.#pack(headKey, revision, this.#inFlight.nonce);
      const { succeeded, responses } = await this.#client.txn({
        compare: [
          {
            target: Compare_CompareTarget.MOD,
            key: this.#headKey,
            targetUnion: { case: 'modRevision', value: modRevision },
          },
          ...this.#unfenced(),
        ],
        success: this.#operations(commit, revision, head),
        failure: [this.#headKey, this.#fence?.key ?? this.#headKey].map((key) => ({
          request: { case: 'requestRange', value: { key } } as const,
        })),
      });
      if (succeeded) {
        await this.#heard(revision);
        return revision;
      }
      // Somebody else's came first; or it is our own, done by a try whose answer got lost.
      const [found, lead] = responses.map(({ response }) =>
        response.case === 'responseRange' ? response.value.kvs[0] : undefined,
      );
      await this.#heard(this.#headOf(found).revision);
      if (this.#inFlight.isDone) return revision;
      if (this.#fence !== undefined && lead?.createRevision !== this.#fence.createRevision) {
        this.#fence.onBroken();
        throw notLeader();
      }
    }
  }

  #unfenced(): MessageInitShape<typeof CompareSchema>[] {
    if (this.#fence === undefined) return [];
    const { key, createRevision: value } = this.#fence;
    return [{ target: Compare_CompareTarget.CREATE, key, targetUnion: { case: 'createRevision', value } }];
  }

  #operations(
    { puts, deletes }: Commit,
    revision: number,
    head: Buffer,
  ): MessageInitShape<typeof RequestOpSchema>[] {
    const put = (key: Buffer, value: Buffer): MessageInitShape<typeof RequestOpSchema> => ({
      request: { case: 'requestPut', value: { key, value } },
    });
    return [
      put(this.#headKey, head),
      ...puts.map(({ key, value }) =>
        put(this.#pathOf(key), this.#pack(this.#pathOf(key).toString(), revision, keyed(key, value))),
      ),
      ...deletes.map((key): MessageInitShape<typeof RequestOpSchema> => ({
        request: { case: 'requestDeleteRange', value: { key: this.#pathOf(key) } },
      })),
    ];
  }

  /** All that begins so, page by page, as it is at one moment. @param at etcd's revision; 0n for now. */
  async *#pages(prefix: string, at: bigint): AsyncGenerator<Entry> {
    const range = below(this.#dataPrefix + prefix);
    let { key } = range;
    let revision = at;
    for (let more = true; more;) {
      const page = await this.#client.range({ ...range, key, revision, limit: BigInt(pageEntries) });
      revision ||= page.header?.revision ?? 0n;
      for (const kv of page.kvs) yield this.#entry(kv);
      const last = page.kvs.at(-1);
      more = page.more && last !== undefined;
      if (last !== undefined) key = Buffer.concat([last.key, Buffer.of(0)]);
    }
  }

  /** Hears every commit, of every manager, in order, over all interruptions, until the store is closed. */
  async #follow(): Promise<void> {
    for (const { signal } = this.#ended; !signal.aborted;) {
      try {
        const stream = this.#client.watch();
        const cancel = (): void => stream.close();
        signal.addEventListener('abort', cancel, { once: true });
        try {
          const create = { ...this.#all, startRevision: this.#heardTo + 1n };
          await stream.send({ requestUnion: { case: 'createRequest', value: create } });
          for await (const response of stream.messages) {
            if (response.compactRevision > 0n) return this.#fail(forgotten(this.#client.to));
            if (response.canceled) break;
            this.#hear(response.events);
          }
        } finally {
          signal.removeEventListener('abort', cancel);
          stream.close();
        }
      } catch (error) {
        if (error instanceof InroError && error.code === 'store_corrupt') return this.#fail(error);
        // Its member is away, or has no leader: the next one. Who asks for something hears of it by that.
      }
      this.#client.turn();
      await this.#clock.sleep(pauseMs, signal);
    }
  }

  #hear(events: readonly Event[]): void {
    for (let from = 0; from < events.length;) {
      const at = events[from]?.kv?.modRevision ?? 0n;
      let to = from;
      while (to < events.length && events[to]?.kv?.modRevision === at) to++;
      if (at > this.#heardTo) this.#apply(events.slice(from, to), at);
      from = Math.max(to, from + 1);
    }
  }

  #apply(events: readonly Event[], at: bigint): void {
    const puts: { key: string; value: Uint8Array }[] = [];
    const deletes: string[] = [];
    let head: KeyValue | undefined;
    for (const { type, kv } of events) {
      if (kv === undefined) continue;
      if (this.#headKey.equals(kv.key)) {
        if (type === Event_EventType.DELETE) throw this.#corrupt('its head was deleted');
        head = kv;
        continue;
      }
      const path = Buffer.from(kv.key).toString();
      if (!path.startsWith(this.#dataPrefix)) continue;
      if (type === Event_EventType.DELETE) {
        const key = this.#keys.get(path) ?? path.slice(this.#dataPrefix.length);
        deletes.push(key);
        this.#keys.delete(path);
        this.#revisions.delete(key);
        this.#values.delete(key);
      } else {
        const entry = this.#entry(kv);
        puts.push({ key: entry.key, value: entry.value });
        this.#note(entry);
      }
    }
    this.#heardTo = at;
    if (head === undefined) {
      if (puts.length + deletes.length > 0) throw this.#corrupt('records were changed without its head');
      return;
    }
    const { revision, value } = this.#unpack(headKey, head.value);
    if (revision !== this.#head.revision + 1)
      throw this.#corrupt(`its head went from ${this.#head.revision} to ${revision}`);
    this.#moveTo(head);
    if (value.equals(this.#inFlight.nonce)) this.#inFlight.isDone = true;
    for (const listener of this.#listeners) listener({ revision, puts, deletes });
    this.#wake();
  }

  #moveTo(head: KeyValue | undefined): void {
    this.#head = this.#headOf(head);
  }

  #headOf(kv: KeyValue | undefined): Head {
    if (kv === undefined) {
      if (this.#head.revision > 0) throw this.#corrupt('its head is gone');
      return { revision: 0, modRevision: 0n };
    }
    const { revision } = this.#unpack(headKey, kv.value);
    return { revision, modRevision: kv.modRevision };
  }

  /** Resolves when that revision, and all before it, have been heard. @throws whatever ended the store. */
  async #heard(revision: number): Promise<void> {
    while (this.#head.revision < revision) {
      this.#checkUsable();
      await new Promise<void>((resolve) => this.#waiting.add(resolve));
    }
  }

  #wake(): void {
    for (const resolve of this.#waiting) resolve();
    this.#waiting.clear();
  }

  #fail(failure: InroError): void {
    this.#failure = failure;
    this.#end();
    this.#onFailed();
  }

  #end(): void {
    this.#ended.abort();
    this.#client.close();
    this.#wake();
  }

  #checkUsable(): void {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#ended.signal.aborted) throw new InroError('unreachable', 'the store is closed');
  }

  #corrupt(fault: string): InroError {
    return new InroError('store_corrupt', `the store in ${this.#client.to} is damaged: ${fault}`, { remedy });
  }

  #pack(key: string, revision: number, value: Uint8Array): Buffer {
    return this.#sealer.seal(packRecord(key, revision, value));
  }

  #unpack(key: string, box: Uint8Array): Record {
    return openRecord(this.#sealer, key, box);
  }

  #note({ key, revision, value }: Entry): void {
    this.#revisions.set(key, revision);
    this.#values.delete(key);
    if (this.#fence !== undefined && value.length <= maxKeptBytes)
      this.#values.set(key, Uint8Array.from(value));
    const path = this.#pathOf(key).toString();
    if (path !== this.#dataPrefix + key) this.#keys.set(path, key);
  }

  #pathOf(key: string): Buffer {
    return pathOf(this.#dataPrefix, key, this.#sealer);
  }

  #entry(kv: KeyValue): Entry {
    const path = Buffer.from(kv.key).toString();
    const { revision, value } = this.#unpack(path, kv.value);
    const { key, content } = unkeyed(value);
    if (!this.#pathOf(key).equals(kv.key)) throw this.#corrupt(`${path} has another record's content`);
    return { key, revision, value: new Uint8Array(content) };
  }
}

/** @throws store_corrupt when it is not what a manager of this cluster wrote there. */
export function openRecord(sealer: Sealer, key: string, box: Uint8Array): Record {
  let bytes: Buffer;
  try {
    bytes = sealer.open(box);
  } catch (cause) {
    throw new InroError(
      'store_corrupt',
      `the record ${JSON.stringify(key)} in etcd was not written by this cluster, or was changed`,
      { remedy, cause },
    );
  }
  return unpackRecord(key, bytes, remedy);
}

/** What is said when another one took its place: nothing was changed. */
export function notLeader(): InroError {
  return new InroError('not_leader', 'this manager does not lead any more', {
    remedy: 'try again: another manager has taken its place, or takes it now',
  });
}

function forgotten(to: string): InroError {
  return new InroError('state_unusable', `${to} forgot changes before this manager had heard of them`, {
    remedy: 'start the manager again; keep more of its past with --auto-compaction-retention=1h',
  });
}

/** Where a record lies: under its key, but for what somebody has named. */
function pathOf(dataPrefix: string, key: string, sealer: Sealer): Buffer {
  const prefix = namePrefixes.find((one) => key.startsWith(one) && key.length > one.length);
  return Buffer.from(dataPrefix + (prefix === undefined ? key : prefix + sealer.hide(key)));
}

const keyLengthBytes = 2;

/** Length of the key (2 bytes, big endian) | key | value. */
function keyed(key: string, value: Uint8Array): Buffer {
  const length = Buffer.alloc(keyLengthBytes);
  const name = Buffer.from(key);
  length.writeUInt16BE(name.length);
  return Buffer.concat([length, name, value]);
}

function unkeyed(bytes: Buffer): { key: string; content: Buffer } {
  const at = keyLengthBytes + bytes.readUInt16BE();
  return { key: bytes.toString('utf8', keyLengthBytes, at), content: bytes.subarray(at) };
}

/** Every key that begins so, as etcd says it: from it to the first that does not. @param prefix not empty. */
export function below(prefix: string): { key: Buffer; rangeEnd: Buffer } {
  const key = Buffer.from(prefix);
  const rangeEnd = Buffer.from(key);
  // UTF-8 has no byte 0xff: the last one can always be raised.
  rangeEnd[rangeEnd.length - 1] = (rangeEnd.at(-1) as number) + 1;
  return { key, rangeEnd };
}

/** Bounds of one transaction while a store is filled: etcd takes 128 operations and 1.5 MiB if nobody set more. */
const filling = { operations: 100, bytes: 512 * 1024 } as const;

/**
 * Makes an etcd without a store one that has these entries. One that was cut off before counts as none.
 * @throws already_exists when there is one; unreachable, store_full.
 */
export async function fillEtcdStore(
  { prefix, sealer, clock, ...target }: EtcdOptions,
  revision: number,
  entries: AsyncIterable<Entry>,
): Promise<void> {
  const client = new EtcdClient(target, clock);
  try {
    const head = Buffer.from(prefix + headKey);
    if ((await client.range({ key: head })).kvs.length > 0) {
      throw new InroError('already_exists', `there is a store in ${client.to}, below ${prefix}`, {
        remedy: 'choose another prefix: --store etcd://HOST:2379/PREFIX',
      });
    }
    // Without a head nobody has used it.
    await client.txn({
      success: [{ request: { case: 'requestDeleteRange', value: below(`${prefix}data/`) } }],
    });
    let some: { key: Buffer; value: Buffer }[] = [];
    let bytes = 0;
    const write = async (): Promise<void> => {
      await client.txn({ success: some.map((value) => ({ request: { case: 'requestPut', value } })) });
      some = [];
      bytes = 0;
    };
    for await (const { key, value, revision: own } of entries) {
      const path = pathOf(`${prefix}data/`, key, sealer);
      const box = sealer.seal(packRecord(path.toString(), own, keyed(key, value)));
      if (some.length >= filling.operations || bytes + box.length > filling.bytes) await write();
      some.push({ key: path, value: box });
      bytes += box.length;
    }
    await write();
    const value = sealer.seal(packRecord(headKey, revision, new Uint8Array(nonceBytes)));
    const { succeeded, responses } = await client.txn({
      compare: [
        {
          target: Compare_CompareTarget.CREATE,
          key: head,
          targetUnion: { case: 'createRevision', value: 0n },
        },
      ],
      success: [{ request: { case: 'requestPut', value: { key: head, value } } }],
      failure: [{ request: { case: 'requestRange', value: { key: head } } }],
    });
    const answer = responses[0]?.response;
    const found = answer?.case === 'responseRange' ? answer.value.kvs[0]?.value : undefined;
    // It may have been done by a try whose answer got lost.
    if (!succeeded && !value.equals(found ?? new Uint8Array()))
      throw new InroError('conflict', `somebody else fills ${client.to}, below ${prefix}, too`);
  } finally {
    client.close();
  }
}
