/** What one node should have, and how that differs from what its stream has been told. Pure. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import { hasEnded } from '../model/task.js';
import { TaskState } from '../proto/gen/inro/v1/common_pb.js';
import type { AssignedTaskSchema } from '../proto/gen/inro/v1/dispatcher_pb.js';
import type { ServiceRecord, TaskRecord } from '../proto/gen/inro/v1/records_pb.js';
import { stateOf } from '../proto/task_state.js';
import { versionKey } from '../store/tables.js';
import { revokedNotice } from './revoked.js';
import { servedVersion } from './served_version.js';
import type { ClusterView } from './view.js';

export interface NeededVersion {
  secretId: string;
  version: number;
}

export interface Assignment {
  /** By task id. */
  tasks: Map<string, MessageInitShape<typeof AssignedTaskSchema>>;
  /** By `versionKey`. Exactly those that the tasks reference: this is where least privilege is decided. */
  versions: Map<string, NeededVersion>;
  /** By `versionKey`: what it may hold, and must not any more. */
  revoked: Map<string, NeededVersion>;
}

export interface Difference {
  revoke: NeededVersion[];
  removeTasks: string[];
  putVersions: NeededVersion[];
  putTasks: MessageInitShape<typeof AssignedTaskSchema>[];
}

export const emptyAssignment = (): Assignment => ({
  tasks: new Map(),
  versions: new Map(),
  revoked: new Map(),
});

export function assignmentOf(view: ClusterView, nodeId: string): Assignment {
  const assignment = { ...emptyAssignment(), revoked: revokedOn(view, nodeId) };
  for (const task of view.tasksOfNode(nodeId)) {
    if (task.desiredState !== TaskState.RUNNING || hasEnded(stateOf(task.state))) continue;
    const service = view.services.get(task.serviceId);
    if (service === undefined) continue;
    const references = service.references.flatMap((reference) => {
      const secret = view.secrets.get(reference.secretId);
      if (secret === undefined) return [];
      const needed = { secretId: secret.id, version: servedVersion(secret, reference, { ...task, nodeId }) };
      if (view.isRevoked(needed.secretId, needed.version)) return [];
      assignment.versions.set(versionKey(needed.secretId, needed.version), needed);
      return [{ reference, version: needed.version }];
    });
    const { id, serviceId, slot } = task;
    const notice = revokedNotice(view, service.references, task);
    const { name: serviceName, readers, unit, onChange, untilDetached } = service;
    const container = containerOf(service, task);
    const until = untilDetached === undefined ? {} : { untilDetached };
    const runs = { unit, onChange, ...until, ...(container === undefined ? {} : { container }) };
    assignment.tasks.set(id, { id, serviceId, serviceName, slot, references, notice, readers, ...runs });
  }
  return assignment;
}

/** A task runs what it was made of; one that was made before tasks noted it, what the service said then. */
function containerOf(service: ServiceRecord, task: TaskRecord): ServiceRecord['container'] {
  return task.container ?? (task.spec === service.spec ? service : (service.former ?? service)).container;
}

/** What the node may hold, and must not any more. By `versionKey`. */
export function revokedOn(view: ClusterView, nodeId: string): Map<string, NeededVersion> {
  const revoked = view.holders.ofNode(nodeId).filter((held) => view.isRevoked(held.secretId, held.version));
  return new Map(
    revoked.map(({ secretId, version }) => [versionKey(secretId, version), { secretId, version }]),
  );
}

export function differenceOf(before: Assignment, after: Assignment): Difference {
  const changed = (id: string): boolean =>
    JSON.stringify(before.tasks.get(id), plain) !== JSON.stringify(after.tasks.get(id), plain);
  return {
    revoke: newIn(after.revoked, before.revoked),
    removeTasks: [...before.tasks.keys()].filter((id) => !after.tasks.has(id)),
    putVersions: putVersions(before, after),
    putTasks: [...after.tasks].filter(([id]) => changed(id)).map(([, task]) => task),
  };
}

export function isEmpty(difference: Difference): boolean {
  return Object.values(difference).every((changes: readonly unknown[]) => changes.length === 0);
}

/** A version whose tasks all go is told again to those that come: the node wiped it when those ended by themselves. */
function putVersions(before: Assignment, after: Assignment): NeededVersion[] {
  const inUse = new Set(
    [...before.tasks]
      .filter(([id]) => after.tasks.has(id))
      .flatMap(([, { references = [] }]) => references)
      .map(({ reference, version = 0 }) => versionKey(reference?.secretId ?? '', version)),
  );
  return [...after.versions]
    .filter(([key]) => !before.versions.has(key) || !inUse.has(key))
    .map(([, version]) => version);
}

function newIn(
  after: ReadonlyMap<string, NeededVersion>,
  before: ReadonlyMap<string, NeededVersion>,
): NeededVersion[] {
  return [...after].filter(([key]) => !before.has(key)).map(([, version]) => version);
}

function plain(key: string, value: unknown): unknown {
  return key.startsWith('$') ? undefined : value;
}
