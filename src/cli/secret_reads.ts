/** Who has accessed a secret, as `inro secret inspect` shows it. */
import type {
  SecretReads,
  SecretVersion,
  VersionReader,
  VersionReads,
} from '../proto/gen/inro/v1/control_pb.js';
import { ago, isoOrNull, printLine, printTable } from './print.js';

/** What is below the versions; nothing when nobody has accessed it. The latest accesses first. */
export function printReads({ versions }: SecretReads, current: number): void {
  const all = versions.flatMap(({ version, readers }) => readers.map((reader) => ({ version, ...reader })));
  if (all.length === 0) return;
  const lastMs = ({ openedMs, refusedMs }: VersionReader): number =>
    Math.max(Number(openedMs), Number(refusedMs));
  const rows = all
    .sort((a, b) => lastMs(b) - lastMs(a) || b.version - a.version)
    .map((one) => [
      String(one.version),
      one.nodeHostname || one.nodeId,
      one.taskId === '' ? 'others' : one.workload || '-',
      String(one.uid ?? '-'),
      String(one.opened),
      String(one.refused),
      ago(one.openedMs),
      one.behind ? `has not read version ${current}` : '-',
    ]);
  printTable(['VERSION', 'NODE', 'READ BY', 'USER', 'OPENED', 'REFUSED', 'LAST READ', 'NOTE'], rows);
  const more = versions.reduce((sum, one) => sum + one.moreReaders, 0);
  if (more > 0) printLine(`and ${more} more, not as late as these`);
}

/** A version's part of docs/json.md, `inro secret inspect`. */
export function readsJson({ versions }: SecretReads, { version }: SecretVersion) {
  const reads: Partial<VersionReads> = versions.find((one) => one.version === version) ?? {};
  return {
    lastReadAt: isoOrNull(reads.lastReadMs ?? 0n),
    reads: (reads.readers ?? []).map((one) => ({
      node: one.nodeHostname,
      nodeId: one.nodeId,
      service: one.serviceName,
      task: one.taskId,
      workload: one.workload,
      uid: one.uid ?? null,
      opened: Number(one.opened),
      refused: Number(one.refused),
      lastReadAt: isoOrNull(one.openedMs),
      lastRefusedAt: isoOrNull(one.refusedMs),
      behind: one.behind,
    })),
    readsLeftOut: reads.moreReaders ?? 0,
  };
}
