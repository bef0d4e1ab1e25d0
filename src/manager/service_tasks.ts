/** One service's tasks while they are decided on: by slot, with what the decision has changed already. */
import { create } from '@bufbuild/protobuf';
import type { Clock, Random } from '../model/clock.js';
import { newId } from '../model/id.js';
import { hasEnded } from '../model/task.js';
import { RestartCondition, TaskState } from '../proto/gen/inro/v1/common_pb.js';
import { TaskRecordSchema, type ServiceRecord, type TaskRecord } from '../proto/gen/inro/v1/records_pb.js';
import { stateOf } from '../proto/task_state.js';
import { tables } from '../store/tables.js';
import type { Transaction } from '../store/transaction.js';
import { managerLimits } from './limits.js';

/** Of a replicated service a number from 1, of a global one the node's id. */
export type Slot = number | string;

type Change = Partial<Pick<TaskRecord, 'nodeId' | 'state' | 'desiredState' | 'error'>>;

export class ServiceTasks {
  readonly service: ServiceRecord;
  readonly #tx: Transaction;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #bySlot = new Map<Slot, TaskRecord[]>();
  /** By node: tasks that have not ended. */
  readonly #liveOn = new Map<string, number>();
  readonly #liveBefore: ReadonlyMap<string, number>;
  /** Records that are written by this decision. */
  readonly #written = new Set<string>();

  constructor(
    tx: Transaction,
    service: ServiceRecord,
    tasks: readonly TaskRecord[],
    { clock, random }: { clock: Clock; random: Random },
  ) {
    this.service = service;
    this.#tx = tx;
    this.#clock = clock;
    this.#random = random;
    for (const task of tasks) this.#add(task);
    this.#liveBefore = new Map(this.#liveOn);
  }

  /** As many as one commit takes: the others are the next one's. */
  get isFull(): boolean {
    return this.#written.size >= managerLimits.maxTasksPerCommit;
  }

  slots(): Slot[] {
    return [...this.#bySlot.keys()];
  }

  in(slot: Slot): readonly TaskRecord[] {
    return this.#bySlot.get(slot) ?? [];
  }

  all(): TaskRecord[] {
    return [...this.#bySlot.values()].flat();
  }

  liveOn(nodeId: string): number {
    return this.#liveOn.get(nodeId) ?? 0;
  }

  liveBefore(nodeId: string): number {
    return this.#liveBefore.get(nodeId) ?? 0;
  }

  /** A new task, of what the service says now. */
  make(slot: Slot): TaskRecord {
    const { id: serviceId, name: serviceName, spec, container } = this.service;
    const now = BigInt(this.#clock.now());
    const task = create(TaskRecordSchema, {
      id: newId(this.#random),
      serviceId,
      serviceName,
      ...(typeof slot === 'number'
        ? { slot, state: TaskState.NEW }
        : { nodeId: slot, state: TaskState.ASSIGNED }),
      desiredState: TaskState.RUNNING,
      createdMs: now,
      updatedMs: now,
      spec,
      ...(container === undefined ? {} : { container }),
    });
    this.#add(task);
    this.#put(task);
    return task;
  }

  /** Unless it has been changed by others since: then they are seen the next time. */
  async change(task: TaskRecord, change: Change): Promise<void> {
    const fields = Object.keys(change) as (keyof Change)[];
    if (fields.every((field) => task[field] === change[field])) return; // a commit for nothing would come back here for ever
    const stored = this.#written.has(task.id) ? task : await this.#tx.get(tables.tasks, task.id);
    if (stored === undefined || isOver(stored)) return;
    const list = this.#bySlot.get(slotOf(this.service, task)) ?? [];
    const at = list.indexOf(task);
    this.#count(task, -1);
    const changed = Object.assign(stored, change, { updatedMs: BigInt(this.#clock.now()) });
    list[at] = changed;
    this.#count(changed, 1);
    this.#put(changed);
  }

  /** It is to end; one that is on no node has. */
  async end(task: TaskRecord, error = task.error): Promise<void> {
    const ended = task.nodeId === '' ? { state: TaskState.SHUTDOWN } : {};
    await this.change(task, { desiredState: TaskState.SHUTDOWN, error, ...ended });
  }

  /** Ended tasks beyond those that are kept to be looked at. */
  pruneEnded(): void {
    for (const [slot, tasks] of this.#bySlot) {
      const ended = tasks.filter(isOver).sort((a, b) => Number(b.updatedMs - a.updatedMs));
      for (const task of ended.slice(managerLimits.endedTasksPerSlot)) {
        if (this.isFull) return;
        this.#tx.delete(tables.tasks, task.id);
        this.#written.add(task.id);
        this.#bySlot.set(
          slot,
          this.in(slot).filter((other) => other !== task),
        );
      }
    }
  }

  #add(task: TaskRecord): void {
    const slot = slotOf(this.service, task);
    const list = this.#bySlot.get(slot);
    if (list === undefined) this.#bySlot.set(slot, [task]);
    else list.push(task);
    this.#count(task, 1);
  }

  #count(task: TaskRecord, by: number): void {
    if (task.nodeId !== '' && !isOver(task)) this.#liveOn.set(task.nodeId, this.liveOn(task.nodeId) + by);
  }

  #put(task: TaskRecord): void {
    this.#tx.put(tables.tasks, task.id, task);
    this.#written.add(task.id);
  }
}

export function slotOf({ global }: ServiceRecord, task: TaskRecord): Slot {
  return global ? task.nodeId : task.slot;
}

/** Of a global service: nodes where it has a task, and those where it may have one. */
export function wantedSlots(
  service: ServiceRecord,
  tasks: readonly TaskRecord[],
  placement: { everyNode(): readonly string[] },
): Slot[] {
  if (!service.global) return Array.from({ length: service.replicas }, (_, n) => n + 1);
  return [...new Set([...tasks.filter(isWanted).map(({ nodeId }) => nodeId), ...placement.everyNode()])];
}

export function isOver(task: TaskRecord): boolean {
  return hasEnded(stateOf(task.state));
}

/** It is there, and is to stay. */
export function isWanted(task: TaskRecord): boolean {
  return !isOver(task) && task.desiredState === TaskState.RUNNING;
}

/** It has ended though it was to stay. */
export function endedItself({ state, desiredState }: TaskRecord): boolean {
  if (desiredState !== TaskState.RUNNING) return false;
  return state === TaskState.COMPLETE || hasFailed({ state });
}

export function hasFailed({ state }: Pick<TaskRecord, 'state'>): boolean {
  return state === TaskState.FAILED || state === TaskState.REJECTED;
}

/** By how the last task of the slot ended; what was shut down, was so for another to come. */
export function isToBeReplaced(
  { restart, untilDetached }: ServiceRecord,
  inSlot: readonly TaskRecord[],
): boolean {
  const last = [...inSlot].sort((a, b) => Number(b.updatedMs - a.updatedMs))[0];
  if (last === undefined || !endedItself(last)) return true;
  if (restart === RestartCondition.NONE) return false;
  const onFailureAlone = restart === RestartCondition.ON_FAILURE || untilDetached !== undefined;
  return !onFailureAlone || last.state !== TaskState.COMPLETE;
}
