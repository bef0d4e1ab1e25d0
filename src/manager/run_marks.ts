/** Up to which number what an agent numbers is taken, for each of its latest runs: what comes again counts once. */
import { create } from '@bufbuild/protobuf';
import { RunMarkSchema, type RunMark } from '../proto/gen/inro/v1/records_pb.js';
import { managerLimits } from './limits.js';

/** 0 before the run's first. */
export function lastOf(marks: readonly RunMark[] | undefined, runId: string): bigint {
  return marks?.find((mark) => mark.runId === runId)?.number ?? 0n;
}

export function withMark(marks: readonly RunMark[], runId: string, number: bigint): RunMark[] {
  const others = marks.filter((mark) => mark.runId !== runId);
  return [...others, create(RunMarkSchema, { runId, number })].slice(-managerLimits.maxRunsPerNode);
}
