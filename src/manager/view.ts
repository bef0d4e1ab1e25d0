/**
 * The manager's picture of the store in memory: everything but ciphertexts, kept true by the store's own
 * feed, so that deciding who needs what costs no reads.
 */
import type { MessageShape } from '@bufbuild/protobuf';
import { hasEnded } from '../model/task.js';
import type { Change, Store } from '../store/store.js';
import { decodeRecord, operatorNamePrefix, tables, versionKey, type Table } from '../store/tables.js';
import type { DescMessage } from '@bufbuild/protobuf';
import type {
  JoinTokenRecord,
  ManagerRecord,
  NodeRecord,
  OperatorRecord,
  SecretRecord,
  ServiceRecord,
  TaskRecord,
  VersionRecord,
} from '../proto/gen/inro/v1/records_pb.js';
import { stateOf } from '../proto/task_state.js';
import { Holders } from './holders.js';
import { Refusals } from './refusals.js';

export interface ViewChange {
  revision: number;
  /** Nothing changed but what the manager notes for itself: no node has to hear of it. */
  isOwnNote: boolean;
  /** Nodes whose assignment may differ now. */
  nodeIds: ReadonlySet<string>;
  /** Services whose tasks may need the scheduler. */
  serviceIds: ReadonlySet<string>;
  /** Certificates are refused that were not before. */
  hasRefusals: boolean;
}

export class ClusterView {
  readonly nodes = new Map<string, NodeRecord>();
  readonly secrets = new Map<string, SecretRecord>();
  readonly services = new Map<string, ServiceRecord>();
  readonly tasks = new Map<string, TaskRecord>();
  readonly holders = new Holders();
  readonly joinTokens = new Map<string, JoinTokenRecord>();
  readonly operators = new Map<string, OperatorRecord>();
  readonly managers = new Map<string, ManagerRecord>();
  readonly refusals = new Refusals();
  readonly #versions = new Map<string, VersionRecord>();
  readonly #byNode = new Map<string, Set<string>>();
  readonly #byService = new Map<string, Set<string>>();
  readonly #liveOn = new Map<string, number>();
  readonly #listeners = new Set<(change: ViewChange) => void>();
  revision = 0;

