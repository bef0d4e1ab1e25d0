/**
 * What happens in the cluster, for who wants to follow it: read off the store's feed, and off the nodes' streams. The last few
 * thousand are remembered, in memory alone: what must not be lost stands in the audit. No value is in it.
 */
import type { DescMessage, MessageShape } from '@bufbuild/protobuf';
import type { Clock } from '../model/clock.js';
import type { ClusterRecord } from '../proto/gen/inro/v1/records_pb.js';
import { stateOf } from '../proto/task_state.js';
import type { Change, Store } from '../store/store.js';
import { decodeRecord, tables, type Table } from '../store/tables.js';
import { managerLimits } from './limits.js';

export interface ClusterEvent {
  number: number;
  atMs: number;
  type: 'ca' | 'manager' | 'node' | 'operator' | 'secret' | 'service' | 'task' | 'token';
  action: string;
  id: string;
  name: string;
  attributes: Record<string, string>;
}

type Told = Omit<ClusterEvent, 'number' | 'atMs'>;
type RecordOf<T> = T extends Table<infer S> ? MessageShape<S> : never;

interface Followed<S extends DescMessage> {
  table: Table<S>;
  tell: (before: MessageShape<S> | undefined, after: MessageShape<S> | undefined) => Told[];
}

export interface EventBookParts {
  store: Store;
  /** ready, down ... by node. */
  statuses: () => ReadonlyMap<string, string>;
  clock: Clock;
}

export class EventBook {
  readonly #parts: EventBookParts;
  readonly #events: ClusterEvent[] = [];
  readonly #listeners = new Set<() => void>();
  /** By key in the store, as it was told last. */
  readonly #known = new Map<string, unknown>();
  readonly #names = new Map<string, string>();
  #statuses: ReadonlyMap<string, string> = new Map();
  #last = 0;
  readonly #over = new AbortController();
  readonly #unwatch: () => void;

  private constructor(parts: EventBookParts) {
    this.#parts = parts;
    this.#unwatch = parts.store.watch((change) => this.#read(change));
  }

  /** @throws store_corrupt. */
  static async open(parts: EventBookParts): Promise<EventBook> {
    const book = new EventBook(parts);
    for (const { table } of book.#followed) {
      for (const { key, value } of await parts.store.list(table.prefix))
        book.#known.set(key, decodeRecord(table, key, value));
    }
    book.#nameAll();
    return book;
  }

