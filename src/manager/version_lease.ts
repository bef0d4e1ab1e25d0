/** How long nodes may serve a version without an answer, and when they have ceased to at the latest. */
import { defaultLeaseMs, neverMs } from '../model/lease.js';
import type { VersionRecord } from '../proto/gen/inro/v1/records_pb.js';
import { managerLimits } from './limits.js';

/** ms, or `neverMs`. */
export function leaseOf(record: Pick<VersionRecord, 'leaseMs'> | undefined): number {
  return Number(record?.leaseMs ?? 0n) || defaultLeaseMs;
}

/** How long after the node was heard last it may serve it, by this manager's clock; Infinity: for ever. */
export function servesForMs(record: Pick<VersionRecord, 'leaseMs'> | undefined): number {
  const leaseMs = leaseOf(record);
  if (leaseMs === neverMs) return Infinity;
  const { leaseDriftMs, minLeaseDriftMs, leaseDriftPpm } = managerLimits;
  return leaseMs + Math.min(leaseDriftMs, minLeaseDriftMs + (leaseMs * leaseDriftPpm) / 1_000_000);
}

/** 9999-12-31, in ms since 1970: stands for what has no end where a time has to be kept. */
export const neverComesMs = 253_402_214_400_000;
