/**
 * Decides which tasks a service has and where they run. A task never moves: when it has ended, a new one
 * takes its slot. Works through services one at a time, each in one store transaction.
 */
import { create } from '@bufbuild/protobuf';
import type { Logger } from 'pino';
import type { Clock, Random } from '../model/clock.js';
import { parseConstraint, satisfies } from '../model/constraint.js';
import { newId } from '../model/id.js';
import { hasEnded } from '../model/task.js';
import { RestartCondition, TaskState } from '../proto/gen/inro/v1/common_pb.js';
import { TaskRecordSchema, type ServiceRecord, type TaskRecord } from '../proto/gen/inro/v1/records_pb.js';
import { stateOf } from '../proto/task_state.js';
import type { Store } from '../store/store.js';
import { tables } from '../store/tables.js';
import { transact, type Transaction } from '../store/transaction.js';
import { managerLimits } from './limits.js';
import type { ClusterView } from './view.js';

export interface SchedulerParts {
  store: Store;
  view: ClusterView;
  clock: Clock;
  random: Random;
  log: Logger;
  /** Nodes that can take a task now. */
  readyNodes: () => Iterable<string>;
}

export class Scheduler {
  readonly #parts: SchedulerParts;
  readonly #waiting = new Set<string>();
  readonly #timers = new Map<string, { cancel(): void }>();
  /** By service, then by task: boot-time ms at which a task that ended by itself was seen first. */
  readonly #endedAtMs = new Map<string, Map<string, number>>();
  #running: Promise<void> | undefined;
  #stopped = false;

  constructor(parts: SchedulerParts) {
    this.#parts = parts;
    parts.view.onChange(({ serviceIds }) => this.reconcile(serviceIds));
  }