  /** Looks whether nodes have come or gone, until it is stopped. */
  async watchNodes(): Promise<void> {
    const { clock } = this.#parts;
    this.#statuses = this.#parts.statuses();
    while (!this.#over.signal.aborted) {
      await clock.sleep(managerLimits.nodeEventCheckMs, this.#over.signal);
      if (!this.#over.signal.aborted) this.#lookAtNodes();
    }
  }

  #lookAtNodes(): void {
    const statuses = this.#parts.statuses();
    for (const [id, status] of statuses) {
      const before = this.#statuses.get(id);
      const isNews = status === 'ready' || (status === 'down' && before !== undefined);
      if (before !== status && isNews)
        this.#add([{ type: 'node', action: status, id, name: this.#nameOf(id), attributes: {} }]);
    }
    this.#statuses = statuses;
  }

  /** Of a value that nobody has changed: its end comes near, or is there. */
  expires(action: 'expires' | 'expired', secretId: string, version: number, atMs: number): void {
    const attributes = { version: String(version), at: new Date(atMs).toISOString() };
    this.#add([{ type: 'secret', action, id: secretId, name: this.#nameOf(secretId), attributes }]);
  }

  /** Those with a greater number, the oldest first. */
  after(number: number): readonly ClusterEvent[] {
    const [first] = this.#events;
    return first === undefined ? [] : this.#events.slice(Math.max(0, number - first.number + 1));
  }

  get last(): number {
    return this.#last;
  }

  onEvent(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  stop(): void {
    this.#over.abort();
    this.#unwatch();
  }

  readonly #followed: readonly Followed<DescMessage>[] = [
    follow(tables.secrets, (before, after) => {
      const { id, name } = (after ?? before) as RecordOf<typeof tables.secrets>;
      const told = (action: string, attributes = {}): Told[] => [
        { type: 'secret', action, id, name, attributes },
      ];
      if (before === undefined) return told('create', { version: String(after?.currentVersion ?? 0) });
      if (after === undefined) return told('remove');
      if (after.currentVersion !== before.currentVersion)
        return told(after.currentVersion < before.currentVersion ? 'rollback' : 'update', {
          version: String(after.currentVersion),
        });
      if (before.stage?.version !== after.stage?.version)
        return told(after.stage === undefined ? 'unstage' : 'stage', {
          version: String((after.stage ?? before.stage)?.version),
        });
      return sameMap(before.labels, after.labels) ? [] : told('update', { changed: 'labels' });
    }),
    follow(tables.versions, (before, after) => {
      if (before === undefined) return [];
      const { secretId: id, version } = before;
      const told = (action: string, more = {}): Told[] => [
        {
          type: 'secret',
          action,
          id,
          name: this.#nameOf(id),
          attributes: { version: String(version), ...more },
        },
      ];
      // Those of a secret that was removed go with it.
      if (after === undefined) return this.#isThere(tables.secrets, id) ? told('prune') : [];
      const isRevoked = before.revokedMs === 0n && after.revokedMs > 0n;
      return isRevoked ? told('revoke', after.revokedBy === '' ? {} : { by: after.revokedBy }) : [];
    }),
    follow(tables.services, (before, after) => {
      const { id, name } = (after ?? before) as RecordOf<typeof tables.services>;
      const told = (action: string): Told[] => [{ type: 'service', action, id, name, attributes: {} }];
      if (before === undefined) return told('create');
      if (after === undefined) return told('remove');
      return before.updatedMs === after.updatedMs ? [] : told('update');
    }),
    follow(tables.tasks, (before, after) => {
      if (after === undefined || before?.state === after.state) return [];
      const { id, serviceName, slot, nodeId, error, exitCode } = after;
      const attributes = {
        service: serviceName,
        ...(nodeId === '' ? {} : { node: nodeId }),
        ...(error === '' ? {} : { error }),
        ...(exitCode === undefined ? {} : { exitCode: String(exitCode) }),
      };
      const action = before === undefined ? 'create' : stateOf(after.state).toLowerCase();
      return [{ type: 'task', action, id, name: `${serviceName}.${slot}`, attributes }];
    }),
    follow(tables.nodes, (before, after) => nodeEvents(before, after)),
    follow(tables.joinTokens, (before, after) => {
      const { id } = (after ?? before) as RecordOf<typeof tables.joinTokens>;
      if (before !== undefined && after !== undefined) return [];
      return [
        { type: 'token', action: before === undefined ? 'create' : 'remove', id, name: '', attributes: {} },
      ];
    }),
    follow(tables.operators, (before, after) => {
      const { id, name, role } = (after ?? before) as RecordOf<typeof tables.operators>;
      const told = (action: string): Told[] => [{ type: 'operator', action, id, name, attributes: { role } }];
      if (before === undefined) return told('create');
      if (after === undefined) return told('remove');
      if (before.revokedMs === 0n && after.revokedMs > 0n) return told('revoke');
      return told(before.serial === after.serial ? 'update' : 'renew');
    }),
    follow(tables.managers, (before, after) => {
      const { id, hostname: name, address } = (after ?? before) as RecordOf<typeof tables.managers>;
      if (before !== undefined && after !== undefined) return [];
      const action = before === undefined ? 'join' : 'remove';
      return [{ type: 'manager', action, id, name, attributes: address === '' ? {} : { address } }];
    }),
    follow(tables.cluster, (before, after) => clusterEvents(before, after)),
  ];

  #read({ puts, deletes }: Change): void {
    const told: Told[] = [];
    for (const { table, tell } of this.#followed) {
      for (const { key, value } of puts) {
        if (!key.startsWith(table.prefix)) continue;
        const after = decodeRecord(table, key, value);
        told.push(...tell(this.#known.get(key) as typeof after | undefined, after));
        this.#known.set(key, after);
      }
      for (const key of deletes) {
        if (!key.startsWith(table.prefix) || !this.#known.has(key)) continue;
        told.push(...tell(this.#known.get(key) as MessageShape<DescMessage>, undefined));
        this.#known.delete(key);
      }
    }
    this.#add(told);
  }

  #add(told: readonly Told[]): void {
    if (told.length === 0) return;
    const atMs = this.#parts.clock.now();
    for (const one of told) {
      this.#names.set(one.id, one.name);
      this.#events.push({ ...one, number: ++this.#last, atMs });
      if (one.action === 'remove') this.#names.delete(one.id);
    }
    this.#events.splice(0, Math.max(0, this.#events.length - managerLimits.maxEvents));
    for (const listener of this.#listeners) listener();
  }

  #nameAll(): void {
    for (const [key, record] of this.#known) {
      if (key.startsWith(tables.secrets.prefix) || key.startsWith(tables.services.prefix)) {
        const { id, name } = record as { id: string; name: string };
        this.#names.set(id, name);
      }
      if (key.startsWith(tables.nodes.prefix)) {
        const { id, description } = record as RecordOf<typeof tables.nodes>;
        this.#names.set(id, description?.hostname ?? '');
      }
    }
  }

  #isThere<S extends DescMessage>({ prefix }: Table<S>, id: string): boolean {
    return this.#known.has(prefix + id);
  }

  #nameOf(id: string): string {
    return this.#names.get(id) ?? '';
  }
}

function follow<S extends DescMessage>(table: Table<S>, tell: Followed<S>['tell']): Followed<DescMessage> {
  return { table, tell } as unknown as Followed<DescMessage>;
}

type NodeRecord = RecordOf<typeof tables.nodes>;

function nodeEvents(before: NodeRecord | undefined, after: NodeRecord | undefined): Told[] {
  const { id, description, address } = (after ?? before) as NodeRecord;
  const name = description?.hostname ?? '';
  const told = (action: string, attributes: Record<string, string> = {}): Told[] => [
    { type: 'node', action, id, name, attributes },
  ];
  if (after === undefined) return told((before?.pendingUntilMs ?? 0n) > 0n ? 'reject' : 'remove');
  if (before === undefined) return told(after.pendingUntilMs > 0n ? 'wait' : 'join', { address });
  const events: Told[] = [];
  if (before.pendingUntilMs > 0n && after.pendingUntilMs === 0n) events.push(...told('approve'));
  if (before.removingMs === 0n && after.removingMs > 0n) events.push(...told('removing'));
  if (!sameMap(before.labels, after.labels)) events.push(...told('update', { changed: 'labels' }));
  if (before.certificateSerial !== '' && before.certificateSerial !== after.certificateSerial)
    events.push(...told('renew', { serial: after.certificateSerial }));
  const { clone } = after;
  if (clone === undefined && before.clone !== undefined) events.push(...told('clear-alarm'));
  if (
    clone !== undefined &&
    (before.clone?.kind !== clone.kind || before.clone.otherBootId !== clone.otherBootId)
  ) {
    const { kind, otherAddress, otherHostname } = clone;
    events.push(...told('clone', { kind, otherAddress, otherHostname }));
  }
  return events;
}

function clusterEvents(before: ClusterRecord | undefined, after: ClusterRecord | undefined): Told[] {
  if (before === undefined || after === undefined) return [];
  const told = (type: 'ca' | 'token', action: string, attributes: Record<string, string> = {}): Told[] => [
    { type, action, id: type === 'ca' ? after.id : 'worker', name: '', attributes },
  ];
  const present = (record: ClusterRecord): string => record.cas.at(-1)?.chainPem ?? '';
  if (present(before) !== present(after)) return told('ca', 'rotate');
  const retired = ({ cas }: ClusterRecord): number => cas.filter(({ retiredMs }) => retiredMs > 0n).length;
  if (retired(before) !== retired(after)) return told('ca', 'rotated');
  if (Buffer.compare(before.sealedWorkerToken, after.sealedWorkerToken) !== 0) return told('token', 'rotate');
  const isOther =
    before.certificateLifetimeMs !== after.certificateLifetimeMs ||
    before.rotationDeadlineMs !== after.rotationDeadlineMs;
  return isOther ? told('ca', 'update') : [];
}

function sameMap(a: Readonly<Record<string, string>>, b: Readonly<Record<string, string>>): boolean {
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => a[key] === b[key]);
}
