/** What a batch of counts must be before it is believed. A node that was conquered says whatever it likes, but of its own tasks alone. */
import { create } from '@bufbuild/protobuf';
import { InroError } from '../model/error.js';
import { isId } from '../model/id.js';
import { printable } from '../model/name.js';
import type { AccessBatch, AccessCount } from '../proto/gen/inro/v1/dispatcher_pb.js';
import { AccessesSchema, type Accesses } from '../proto/gen/inro/v1/records_pb.js';
import { managerLimits } from './limits.js';
import type { SaidAccess } from './read_records.js';
import type { ClusterView } from './view.js';

export interface Checked {
  said: SaidAccess[];
  /** Why counts are passed over that no honest node sends; one reason each. */
  refused: string[];
}

/** @throws protocol, too_large for what no agent sends. */
export function checkBatch({ runId, number, counts }: AccessBatch): void {
  if (!isId(runId) || number < 1n || number > BigInt(Number.MAX_SAFE_INTEGER))
    throw new InroError('protocol', 'counts of accesses with a run or a number that cannot be');
  if (counts.length > managerLimits.maxCountsPerBatch)
    throw new InroError('too_large', `${counts.length} counts of accesses in one message`);
}

/** @param nowMs what happened later than that did not. */
export function checkedCounts(
  { counts }: AccessBatch,
  nodeId: string,
  view: Pick<ClusterView, 'version' | 'tasks'>,
  nowMs: number,
): Checked {
  const checked: Checked = { said: [], refused: [] };
  for (const one of counts) {
    const { secretId, version, taskId, uid, workload } = one;
    const record = view.version(secretId, version);
    if (record === undefined) continue; // removed meanwhile, with its secret
    const task = isId(taskId) ? view.tasks.get(taskId) : undefined;
    if (task !== undefined && task.nodeId !== nodeId)
      checked.refused.push(`task ${task.id} is of another node`);
    else if (one.opened > most || one.refused > most)
      checked.refused.push('a number of accesses that cannot be');
    else if (one.opened + one.refused > 0n) {
      // A task that was removed with its service: that it was this node's is not known any more.
      const reader = task && {
        taskId,
        serviceName: task.serviceName,
        workload: printable(workload, managerLimits.maxWorkloadChars),
        ...(uid === undefined ? {} : { uid }),
      };
      const accesses = accessesOf(one, Number(record.createdMs), nowMs);
      checked.said.push({ secretId, version, reader, accesses });
    }
  }
  return checked;
}

const most = BigInt(managerLimits.maxAccessesPerCount);

/** The clock of a node may be wrong: nobody read a version before there was one, or will have. */
function accessesOf(
  { opened, refused, openedMs, refusedMs }: AccessCount,
  createdMs: number,
  nowMs: number,
): Accesses {
  const time = (count: bigint, ms: bigint): bigint =>
    count === 0n ? 0n : BigInt(Math.max(Math.min(Number(ms), nowMs), createdMs));
  return create(AccessesSchema, {
    opened,
    refused,
    openedMs: time(opened, openedMs),
    refusedMs: time(refused, refusedMs),
  });
}
