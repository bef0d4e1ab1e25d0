/** What an operator sees of accesses to a secret: who read which version last, and who still has an old one. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import { hasEnded } from '../model/task.js';
import type { VersionReadsSchema, VersionReaderSchema } from '../proto/gen/inro/v1/control_pb.js';
import type { ReadRecord, Reader } from '../proto/gen/inro/v1/records_pb.js';
import { stateOf } from '../proto/task_state.js';
import { managerLimits } from './limits.js';
import { lastMs } from './read_records.js';
import { servedVersion } from './served_version.js';
import type { ClusterView } from './view.js';

type ShownFrom = Pick<ClusterView, 'nodes' | 'secrets' | 'services' | 'tasks' | 'isRevoked'>;

/** @param records all of one secret. @returns the versions that anybody has accessed, oldest first. */
export function shownReads(
  secretId: string,
  records: readonly ReadRecord[],
  view: ShownFrom,
): MessageInitShape<typeof VersionReadsSchema>[] {
  const isBehind = whoIsBehind(secretId, records, view);
  const rows = records.flatMap((record) => {
    const { version, nodeId, readers, others } = record;
    const nodeHostname = view.nodes.get(nodeId)?.description?.hostname ?? '';
    const row = (of: Pick<Reader, 'accesses'> & Partial<Reader>) => ({
      version,
      lastMs: lastMs(of.accesses),
      reader: {
        nodeId,
        nodeHostname,
        taskId: of.taskId ?? '',
        serviceName: of.serviceName ?? '',
        workload: of.workload ?? '',
        ...(of.uid === undefined ? {} : { uid: of.uid }),
        opened: of.accesses?.opened ?? 0n,
        refused: of.accesses?.refused ?? 0n,
        openedMs: of.accesses?.openedMs ?? 0n,
        refusedMs: of.accesses?.refusedMs ?? 0n,
        behind: isBehind(record, of),
      },
    });
    return [...readers.map(row), ...(others === undefined ? [] : [row({ accesses: others })])];
  });
  rows.sort((a, b) => b.lastMs - a.lastMs || b.version - a.version);
  const shown = new Map<number, ReturnType<typeof noReads>>();
  for (const [n, { version, reader }] of rows.entries()) {
    const of = shown.get(version) ?? noReads(version);
    shown.set(version, of);
    if (reader.openedMs > of.lastReadMs) of.lastReadMs = reader.openedMs;
    if (n < managerLimits.maxShownReaders) of.readers.push(reader);
    else of.moreReaders += 1;
  }
  return [...shown.values()].sort((a, b) => a.version - b.version);
}

function noReads(version: number) {
  const readers: MessageInitShape<typeof VersionReaderSchema>[] = [];
  return { version, lastReadMs: 0n, readers, moreReaders: 0 };
}

/**
 * Who has opened an older version than the current one last, and not ended since: its program may go on using the old value.
 * Nobody is where there is nothing newer to read, or where it may be among those that are only counted together.
 */
function whoIsBehind(
  secretId: string,
  records: readonly ReadRecord[],
  view: ShownFrom,
): (record: ReadRecord, reader: Partial<Reader>) => boolean {
  const secret = view.secrets.get(secretId);
  if (secret === undefined) return () => false;
  const newest = new Map<string, number>();
  const note = (key: string, version: number): void =>
    void newest.set(key, Math.max(version, newest.get(key) ?? 0));
  for (const { nodeId, version, readers, others } of records) {
    for (const reader of readers) if (hasOpened(reader)) note(keyOf(nodeId, reader), version);
    if (hasOpened({ accesses: others })) note(nodeId, version);
  }
  return ({ nodeId, version }, reader) => {
    const task = view.tasks.get(reader.taskId ?? '');
    if (task === undefined || hasEnded(stateOf(task.state)) || !hasOpened(reader)) return false;
    if (version < (newest.get(nodeId) ?? 0)) return false;
    const references = view.services.get(task.serviceId)?.references ?? [];
    const served = references
      .filter((reference) => reference.secretId === secretId)
      .map((reference) => servedVersion(secret, reference, { ...task, nodeId }));
    // Of a service that has ceased to use it, what everybody else gets.
    const wanted = Math.min(...(served.length === 0 ? [secret.currentVersion] : served));
    if (view.isRevoked(secretId, wanted)) return false;
    return version < wanted && newest.get(keyOf(nodeId, reader)) === version;
  };
}

function hasOpened({ accesses }: { accesses?: Reader['accesses'] }): boolean {
  return (accesses?.opened ?? 0n) > 0n;
}

function keyOf(nodeId: string, { taskId, uid, workload }: Partial<Reader>): string {
  return JSON.stringify([nodeId, taskId, uid ?? null, workload]);
}
