/**
 * Waiting until the nodes have done a change: each node concerned has said so under the change's revision,
 * and the services' tasks have come to rest. Ends early when a task has failed for good reason.
 */
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Clock } from '../model/clock.js';
import { hasEnded } from '../model/task.js';
import { TaskState, UpdateState } from '../proto/gen/inro/v1/common_pb.js';
import type { MissingSchema, WaitRequest } from '../proto/gen/inro/v1/control_pb.js';
import type { ServiceRecord, TaskRecord } from '../proto/gen/inro/v1/records_pb.js';
import { stateOf } from '../proto/task_state.js';
import type { Dispatcher } from './dispatcher.js';
import { Placement, type NodeStates } from './placement.js';
import { isUnderWay } from './rollout.js';
import { endedItself, isWanted, slotOf, wantedSlots, type Slot } from './service_tasks.js';
import type { ClusterView } from './view.js';
import { waitUntil } from './wait_until.js';

type Missing = MessageInitShape<typeof MissingSchema>;

interface Outstanding {
  missing: Missing[];
  /** It will not come right by waiting. */
  hopeless: boolean;
}

export interface WaitParts {
  view: ClusterView;
  nodes: NodeStates;
  dispatcher: Dispatcher;
  clock: Clock;
}

export async function waitForNodes(
  request: WaitRequest,
  { view, nodes, dispatcher, clock }: WaitParts,
  signal: AbortSignal,
): Promise<{ missing: Missing[] }> {
  const isDone = (): boolean => {
    const { missing, hopeless } = outstanding(request, { view, nodes, dispatcher });
    return missing.length === 0 || hopeless;
  };
  const { timeoutMs } = request;
  await waitUntil(isDone, (look) => dispatcher.onProgress(look), { clock, timeoutMs, signal });
  return { missing: outstanding(request, { view, nodes, dispatcher }).missing };
}

function outstanding(
  request: WaitRequest,
  { view, nodes, dispatcher }: Omit<WaitParts, 'clock'>,
): Outstanding {
  const missing: Missing[] = [];
  let hopeless = false;
  for (const nodeId of request.nodeIds) {
    const session = dispatcher.session(nodeId);
    if (session !== undefined && session.appliedRevision >= Number(request.revision)) continue;
    const reason =
      session === undefined
        ? `node is ${dispatcher.statusOf(nodeId) === 'ready' ? 'not connected' : dispatcher.statusOf(nodeId)}`
        : 'has not answered yet';
    missing.push({ nodeId, nodeHostname: hostname(view, nodeId), reason });
  }
  for (const serviceId of request.serviceIds) {
    const service = view.services.get(serviceId);
    if (service === undefined) {
      const ending = request.nodeIds.filter((id) => dispatcher.session(id)?.isEnding(serviceId) === true);
      for (const nodeId of ending)
        missing.push({
          nodeId,
          nodeHostname: hostname(view, nodeId),
          reason: 'its container has not ended yet',
        });
      continue;
    }
    const found = outstandingOf(service, { view, nodes });
    missing.push(...found.missing);
    hopeless ||= found.hopeless;
  }
  return { missing, hopeless };
}

function outstandingOf(
  service: ServiceRecord,
  { view, nodes }: Pick<WaitParts, 'view' | 'nodes'>,
): Outstanding {
  const found: Outstanding = { missing: [], hopeless: false };
  const tasks = view.tasksOfService(service.id);
  const note = (nodeId: string, reason: string, failed = false): void =>
    void found.missing.push({
      nodeId,
      nodeHostname: hostname(view, nodeId),
      serviceName: service.name,
      reason,
      failed,
    });
  const rolls = isUnderWay(service);
  const placement = new Placement(service, view, nodes);
  const slots = new Set(wantedSlots(service, tasks, placement));
  // The scheduler may not have come to it yet.
  for (const task of tasks.filter((each) => isWanted(each) && each.nodeId !== '')) {
    const slot = slotOf(service, task);
    const why = slots.has(slot) ? placement.whyNot(task.nodeId) : 'it is not needed any more';
    if (why !== undefined) note(task.nodeId, `task ${slot} has not ended yet: ${why}`);
  }
  for (const slot of slots) {
    const newest = newestOf(tasks.filter((task) => slotOf(service, task) === slot));
    const isDone = newest?.state === TaskState.RUNNING || newest?.state === TaskState.COMPLETE;
    if (isDone && (newest.desiredState === TaskState.RUNNING || hasEnded(stateOf(newest.state)))) continue;
    // One that ended before the last change says nothing about it: another takes its place.
    const failed =
      newest !== undefined && endedItself(newest) && newest.updatedMs >= changedMs(service, view);
    found.hopeless ||= failed && !rolls;
    note(newest?.nodeId ?? '', reasonOf(newest, slot), failed);
  }
  const ending = tasks.filter((task) => !hasEnded(stateOf(task.state)) && !isWanted(task));
  for (const { nodeId, slot } of ending) {
    const isSurplus = !service.global && slot > service.replicas;
    if (isSurplus || !nodes.isDown(nodeId)) note(nodeId, `task ${slot || nodeId} has not ended yet`);
  }
  noteUpdate(service, tasks, found, note);
  return found;
}

/** How its update stands, as far as it has to do with the last change. */
function noteUpdate(
  service: ServiceRecord,
  tasks: readonly TaskRecord[],
  found: Outstanding,
  note: (nodeId: string, reason: string, failed?: boolean) => void,
): void {
  const { updateStatus: status, updatedMs } = service;
  if (status === undefined) return;
  const { state, message } = status;
  if (isUnderWay(service)) {
    const wanted = tasks.filter(isWanted);
    const updated = wanted.filter(({ spec }) => spec === service.spec).length;
    const what = state === UpdateState.UPDATING ? 'update' : 'roll-back';
    return note('', `its ${what} is under way: ${updated} of ${wanted.length} tasks are replaced`);
  }
  const why = state === UpdateState.PAUSED ? 'is paused' : 'was taken back';
  const isBad = state === UpdateState.PAUSED || (state === UpdateState.ROLLBACK_COMPLETED && message !== '');
  if (!isBad || status.endedMs < updatedMs) return;
  found.hopeless = true;
  note('', `its update ${why}: ${message}`, true);
}

/** When the service, or a secret that it uses, was changed last. */
function changedMs(service: ServiceRecord, view: ClusterView): bigint {
  const times = service.references.map(({ secretId }) => view.secrets.get(secretId)?.updatedMs ?? 0n);
  return times.reduce((latest, time) => (time > latest ? time : latest), service.updatedMs);
}

function newestOf(tasks: readonly TaskRecord[]): TaskRecord | undefined {
  return [...tasks].sort((a, b) => Number(b.createdMs - a.createdMs))[0];
}

function reasonOf(task: TaskRecord | undefined, slot: Slot): string {
  if (task === undefined) return `task ${slot} has not been made yet`;
  return `task ${slot} is ${stateOf(task.state)}${task.error === '' ? '' : `: ${task.error}`}`;
}

function hostname(view: ClusterView, nodeId: string): string {
  return view.nodes.get(nodeId)?.description?.hostname ?? '';
}
