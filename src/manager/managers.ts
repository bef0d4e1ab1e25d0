/** The managers of a cluster on a distributed store: who they are, and the keys that each of them is given. */
import { create } from '@bufbuild/protobuf';
import type { Logger } from 'pino';
import type { Arena } from '../crypto/arena.js';
import type { Clock } from '../model/clock.js';
import { InroError } from '../model/error.js';
import { quoted } from '../model/name.js';
import type { SharedFile } from '../proto/gen/inro/v1/common_pb.js';
import {
  ManagerRecordSchema,
  RefusedRecordSchema,
  type ManagerRecord,
} from '../proto/gen/inro/v1/records_pb.js';
import type { Store } from '../store/store.js';
import { tables } from '../store/tables.js';
import { transact } from '../store/transaction.js';
import { certificateLifetimeMs, clusterIn } from './cluster_record.js';
import { find } from './find.js';
import type { Keyring } from './keyring.js';
import { managerLimits } from './limits.js';
import { sealSharedFiles } from './shared_keys.js';
import type { ClusterView } from './view.js';

/** What this manager knows of itself and of the others, from the distributed store. */
export interface Membership {
  self: { id: string; address: string; hostname: string; exchangeKey: Uint8Array };
  /** Those that run. */
  running: () => readonly { id: string; address: string }[];
}

export interface ManagersParts {
  folder: string;
  arena: Arena;
  keyring: Pick<Keyring, 'sessionKey'>;
  store: Store;
  view: ClusterView;
  clock: Clock;
  log: Logger;
  /** Undefined where the store is this host's own. */
  membership: Membership | undefined;
}

export class Managers {
  readonly #parts: ManagersParts;

  constructor(parts: ManagersParts) {
    this.#parts = parts;
  }

  get membership(): Membership | undefined {
    return this.#parts.membership;
  }

  /** Of all, this one first. */
  addresses(own: string): string[] {
    const { view, membership } = this.#parts;
    if (membership === undefined) return [own];
    const others = [...membership.running(), ...view.managers.values()];
    return [...new Set([own, ...others.map(({ address }) => address)])].filter((address) => address !== '');
  }

  /** Before this one leads: it is one of them. @throws not_permitted when it was removed. */
  async enter(): Promise<void> {
    const { store, clock, membership } = this.#parts;
    if (membership === undefined) return;
    const { id, address, hostname, exchangeKey } = membership.self;
    await transact(store, async (tx) => {
      const all = await tx.list(tables.managers);
      const known = all.find((one) => one.id === id);
      if (known === undefined && all.length > 0) throw wasRemoved(id);
      const joinedMs = known?.joinedMs ?? BigInt(clock.now());
      const record = create(ManagerRecordSchema, { id, address, hostname, joinedMs, exchangeKey });
      if (known === undefined) record.files = this.filesFor(exchangeKey);
      else record.files = known.files;
      if (known?.address !== address || known.hostname !== hostname) tx.put(tables.managers, id, record);
    });
  }

  /** Of those that run, as they say them, until the signal aborts. */
  async keepAddresses(signal: AbortSignal): Promise<void> {
    const { clock, log, membership } = this.#parts;
    if (membership === undefined) return;
    while (!signal.aborted) {
      try {
        await this.#noteAddresses();
      } catch (error) {
        log.warn({ err: error }, 'the addresses of the managers could not be noted');
      }
      await clock.sleep(managerLimits.managerAddressesMs, signal);
    }
  }

  async #noteAddresses(): Promise<void> {
    const { store, view, membership } = this.#parts;
    const isNews = ({ id, address }: { id: string; address: string }): boolean =>
      view.managers.has(id) && view.managers.get(id)?.address !== address;
    const changed = (membership?.running() ?? []).filter(isNews);
    if (changed.length === 0) return;
    await transact(store, async (tx) => {
      for (const { id, address } of changed) {
        const record = await tx.get(tables.managers, id);
        if (record !== undefined) tx.put(tables.managers, id, Object.assign(record, { address }));
      }
    });
  }

  /** This folder's keys as they are, to every manager: before one is used, and after one is used no more. */
  async publish(): Promise<void> {
    const { store, view } = this.#parts;
    if (view.managers.size === 0) return;
    await transact(store, async (tx) => {
      for (const record of await tx.list(tables.managers)) {
        record.files = this.filesFor(record.exchangeKey);
        tx.put(tables.managers, record.id, record);
      }
    });
    // Keys that are used no more stand there, sealed to the same managers.
    await store.forgetPast();
  }

  /** @throws envelope for an exchange key that is none. */
  filesFor(exchangeKey: Uint8Array): SharedFile[] {
    const { folder, keyring, arena } = this.#parts;
    const shared = keyring.sessionKey(exchangeKey);
    try {
      return sealSharedFiles(folder, shared, arena);
    } finally {
      shared.wipe();
    }
  }

  list(): (ManagerRecord & { state: 'leader' | 'waiting' | 'down' })[] {
    const { view, membership } = this.#parts;
    const running = new Set(membership?.running().map(({ id }) => id));
    const stateOf = (id: string) =>
      id === membership?.self.id ? 'leader' : running.has(id) ? 'waiting' : 'down';
    return [...view.managers.values()]
      .sort((a, b) => Number(a.joinedMs - b.joinedMs))
      .map((record) => ({ ...record, state: stateOf(record.id) }));
  }

  /** @throws not_found; in_use for this one. */
  async remove(typed: string): Promise<{ id: string; revision: number }> {
    const { store, view, clock, log, membership } = this.#parts;
    const { id } = find('manager', view.managers, typed, ({ hostname }) => hostname);
    if (id === membership?.self.id)
      throw new InroError('in_use', `manager ${id} leads just now`, {
        remedy: 'stop it: another one takes its place, and removes it',
      });
    const { revision } = await transact(store, async (tx) => {
      const record = await tx.get(tables.managers, id);
      if (record === undefined)
        throw new InroError('not_found', `no manager ${quoted(typed)}`, {
          remedy: "'inro manager ls' lists them",
        });
      tx.delete(tables.managers, id);
      const now = clock.now();
      const untilMs = BigInt(now + certificateLifetimeMs(await clusterIn(tx)));
      const { hostname } = record;
      const reason = 'removed';
      const facts = { nodeId: id, hostname, reason, refusedMs: BigInt(now), untilMs };
      tx.put(tables.refused, id, create(RefusedRecordSchema, facts));
    });
    log.warn({ manager: id }, 'manager removed; it has had the keys: rotate the data key and the CA');
    return { id, revision };
  }
}

export function wasRemoved(id: string): InroError {
  return new InroError('not_permitted', `manager ${id} was removed from the cluster`, {
    remedy: 'stop it; to have this host be a manager again, empty its state folder: inro manager join',
  });
}
