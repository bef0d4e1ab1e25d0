/**
 * Waiting until the nodes have done a change: each node concerned has said so under the change's revision,
 * and the services' tasks have come to rest. Ends early when a task has failed for good reason.
 */
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Clock } from '../model/clock.js';
import { hasEnded } from '../model/task.js';
import { TaskState } from '../proto/gen/inro/v1/common_pb.js';
import type { MissingSchema, WaitRequest } from '../proto/gen/inro/v1/control_pb.js';
import type { ServiceRecord, TaskRecord } from '../proto/gen/inro/v1/records_pb.js';
import { stateOf } from '../proto/task_state.js';
import type { Dispatcher } from './dispatcher.js';
import type { ClusterView } from './view.js';
import { waitUntil } from './wait_until.js';

type Missing = MessageInitShape<typeof MissingSchema>;

export async function waitForNodes(
  request: WaitRequest,
  { view, dispatcher, clock }: { view: ClusterView; dispatcher: Dispatcher; clock: Clock },
  signal: AbortSignal,
): Promise<{ missing: Missing[] }> {
  const isDone = (): boolean => {
    const { missing, hopeless } = outstanding(request, view, dispatcher);
    return missing.length === 0 || hopeless;
  };
  const { timeoutMs } = request;
  await waitUntil(isDone, (look) => dispatcher.onProgress(look), { clock, timeoutMs, signal });
  return { missing: outstanding(request, view, dispatcher).missing };
}

function outstanding(
  request: WaitRequest,
  view: ClusterView,
  dispatcher: Dispatcher,
): { missing: Missing[]; hopeless: boolean } {
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
    const tasks = view.tasksOfService(serviceId);
    for (let slot = 1; slot <= service.replicas; slot++) {
      const newest = newestOf(tasks.filter((task) => task.slot === slot));
      if (newest?.state === TaskState.RUNNING || newest?.state === TaskState.COMPLETE) continue;
      // One that ended before the last change says nothing about it: another takes its place.
      const failed =
        newest !== undefined &&
        hasEnded(stateOf(newest.state)) &&
        newest.updatedMs >= changedMs(service, view);
      hopeless ||= failed;
      const nodeId = newest?.nodeId ?? '';
      missing.push({
        nodeId,
        nodeHostname: hostname(view, nodeId),
        serviceName: service.name,
        reason: reasonOf(newest, slot),
        failed,
      });
    }
    for (const task of tasks) {
      if (task.slot <= service.replicas || hasEnded(stateOf(task.state))) continue;
      const { nodeId } = task;
      missing.push({
        nodeId,
        nodeHostname: hostname(view, nodeId),
        serviceName: service.name,
        reason: `task ${task.slot} has not ended yet`,
      });
    }
  }
  return { missing, hopeless };
}

/** When the service, or a secret that it uses, was changed last. */
function changedMs(service: ServiceRecord, view: ClusterView): bigint {
  const times = service.references.map(({ secretId }) => view.secrets.get(secretId)?.updatedMs ?? 0n);
  return times.reduce((latest, time) => (time > latest ? time : latest), service.updatedMs);
}

function newestOf(tasks: readonly TaskRecord[]): TaskRecord | undefined {
  return [...tasks].sort((a, b) => Number(b.createdMs - a.createdMs))[0];
}

function reasonOf(task: TaskRecord | undefined, slot: number): string {
  if (task === undefined) return `task ${slot} has not been made yet`;
  return `task ${slot} is ${stateOf(task.state)}${task.error === '' ? '' : `: ${task.error}`}`;
}

function hostname(view: ClusterView, nodeId: string): string {
  return view.nodes.get(nodeId)?.description?.hostname ?? '';
}