  /** Reads everything once and follows from there. */
  static async follow(store: Store): Promise<ClusterView> {
    const view = new ClusterView();
    for (const table of followed) {
      for (const { key, value } of await store.list(table.prefix)) view.#put(key, value);
    }
    view.revision = await store.revision();
    store.watch((change) => view.#apply(change));
    return view;
  }

  onChange(listener: (change: ViewChange) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  version(secretId: string, version: number): VersionRecord | undefined {
    return this.#versions.get(versionKey(secretId, version));
  }

  isRevoked(secretId: string, version: number): boolean {
    return (this.version(secretId, version)?.revokedMs ?? 0n) > 0n;
  }

  versionsOf(secretId: string): VersionRecord[] {
    return [...this.#versions.values()]
      .filter((v) => v.secretId === secretId)
      .sort((a, b) => a.version - b.version);
  }

  everyVersion(): VersionRecord[] {
    return [...this.#versions.values()];
  }

  tasksOfNode(nodeId: string): TaskRecord[] {
    return this.#tasksIn(this.#byNode.get(nodeId));
  }

  /** How many tasks have not ended there. */
  liveTasksOn(nodeId: string): number {
    return this.#liveOn.get(nodeId) ?? 0;
  }

  tasksOfService(serviceId: string): TaskRecord[] {
    return this.#tasksIn(this.#byService.get(serviceId));
  }

  /** Nodes on which tasks of these services have not ended. */
  nodesOfServices(serviceIds: Iterable<string>): Set<string> {
    const nodeIds = new Set<string>();
    for (const serviceId of serviceIds) {
      for (const task of this.tasksOfService(serviceId)) {
        if (task.nodeId !== '' && !hasEnded(stateOf(task.state))) nodeIds.add(task.nodeId);
      }
    }
    return nodeIds;
  }

  #tasksIn(ids: Iterable<string> | undefined): TaskRecord[] {
    return [...(ids ?? [])].map((id) => this.tasks.get(id) as TaskRecord);
  }

  #apply(change: Change): void {
    const nodeIds = new Set<string>();
    const serviceIds = new Set<string>();
    const note = (key: string): void => {
      if (key.startsWith(tables.tasks.prefix)) {
        const task = this.tasks.get(key.slice(tables.tasks.prefix.length));
        if (task === undefined) return;
        if (task.nodeId !== '') nodeIds.add(task.nodeId);
        serviceIds.add(task.serviceId);
      } else if (key.startsWith(tables.services.prefix)) {
        const serviceId = key.slice(tables.services.prefix.length);
        serviceIds.add(serviceId);
        for (const nodeId of this.nodesOfServices([serviceId])) nodeIds.add(nodeId);
      } else if (key.startsWith(tables.secrets.prefix)) {
        const secret = this.secrets.get(key.slice(tables.secrets.prefix.length));
        for (const nodeId of this.nodesOfServices(secret?.serviceIds ?? [])) nodeIds.add(nodeId);
      } else if (key.startsWith(tables.versions.prefix)) {
        // Also those that hold it in its grace, when no task of theirs uses it any more.
        const version = this.#versions.get(key.slice(tables.versions.prefix.length));
        if (version === undefined) return;
        for (const nodeId of this.holders.of(version.secretId, version.version)) nodeIds.add(nodeId);
      }
    };
    const keys = [...change.puts.map(({ key }) => key), ...change.deletes];
    for (const key of keys) note(key); // who was concerned before
    for (const key of change.deletes) this.#delete(key);
    for (const { key, value } of change.puts) this.#put(key, value);
    for (const key of keys) note(key); // and who is now
    this.revision = change.revision;
    const isOwnNote = keys.every((key) => ownNotes.some((prefix) => key.startsWith(prefix)));
    const hasRefusals = change.puts.some(({ key }) => key.startsWith(tables.refused.prefix));
    const told = { revision: change.revision, isOwnNote, nodeIds, serviceIds, hasRefusals };
    for (const listener of this.#listeners) listener(told);
  }

  #put(key: string, value: Uint8Array): void {
    const read = <S extends DescMessage>(table: Table<S>): MessageShape<S> => decodeRecord(table, key, value);
    if (key.startsWith(tables.nodes.prefix))
      this.nodes.set(key.slice(tables.nodes.prefix.length), read(tables.nodes));
    else if (key.startsWith(tables.secrets.prefix))
      this.secrets.set(key.slice(tables.secrets.prefix.length), read(tables.secrets));
    else if (key.startsWith(tables.versions.prefix))
      this.#versions.set(key.slice(tables.versions.prefix.length), read(tables.versions));
    else if (key.startsWith(tables.services.prefix))
      this.services.set(key.slice(tables.services.prefix.length), read(tables.services));
    else if (key.startsWith(tables.holders.prefix)) this.holders.put(read(tables.holders));
    else if (key.startsWith(tables.joinTokens.prefix))
      this.joinTokens.set(key.slice(tables.joinTokens.prefix.length), read(tables.joinTokens));
    else if (key.startsWith(tables.operators.prefix))
      this.operators.set(key.slice(tables.operators.prefix.length), read(tables.operators));
    else if (key.startsWith(tables.managers.prefix))
      this.managers.set(key.slice(tables.managers.prefix.length), read(tables.managers));
    else if (key.startsWith(tables.refused.prefix))
      this.refusals.put(key.slice(tables.refused.prefix.length), read(tables.refused));
    else if (key.startsWith(tables.tasks.prefix)) {
      const task = read(tables.tasks);
      this.#forgetTask(task.id);
      this.tasks.set(task.id, task);
      if (task.nodeId !== '') index(this.#byNode, task.nodeId).add(task.id);
      this.#countLive(task, 1);
      index(this.#byService, task.serviceId).add(task.id);
    }
  }

  #delete(key: string): void {
    if (key.startsWith(tables.nodes.prefix)) this.nodes.delete(key.slice(tables.nodes.prefix.length));
    else if (key.startsWith(tables.secrets.prefix))
      this.secrets.delete(key.slice(tables.secrets.prefix.length));
    else if (key.startsWith(tables.versions.prefix))
      this.#versions.delete(key.slice(tables.versions.prefix.length));
    else if (key.startsWith(tables.services.prefix))
      this.services.delete(key.slice(tables.services.prefix.length));
    else if (key.startsWith(tables.tasks.prefix)) this.#forgetTask(key.slice(tables.tasks.prefix.length));
    else if (key.startsWith(tables.holders.prefix))
      this.holders.delete(key.slice(tables.holders.prefix.length));
    else if (key.startsWith(tables.joinTokens.prefix))
      this.joinTokens.delete(key.slice(tables.joinTokens.prefix.length));
    else if (key.startsWith(tables.operators.prefix))
      this.operators.delete(key.slice(tables.operators.prefix.length));
    else if (key.startsWith(tables.managers.prefix))
      this.managers.delete(key.slice(tables.managers.prefix.length));
    else if (key.startsWith(tables.refused.prefix))
      this.refusals.delete(key.slice(tables.refused.prefix.length));
  }

  #countLive({ nodeId, state }: TaskRecord, by: number): void {
    if (nodeId === '' || hasEnded(stateOf(state))) return;
    const count = this.liveTasksOn(nodeId) + by;
    if (count === 0) this.#liveOn.delete(nodeId);
    else this.#liveOn.set(nodeId, count);
  }

  #forgetTask(id: string): void {
    const task = this.tasks.get(id);
    if (task === undefined) return;
    this.tasks.delete(id);
    this.#countLive(task, -1);
    this.#byNode.get(task.nodeId)?.delete(id);
    this.#byService.get(task.serviceId)?.delete(id);
  }
}

const followed = [
  tables.nodes,
  tables.secrets,
  tables.versions,
  tables.services,
  tables.tasks,
  tables.holders,
  tables.joinTokens,
  tables.operators,
  tables.managers,
  tables.refused,
];
const ownNotes = [
  tables.holders,
  tables.receipts,
  tables.receiptMarks,
  tables.reads,
  tables.readMarks,
  tables.joinTokens,
  tables.operators,
  tables.managers,
  tables.refused,
  tables.audit,
  tables.auditHead,
]
  .map(({ prefix }): string => prefix)
  .concat(operatorNamePrefix);

function index(map: Map<string, Set<string>>, key: string): Set<string> {
  const found = map.get(key) ?? new Set<string>();
  map.set(key, found);
  return found;
}
