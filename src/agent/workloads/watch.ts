/** Detaches workloads whose processes have all ended, however they did, and ends tasks that nobody uses any more. */
import type { Clock } from '../../model/clock.js';
import { hasEnded } from '../../model/task.js';
import { isPopulated, removeCgroup } from '../../system/cgroups.js';
import type { HostTasks } from '../host_tasks.js';
import { agentLimits } from '../limits.js';
import type { Attachments } from './attachments.js';

export async function watchWorkloads(
  { attachments, tasks, clock }: { attachments: Attachments; tasks: HostTasks; clock: Clock },
  signal: AbortSignal,
): Promise<void> {
  /** By task: since when nobody uses it any more, ms of boot time. */
  const leftSinceMs = new Map<string, number>();
  while (!signal.aborted) {
    detachEnded(attachments, tasks);
    endLeft(leftSinceMs, { attachments, tasks, clock });
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

/** A task that lasts until it is detached ends when its grace is over. */
function endLeft(
  leftSinceMs: Map<string, number>,
  { attachments, tasks, clock }: { attachments: Attachments; tasks: HostTasks; clock: Clock },
): void {
  const left = tasks
    .list()
    .filter(({ assigned, state }) => assigned.untilDetached !== undefined && !hasEnded(state))
    .filter(({ assigned }) => attachments.isLeft(assigned));
  const ids = new Set(left.map(({ assigned }) => assigned.id));
  for (const id of leftSinceMs.keys()) if (!ids.has(id)) leftSinceMs.delete(id);
  const nowMs = clock.boottimeMs();
  for (const { assigned } of left) {
    const sinceMs = leftSinceMs.get(assigned.id) ?? nowMs;
    leftSinceMs.set(assigned.id, sinceMs);
    if (nowMs - sinceMs >= (assigned.untilDetached?.graceMs ?? 0)) tasks.report(assigned.id, 'COMPLETE', '');
  }
}
