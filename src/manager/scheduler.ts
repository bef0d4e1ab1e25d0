/**
 * Decides which tasks a service has and where they run. A task never moves: when it has ended, or its node is lost, a new one
 * takes its slot. Works through services one at a time, each in one store transaction.
 */
import type { Logger } from 'pino';
import type { Clock, Random } from '../model/clock.js';
import { TaskState } from '../proto/gen/inro/v1/common_pb.js';
import type { ServiceRecord, TaskRecord } from '../proto/gen/inro/v1/records_pb.js';
import { policyOf } from '../proto/update_policy.js';
import type { Store } from '../store/store.js';
import { tables } from '../store/tables.js';
import { transact, type Transaction } from '../store/transaction.js';
import { managerLimits } from './limits.js';
import { isActive, Placement, type NodeStates } from './placement.js';
import { stepOf } from './rollout.js';
import {
  endedItself,
  isOver,
  isToBeReplaced,
  isWanted,
  ServiceTasks,
  wantedSlots,
  type Slot,
} from './service_tasks.js';
import type { ClusterView } from './view.js';

export interface SchedulerParts {
  store: Store;
  view: ClusterView;
  clock: Clock;
  random: Random;
  log: Logger;
  nodes: NodeStates;
}

/** By task: boot-time ms at which it was seen first to have ended by itself, and to run. */
interface Seen {
  ended: Map<string, number>;
  running: Map<string, number>;
}

export class Scheduler {
  readonly #parts: SchedulerParts;
  readonly #waiting = new Set<string>();
  readonly #timers = new Map<string, { atMs: number; cancel(): void }>();
  readonly #seen = new Map<string, Seen>();
  #running: Promise<void> | undefined;
  #stopped = false;

  constructor(parts: SchedulerParts) {
    this.#parts = parts;
    parts.view.onChange(({ serviceIds }) => this.reconcile(serviceIds));
  }

