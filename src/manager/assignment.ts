/** What one node should have, and how that differs from what its stream has been told. Pure. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import { hasEnded } from '../model/task.js';
import { TaskState } from '../proto/gen/inro/v1/common_pb.js';
import type { AssignedTaskSchema } from '../proto/gen/inro/v1/dispatcher_pb.js';
import { stateOf } from '../proto/task_state.js';
import { versionKey } from '../store/tables.js';
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
}

export interface Difference {
  removeTasks: string[];
  putVersions: NeededVersion[];
  putTasks: MessageInitShape<typeof AssignedTaskSchema>[];
}

export const emptyAssignment = (): Assignment => ({ tasks: new Map(), versions: new Map() });

export function assignmentOf(view: ClusterView, nodeId: string): Assignment {
  const assignment = emptyAssignment();
  for (const task of view.tasksOfNode(nodeId)) {
    if (task.desiredState !== TaskState.RUNNING || hasEnded(stateOf(task.state))) continue;
    const service = view.services.get(task.serviceId);
    if (service === undefined) continue;
    const references = service.references.flatMap((reference) => {
      const secret = view.secrets.get(reference.secretId);
      if (secret === undefined) return [];
      const needed = { secretId: secret.id, version: secret.currentVersion };
      assignment.versions.set(versionKey(needed.secretId, needed.version), needed);
      return [{ reference, version: needed.version }];
    });
    const { id, serviceId, slot } = task;
    assignment.tasks.set(id, { id, serviceId, serviceName: service.name, slot, references });
  }
  return assignment;
}

export function differenceOf(before: Assignment, after: Assignment): Difference {
  const changed = (id: string): boolean =>
    JSON.stringify(before.tasks.get(id), plain) !== JSON.stringify(after.tasks.get(id), plain);
  return {
    removeTasks: [...before.tasks.keys()].filter((id) => !after.tasks.has(id)),
    putVersions: [...after.versions].filter(([key]) => !before.versions.has(key)).map(([, needed]) => needed),
    putTasks: [...after.tasks].filter(([id]) => changed(id)).map(([, task]) => task),
  };
}

export function isEmpty(difference: Difference): boolean {
  return difference.removeTasks.length + difference.putVersions.length + difference.putTasks.length === 0;
}

function plain(key: string, value: unknown): unknown {
  return key.startsWith('$') ? undefined : value;
}
