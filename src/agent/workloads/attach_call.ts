/** The calls by which a workload of this host begins and ends to use a service. */
import { join } from 'node:path';
import type { Random } from '../../model/clock.js';
import { InroError } from '../../model/error.js';
import { newId } from '../../model/id.js';
import type { AttachRequest } from '../../proto/gen/inro/v1/agent_pb.js';
import { addon, type Cgroup, type ProcessFacts } from '../../system/addon.js';
import type { HostTasks } from '../host_tasks.js';
import type { WorkloadKind } from './attachments.js';

const kinds: readonly string[] = ['exec', 'container', 'unit'] satisfies WorkloadKind[];

/** @throws bad_input, not_found, not_supported, arena_full. */
export function attachCall(
  { tasks, mountPath, random }: { tasks: HostTasks; mountPath: string; random: Random },
  { service, kind, name, pid }: AttachRequest,
) {
  if (!kinds.includes(kind))
    throw new InroError('bad_input', `a workload is ${kinds.join(', ')}, not ${kind}`);
  const process = addon().processOf(pid);
  if (process === null) throw new InroError('not_found', `there is no process ${pid}`);
  const cgroup = cgroupOfItsOwn(process);
  if (cgroup === undefined)
    throw new InroError(
      'not_supported',
      `process ${pid} has no cgroup of its own (${process.cgroupPath || 'none can be told'}), so others cannot be kept out`,
      { remedy: "start it with 'inro exec SERVICE -- COMMAND', which gives it one" },
    );
  const id = newId(random);
  const { assigned } = tasks.attach(service, { kind: kind as WorkloadKind, name, cgroup }, { id });
  const targets = Object.fromEntries(
    assigned.references.map(({ reference }) => [reference?.secretName ?? '', reference?.target ?? '']),
  );
  return { attachmentId: id, taskId: assigned.id, path: join(mountPath, assigned.serviceName), targets };
}

/** Undefined where none can be told, or others are in it too: with it everybody would be let in. */
export function cgroupOfItsOwn({ cgroup, cgroupPath: path }: ProcessFacts): Cgroup | undefined {
  if (cgroup === 0 || path === '/') return undefined;
  return cgroup === addon().processOf(process.pid)?.cgroup ? undefined : { cgroup, path };
}