  /** These nodes have come, gone, or may be used in another way: looks at what has tasks there, or would have. */
  nodesChanged(nodeIds: Iterable<string>): void {
    const { view, nodes } = this.#parts;
    const lost = [...view.nodes.keys()].filter((id) => view.liveTasksOn(id) > 0 && nodes.isLost(id));
    for (const nodeId of [...nodeIds, ...lost])
      this.reconcile(view.tasksOfNode(nodeId).map(({ serviceId }) => serviceId));
    const waiting = [...view.tasks.values()].filter((task) => task.state === TaskState.NEW);
    this.reconcile(waiting.map((task) => task.serviceId));
    this.reconcile([...view.services.values()].filter(({ global }) => global).map(({ id }) => id));
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
    await new Promise<void>((resolve) => this.#parts.clock.soon(resolve));
    for (const id of this.#waiting) {
      this.#waiting.delete(id);
      if (this.#stopped) break;
      try {
        const { result: isFull } = await transact(this.#parts.store, (tx) => this.#reconcileService(tx, id));
        if (isFull) this.#waiting.add(id);
      } catch (error) {
        this.#parts.log.error({ err: error, service: id }, 'scheduling failed; trying again');
        this.#later(id, managerLimits.restartDelayMs);
      }
    }
    this.#running = undefined;
    this.reconcile([]);
  }

  /** @returns whether there is more to do than one commit takes. */
  async #reconcileService(tx: Transaction, serviceId: string): Promise<boolean> {
    const { view, nodes, clock } = this.#parts;
    const service = await tx.get(tables.services, serviceId);
    const known = view.tasksOfService(serviceId);
    if (service === undefined) {
      this.#seen.delete(serviceId);
      for (const { id } of known) tx.delete(tables.tasks, id);
      return false;
    }
    const tasks = new ServiceTasks(tx, service, known, this.#parts);
    this.#look(serviceId, known);
    const placement = new Placement(service, view, nodes);
    for (const task of known.filter(isWanted)) {
      const why = task.nodeId === '' ? undefined : placement.whyLeave(task, tasks);
      if (why !== undefined && !tasks.isFull) await tasks.end(task, why);
    }
    const slots = wantedSlots(service, tasks.all(), placement);
    await this.#endSurplus(tasks, new Set(slots));
    const step = stepOf(
      tasks,
      slots.filter((slot) => !service.global || !nodes.isDown(String(slot))),
      {
        ranForMs: ({ id }) => clock.boottimeMs() - (this.#seen.get(serviceId)?.running.get(id) ?? Infinity),
        isTooSoon: (slot) => this.#isTooSoon(serviceId, tasks.in(slot)),
        now: () => clock.now(),
      },
    );
    if (step.changed) tx.put(tables.services, serviceId, service);
    if (step.againInMs !== undefined) this.#later(serviceId, step.againInMs);
    for (const slot of step.replace) if (!tasks.isFull) await this.#replace(tasks, slot);
    for (const slot of slots) if (!tasks.isFull) await this.#fill(tx, tasks, slot, placement);
    tasks.pruneEnded();
    return tasks.isFull;
  }

  /** Notes since when tasks run, or have ended: on boot time from when it was seen, as clocks jump. */
  #look(serviceId: string, tasks: readonly TaskRecord[]): void {
    const nowMs = this.#parts.clock.boottimeMs();
    const before = this.#seen.get(serviceId);
    const seen: Seen = { ended: new Map(), running: new Map() };
    for (const task of tasks) {
      const { id } = task;
      if (endedItself(task)) seen.ended.set(id, before?.ended.get(id) ?? nowMs);
      if (task.state === TaskState.RUNNING) seen.running.set(id, before?.running.get(id) ?? nowMs);
    }
    this.#seen.set(serviceId, seen);
  }

  async #endSurplus(tasks: ServiceTasks, slots: ReadonlySet<Slot>): Promise<void> {
    for (const slot of tasks.slots()) {
      if (slots.has(slot)) continue;
      for (const task of tasks.in(slot).filter((each) => !isOver(each)))
        if (!tasks.isFull) await tasks.end(task);
    }
  }

  /** A new task in a slot whose present one is of an earlier specification. */
  async #replace(tasks: ServiceTasks, slot: Slot): Promise<void> {
    const wanted = tasks.in(slot).filter(isWanted);
    const startsFirst = policyOf(tasks.service.update).order === 'start-first';
    // Of an update that another one has overtaken there may be one that did not come to run.
    const stays = startsFirst
      ? (wanted.find(({ state }) => state === TaskState.RUNNING) ?? wanted[0])
      : undefined;
    for (const task of wanted) if (task !== stays) await tasks.end(task);
    if (startsFirst && !tasks.in(slot).some((task) => this.#isEnding(task))) tasks.make(slot);
  }

  async #fill(tx: Transaction, tasks: ServiceTasks, slot: Slot, placement: Placement): Promise<void> {
    const { service } = tasks;
    const wanted = tasks.in(slot).filter(isWanted);
    const runs = wanted.find(({ spec, state }) => spec === service.spec && state === TaskState.RUNNING);
    // One of an update that starts first has come so far that the other one is not needed any more.
    if (runs !== undefined && wanted.length > 1) {
      const leftMs = this.#settlesInMs(service, runs);
      if (leftMs > 0) this.#later(service.id, leftMs);
      else for (const task of wanted) if (task !== runs) await tasks.end(task);
    }
    if (wanted.length === 0) {
      if (!isToBeReplaced(service, tasks.in(slot)) || tasks.in(slot).some((task) => this.#isEnding(task)))
        return;
      if (this.#isTooSoon(service.id, tasks.in(slot)))
        return this.#later(service.id, managerLimits.restartDelayMs);
      // The task of a global service is made where it is to be.
      if (typeof slot === 'string' && !(await canTake(tx, slot))) return;
      wanted.push(tasks.make(slot));
    }
    for (const task of wanted) if (task.nodeId === '') await this.#place(tx, tasks, task, placement);
  }

  /** A container that ends as soon as it has begun is not to cost the one before. */
  #settlesInMs({ id, container }: ServiceRecord, task: TaskRecord): number {
    if (container === undefined) return 0;
    const nowMs = this.#parts.clock.boottimeMs();
    const sinceMs = this.#seen.get(id)?.running.get(task.id) ?? nowMs;
    return Math.max(0, sinceMs + managerLimits.startFirstMs - nowMs);
  }

  async #place(tx: Transaction, tasks: ServiceTasks, task: TaskRecord, placement: Placement): Promise<void> {
    const nodeId = placement.choose(tasks, task.slot);
    if (nodeId === undefined) return tasks.change(task, { error: placement.whyNone(tasks) });
    if (!(await canTake(tx, nodeId))) return this.#later(tasks.service.id, managerLimits.restartDelayMs);
    await tasks.change(task, { nodeId, state: TaskState.ASSIGNED, error: '' });
  }

  /** It holds its slot until it has ended, unless nobody knows when that will be. */
  #isEnding(task: TaskRecord): boolean {
    return !isOver(task) && !isWanted(task) && !this.#parts.nodes.isDown(task.nodeId);
  }

  /** Whether a task in this slot ended by itself within the delay. */
  #isTooSoon(serviceId: string, inSlot: readonly TaskRecord[]): boolean {
    const nowMs = this.#parts.clock.boottimeMs();
    const ended = this.#seen.get(serviceId)?.ended;
    return inSlot.some(({ id }) => nowMs - (ended?.get(id) ?? -Infinity) < managerLimits.restartDelayMs);
  }

  #later(serviceId: string, ms: number): void {
    const atMs = this.#parts.clock.boottimeMs() + ms;
    const before = this.#timers.get(serviceId);
    if (this.#stopped || (before !== undefined && before.atMs <= atMs)) return;
    before?.cancel();
    const timer = this.#parts.clock.timer(ms, () => {
      this.#timers.delete(serviceId);
      this.reconcile([serviceId]);
    });
    this.#timers.set(serviceId, { atMs, cancel: () => timer.cancel() });
  }
}

/** Read with the decision: what is placed on a node while it is being removed would stay there for ever. */
async function canTake(tx: Transaction, nodeId: string): Promise<boolean> {
  const node = await tx.get(tables.nodes, nodeId);
  if ((node?.removingMs ?? 0n) > 0n || (await tx.get(tables.refused, nodeId)) !== undefined) return false;
  return isActive(node);
}