  /** Looks at every service that lacks a node for a task: to be called when a node becomes ready. */
  nodeReady(): void {
    const waiting = [...this.#parts.view.tasks.values()].filter((task) => task.state === TaskState.NEW);
    this.reconcile(waiting.map((task) => task.serviceId));
  }

  reconcile(serviceIds: Iterable<string>): void {
    for (const id of serviceIds) this.#waiting.add(id);
    if (this.#waiting.size > 0 && !this.#stopped) this.#running ??= this.#work();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    for (const timer of this.#timers.values()) timer.cancel();
    await this.#running;
  }

  async #work(): Promise<void> {
    // What was committed together is looked at once, and nothing here can starve the rest of the process.
    await new Promise((resolve) => setImmediate(resolve));
    for (const id of this.#waiting) {
      this.#waiting.delete(id);
      if (this.#stopped) break;
      try {
        await transact(this.#parts.store, (tx) => this.#reconcileService(tx, id));
      } catch (error) {
        this.#parts.log.error({ err: error, service: id }, 'scheduling failed; trying again');
        this.#later(id);
      }
    }
    this.#running = undefined;
    this.reconcile([]);
  }

  async #reconcileService(tx: Transaction, serviceId: string): Promise<void> {
    const service = await tx.get(tables.services, serviceId);
    if (service === undefined) return void this.#endedAtMs.delete(serviceId); // its tasks went with it
    const tasks: TaskRecord[] = [];
    for (const { id } of this.#parts.view.tasksOfService(serviceId)) {
      const task = await tx.get(tables.tasks, id);
      if (task !== undefined) tasks.push(task);
    }
    this.#shutDownSurplus(tx, service, tasks);
    for (let slot = 1; slot <= service.replicas; slot++) await this.#fillSlot(tx, service, slot, tasks);
    this.#pruneEnded(tx, tasks);
  }

  #shutDownSurplus(tx: Transaction, service: ServiceRecord, tasks: TaskRecord[]): void {
    for (const task of tasks) {
      if (task.slot <= service.replicas || isOver(task)) continue;
      const held = task.nodeId !== '';
      this.#update(tx, task, {
        desiredState: TaskState.SHUTDOWN,
        ...(held ? {} : { state: TaskState.SHUTDOWN }),
      });
    }
  }

  async #fillSlot(tx: Transaction, service: ServiceRecord, slot: number, tasks: TaskRecord[]): Promise<void> {
    const inSlot = tasks.filter((task) => task.slot === slot);
    let live = inSlot.find((task) => !isOver(task) && task.desiredState === TaskState.RUNNING);
    if (live === undefined) {
      if (!isToBeReplaced(service, inSlot)) return;
      if (this.#isTooSoon(service.id, inSlot)) return this.#later(service.id);
      live = this.#newTask(service, slot);
      tasks.push(live);
      tx.put(tables.tasks, live.id, live);
    }
    if (live.nodeId !== '') return;
    const nodeId = this.#choose(service, tasks);
    if (nodeId !== undefined && (await isLeaving(tx, nodeId))) return this.#later(service.id);
    if (nodeId !== undefined) this.#update(tx, live, { nodeId, state: TaskState.ASSIGNED, error: '' });
    else if (live.error === '') this.#update(tx, live, { error: this.#whyNoNode(service) });
  }

  /** Whether a task in this slot ended by itself within the delay: counted on boot time from when it was seen, as clocks jump. */
  #isTooSoon(serviceId: string, inSlot: readonly TaskRecord[]): boolean {
    const nowMs = this.#parts.clock.boottimeMs();
    const before = this.#endedAtMs.get(serviceId) ?? new Map<string, number>();
    for (const task of inSlot) if (endedItself(task) && !before.has(task.id)) before.set(task.id, nowMs);
    this.#endedAtMs.set(serviceId, before);
    return inSlot.some((task) => nowMs - (before.get(task.id) ?? -Infinity) < managerLimits.restartDelayMs);
  }

  #newTask(service: ServiceRecord, slot: number): TaskRecord {
    const now = BigInt(this.#parts.clock.now());
    return create(TaskRecordSchema, {
      id: newId(this.#parts.random),
      serviceId: service.id,
      serviceName: service.name,
      slot,
      state: TaskState.NEW,
      desiredState: TaskState.RUNNING,
      createdMs: now,
      updatedMs: now,
    });
  }

  /** Spread: the ready node with the fewest live tasks of this service, then with the fewest at all. */
  #choose(service: ServiceRecord, tasks: readonly TaskRecord[]): string | undefined {
    const constraints = service.constraints.map(parseConstraint);
    const candidates = [...this.#parts.readyNodes()].filter((id) =>
      satisfies({ id, labels: this.#parts.view.nodes.get(id)?.labels ?? {} }, constraints),
    );
    const ofService = (id: string): number => tasks.filter((t) => t.nodeId === id && !isOver(t)).length;
    // The view does not know yet what this transaction places.
    const ofOthers = (id: string): number =>
      this.#parts.view.tasksOfNode(id).filter((t) => t.serviceId !== service.id && !isOver(t)).length;
    return candidates
      .map((id) => ({ id, mine: ofService(id), others: ofOthers(id) }))
      .sort((a, b) => a.mine - b.mine || a.others - b.others || (a.id < b.id ? -1 : 1))[0]?.id;
  }

  #whyNoNode(service: ServiceRecord): string {
    const ready = [...this.#parts.readyNodes()].length;
    if (ready === 0) return 'no node is ready';
    return `none of ${ready} ready nodes satisfies ${service.constraints.join(', ')}`;
  }

  #update(
    tx: Transaction,
    task: TaskRecord,
    change: Partial<Pick<TaskRecord, 'nodeId' | 'state' | 'desiredState' | 'error'>>,
  ): void {
    const fields = Object.keys(change) as (keyof typeof change)[];
    if (fields.every((field) => task[field] === change[field])) return; // a commit for nothing would come back here for ever
    Object.assign(task, change, { updatedMs: BigInt(this.#parts.clock.now()) });
    tx.put(tables.tasks, task.id, task);
  }

  #pruneEnded(tx: Transaction, tasks: readonly TaskRecord[]): void {
    const bySlot = new Map<number, TaskRecord[]>();
    for (const task of tasks)
      if (isOver(task)) bySlot.set(task.slot, [...(bySlot.get(task.slot) ?? []), task]);
    for (const ended of bySlot.values()) {
      ended.sort((a, b) => Number(b.updatedMs - a.updatedMs));
      for (const task of ended.slice(managerLimits.endedTasksPerSlot)) {
        tx.delete(tables.tasks, task.id);
        this.#endedAtMs.get(task.serviceId)?.delete(task.id);
      }
    }
  }

  #later(serviceId: string): void {
    if (this.#timers.has(serviceId) || this.#stopped) return;
    const timer = this.#parts.clock.timer(managerLimits.restartDelayMs, () => {
      this.#timers.delete(serviceId);
      this.reconcile([serviceId]);
    });
    this.#timers.set(serviceId, timer);
  }
}

function isOver(task: TaskRecord): boolean {
  return hasEnded(stateOf(task.state));
}

function endedItself({ state }: TaskRecord): boolean {
  return state === TaskState.COMPLETE || state === TaskState.FAILED || state === TaskState.REJECTED;
}

/** By how the last task of the slot ended; what was shut down, was so for another to come. */
function isToBeReplaced({ restart, untilDetached }: ServiceRecord, inSlot: readonly TaskRecord[]): boolean {
  const last = [...inSlot].sort((a, b) => Number(b.updatedMs - a.updatedMs))[0];
  if (last === undefined || !endedItself(last)) return true;
  if (restart === RestartCondition.NONE) return false;
  const onFailureAlone = restart === RestartCondition.ON_FAILURE || untilDetached !== undefined;
  return !onFailureAlone || last.state !== TaskState.COMPLETE;
}

/** Read with the decision: what is placed on a node while it is being removed would stay there for ever. */
async function isLeaving(tx: Transaction, nodeId: string): Promise<boolean> {
  const node = await tx.get(tables.nodes, nodeId);
  return (node?.removingMs ?? 0n) > 0n || (await tx.get(tables.refused, nodeId)) !== undefined;
}
