/** Detaches workloads whose processes have all ended, however they did. */
import type { Clock } from '../../model/clock.js';
import { isPopulated, removeCgroup } from '../../system/cgroups.js';
import type { HostTasks } from '../host_tasks.js';
import { agentLimits } from '../limits.js';
import type { Attachments } from './attachments.js';

export async function watchWorkloads(
  { attachments, tasks, clock }: { attachments: Attachments; tasks: HostTasks; clock: Clock },
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    detachEnded(attachments, tasks);
    await clock.sleep(agentLimits.workloadCheckMs, signal);
  }
}

export function detachEnded(attachments: Attachments, tasks: HostTasks): void {
  for (const { id, kind, cgroup } of attachments.list()) {
    // 0: a container; its engine says when it has ended.
    if (cgroup === undefined || cgroup.cgroup === 0 || isPopulated(cgroup.path, cgroup.cgroup)) continue;
    tasks.detach(id);
    // Made for this one workload (cli/commands/exec.ts).
    if (kind === 'exec') removeCgroup(cgroup.path);
  }
}
