/**
 * A rolling update, one step at a time: which slots get a new task now, whether it has failed, whether it is done. Where it
 * stands is read from the tasks themselves, so that another manager goes on with it.
 */
import { create } from '@bufbuild/protobuf';
import type { UpdatePolicy } from '../model/update_policy.js';
import { TaskState, UpdateState, UpdateStatusSchema } from '../proto/gen/inro/v1/common_pb.js';
import type { ServiceRecord, TaskRecord } from '../proto/gen/inro/v1/records_pb.js';
import { policyOf } from '../proto/update_policy.js';
import { managerLimits } from './limits.js';
import {
  endedItself,
  hasFailed,
  isToBeReplaced,
  isWanted,
  type ServiceTasks,
  type Slot,
} from './service_tasks.js';

export interface RolloutParts {
  /** For how many ms it has been seen running. */
  ranForMs: (task: TaskRecord) => number;
  /** One of the slot has ended by itself just now. */
  isTooSoon: (slot: Slot) => boolean;
  now: () => number;
}

export interface Step {
  /** Slots whose tasks are to be replaced now. */
  replace: Slot[];
  /** What has changed in the service's record: it is to be written. */
  changed: boolean;
  /** When to look again though nothing has happened. */
  againInMs?: number;
}

/** @param slots whose nodes are there. Changes the service's status, and what its tasks are made of when it is rolled back. */
export function stepOf(tasks: ServiceTasks, slots: readonly Slot[], parts: RolloutParts): Step {
  const { service } = tasks;
  const policy = policyOf(service.update);
  let changed = false;
  if (service.updateStatus?.state === UpdateState.UPDATING) {
    const failed = slots.filter((slot) => tasks.in(slot).some((task) => isFailure(service, task)));
    if (failed.length * 1000 > policy.maxFailuresPermille * slots.length)
      changed = fail(service, policy, tasks, failed, parts);
  }
  if (isUnderWay(service)) {
    const step = advance(tasks, slots, policy, parts);
    return { ...step, changed: changed || step.changed };
  }
  if (service.updateStatus?.state === UpdateState.PAUSED) return { replace: [], changed };
  // Its node was away while the others were replaced.
  const late = slots.filter((slot) => {
    const wanted = tasks.in(slot).filter(isWanted);
    return wanted.length > 0 && !wanted.some((task) => isNew(service, task));
  });
  return { replace: late, changed };
}

export function isUnderWay({ updateStatus }: Pick<ServiceRecord, 'updateStatus'>): boolean {
  const state = updateStatus?.state;
  return state === UpdateState.UPDATING || state === UpdateState.ROLLBACK_STARTED;
}

/** What the service's tasks are made of changes from now on. */
export function beginUpdate(
  service: ServiceRecord,
  container: ServiceRecord['container'],
  now: number,
): void {
  const { spec } = service;
  service.former = {
    $typeName: 'inro.v1.FormerSpec',
    spec,
    ...(service.container && { container: service.container }),
  };
  service.latestSpec = Math.max(service.latestSpec, spec) + 1;
  service.spec = service.latestSpec;
  if (container !== undefined) service.container = container;
  setStatus(service, UpdateState.UPDATING, now, '');
}

/** @returns false when there is nothing to go back to. */
export function beginRollback(service: ServiceRecord, now: number, message: string): boolean {
  const { former, container, spec } = service;
  if (former === undefined) return false;
  service.former = { $typeName: 'inro.v1.FormerSpec', spec, ...(container && { container }) };
  service.spec = former.spec;
  if (former.container !== undefined) service.container = former.container;
  setStatus(service, UpdateState.ROLLBACK_STARTED, now, message);
  return true;
}

function fail(
  service: ServiceRecord,
  policy: UpdatePolicy,
  tasks: ServiceTasks,
  slots: readonly Slot[],
  { now }: RolloutParts,
): boolean {
  if (policy.failureAction === 'continue') return false;
  const failed = slots.flatMap((slot) => tasks.in(slot)).filter((task) => isFailure(service, task));
  const last = failed.sort((a, b) => Number(b.updatedMs - a.updatedMs))[0];
  const how = last === undefined || hasFailed(last) ? 'failed' : 'ended';
  const message = `task ${last?.id ?? ''} has ${how}${last?.error ? `: ${last.error}` : ''}`;
  if (policy.failureAction === 'rollback' && beginRollback(service, now(), message)) return true;
  setStatus(service, UpdateState.PAUSED, now(), message);
  return true;
}

function advance(
  tasks: ServiceTasks,
  slots: readonly Slot[],
  { parallelism, delayMs, monitorMs }: UpdatePolicy,
  { ranForMs, isTooSoon, now }: RolloutParts,
): Step {
  const { service } = tasks;
  const old: Slot[] = [];
  let busy = 0;
  let youngestMs = Infinity;
  let againInMs = Infinity;
  let isTrying = false;
  for (const slot of slots) {
    const wanted = tasks.in(slot).filter(isWanted);
    const mine = wanted.find((task) => isNew(service, task));
    if (mine === undefined) {
      if (isTooSoon(slot)) {
        // It is tried again after a while: the others do not wait for it, the end does.
        isTrying ||= wanted.length > 0 || isToBeReplaced(service, tasks.in(slot));
        continue;
      }
      if (wanted.length > 0) old.push(slot);
      else if (isToBeReplaced(service, tasks.in(slot))) busy += 1; // it ends, or has not been made yet
      continue;
    }
    if (mine.state !== TaskState.RUNNING) {
      busy += 1;
      continue;
    }
    const ranMs = ranForMs(mine);
    youngestMs = Math.min(youngestMs, ranMs);
    if (ranMs >= delayMs) continue;
    busy += 1;
    againInMs = Math.min(againInMs, delayMs - ranMs);
  }
  const room = parallelism === 0 ? old.length : Math.max(0, parallelism - busy);
  if (old.length > 0 || busy > 0)
    return { replace: old.slice(0, room), changed: false, ...(againInMs < Infinity ? { againInMs } : {}) };
  if (isTrying) return { replace: [], changed: false, againInMs: managerLimits.restartDelayMs };
  if (youngestMs < monitorMs) return { replace: [], changed: false, againInMs: monitorMs - youngestMs };
  const isRollback = service.updateStatus?.state === UpdateState.ROLLBACK_STARTED;
  const done = isRollback ? UpdateState.ROLLBACK_COMPLETED : UpdateState.COMPLETED;
  setStatus(service, done, now(), service.updateStatus?.message ?? '');
  return { replace: [], changed: true };
}

/** It did not stay though it was to; also one that says that it is done. */
function isFailure(service: ServiceRecord, task: TaskRecord): boolean {
  if (!isNew(service, task)) return false;
  return hasFailed(task) || (endedItself(task) && isToBeReplaced(service, [task]));
}

function isNew(service: ServiceRecord, task: TaskRecord): boolean {
  return task.spec === service.spec;
}

function setStatus(service: ServiceRecord, state: UpdateState, now: number, message: string): void {
  const isEnd = state !== UpdateState.UPDATING && state !== UpdateState.ROLLBACK_STARTED;
  const startedMs = isEnd ? (service.updateStatus?.startedMs ?? BigInt(now)) : BigInt(now);
  const endedMs = isEnd ? BigInt(now) : 0n;
  service.updateStatus = create(UpdateStatusSchema, { state, startedMs, endedMs, message });
}
