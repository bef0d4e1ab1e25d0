/**
 * Who read what: takes the mount's records at short intervals, says what each reader is, keeps them in a file, tells them to who
 * listens, and adds up counts for the manager until it has them.
 */
import type { Logger } from 'pino';
import type { Clock } from '../../model/clock.js';
import { agentLimits } from '../limits.js';
import type { MountDriver } from '../mount/driver.js';
import type { Access, AccessCount, AccessedFile, AccessOutcome } from '../mount/accesses.js';
import type { Attachments } from '../workloads/attachments.js';
import type { AuditFile } from './audit_file.js';
import { workloadName } from './workload_name.js';

/** A line of the file. Its names are for ever (docs/json.md, `inro agent audit`). */
export interface AuditEntry {
  time: string;
  /** One of AccessOutcome or Delivery's, or `dropped`: `count` accesses of which nothing else is known than the counts by reader. */
  outcome: string;
  count: number;
  secret: string;
  secretId: string;
  version: number;
  service: string;
  task: string;
  target: string;
  uid: number;
  gid: number;
  threadId: number;
  processId: number;
  processStartedAt: string | null;
  processName: string;
  cgroup: string;
  workload: string;
}

/** A secret that was asked for by another way than the mount. */
export interface Delivery {
  file: AccessedFile;
  /** `not bound`: no service gives this unit anything here. `no such target`: its service gives it no file of this name. */
  outcome: AccessOutcome | 'not bound' | 'no such target';
  uid: number;
  gid: number;
  /** 0: unknown. */
  process: number;
  startTicks: number;
  name: string;
  cgroup: string;
  /** `unit nginx.service`, as the one who asked said it. */
  workload: string;
}

export interface PendingCount {
  secretId: string;
  version: number;
  taskId: string;
  uid: number | undefined;
  workload: string;
  opened: number;
  refused: number;
  /** ms since 1970; 0: never. */
  openedMs: number;
  refusedMs: number;
}

export interface AccessLogParts {
  driver: MountDriver;
  attachments: Attachments;
  file: AuditFile;
  clock: Clock;
  log: Logger;
}

const collectEveryMs = 250;
/** proc(5): USER_HZ is 100 on every machine that Linux runs Node on. */
const msPerTick = 10;
/** Kinds of readers whose counts wait for a manager; beyond that they are added to one without a reader. */
const maxPending = 10_000;

export class AccessLog {
  readonly #parts: AccessLogParts;
  readonly #listeners = new Set<(entry: AuditEntry) => void>();
  #pending = new Map<string, PendingCount>();

  constructor(parts: AccessLogParts) {
    this.#parts = parts;
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      this.collect();
      await this.#parts.clock.sleep(collectEveryMs, signal);
    }
  }

  /** All until now. */
  collect(): void {
    const { driver, clock, file } = this.#parts;
    const found = driver.collectAccesses?.();
    if (found === undefined) return;
    const entries = found.accesses.map((access) => this.#entryOf(access));
    if (found.dropped > 0)
      entries.push({ ...nothing, time: new Date(clock.now()).toISOString(), count: found.dropped });
    file.append(entries.map((entry) => JSON.stringify(entry)));
    for (const entry of entries) for (const listener of this.#listeners) listener(entry);
    for (const count of found.counts) this.#add(count);
  }

  /** A secret was asked for by another way than the mount, and given or not: on disk when it returns. */
  add({ file, outcome, uid, gid, process, startTicks, name, cgroup, workload }: Delivery): void {
    const { clock, file: audit } = this.#parts;
    this.collect(); // what came before stands before it
    const atMs = clock.now();
    const access = { file, atMs, uid, gid, thread: process, process, startTicks, name, cgroup };
    const entry = { ...this.#entryOf({ ...access, outcome: 'opened' }), outcome, workload };
    audit.append([JSON.stringify(entry)]);
    for (const listener of this.#listeners) listener(entry);
    this.#count({ file, outcome, uid, count: 1, lastMs: atMs }, workload);
  }

  /** What has been recorded. */
  history(): Iterable<AuditEntry> {
    this.collect();
    return this.#parts.file.read() as Iterable<AuditEntry>;
  }

  /** Until the function that it gives back is called. */
  listen(listener: (entry: AuditEntry) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Counts to be told; they come again until they are taken. */
  pending(): PendingCount[] {
    this.collect();
    return [...this.#pending.values()];
  }

  /** A manager keeps these. */
  taken(counts: readonly PendingCount[]): void {
    for (const { opened, refused, ...of } of counts) {
      const key = keyOf(of);
      const now = this.#pending.get(key);
      if (now === undefined) continue;
      now.opened -= opened;
      now.refused -= refused;
      this.#pending.delete(key);
      if (now.opened > 0 || now.refused > 0) this.#pending.set(key, now); // behind those that have waited longer
    }
  }

  #entryOf({ file, atMs, outcome, uid, gid, thread, process, startTicks, name, cgroup }: Access): AuditEntry {
    const { clock } = this.#parts;
    const startedMs = clock.now() - clock.boottimeMs() + startTicks * msPerTick;
    return {
      time: new Date(atMs).toISOString(),
      outcome,
      count: 1,
      secret: file.secretName,
      secretId: file.secretId,
      version: file.version,
      service: file.serviceName,
      task: file.taskId,
      target: file.target,
      uid,
      gid,
      threadId: thread,
      processId: process,
      processStartedAt: startTicks === 0 ? null : new Date(startedMs).toISOString(),
      processName: name,
      cgroup,
      workload: this.#workload(cgroup),
    };
  }

  /** What is attached is known by its name; everything else by its cgroup. */
  #workload(cgroup: string): string {
    const attached = this.#parts.attachments.ofCgroup(cgroup);
    return attached === undefined ? workloadName(cgroup) : `${attached.kind} ${attached.name}`;
  }

  #add(counted: AccessCount): void {
    this.#count(counted, this.#workload(counted.cgroup) || counted.cgroup);
  }

  #count(
    { file, outcome, uid, count, lastMs }: Omit<AccessCount, 'outcome' | 'cgroup'> & { outcome: string },
    workload: string,
  ): void {
    if (file.secretId === '') return;
    const { secretId, version, taskId } = file;
    const many = { secretId, version, taskId, uid: undefined, workload: '' };
    const one = { secretId, version, taskId, uid, workload: workload.slice(0, agentLimits.maxWorkloadChars) };
    const of = this.#pending.size < maxPending || this.#pending.has(keyOf(one)) ? one : many;
    const known = this.#pending.get(keyOf(of)) ?? { ...of, opened: 0, refused: 0, openedMs: 0, refusedMs: 0 };
    const what = outcome === 'opened' ? 'opened' : 'refused';
    known[what] += count;
    known[`${what}Ms`] = Math.max(known[`${what}Ms`], lastMs);
    this.#pending.set(keyOf(of), known);
  }
}

function keyOf({
  secretId,
  version,
  taskId,
  uid,
  workload,
}: Pick<PendingCount, 'secretId' | 'version' | 'taskId' | 'uid' | 'workload'>): string {
  return JSON.stringify([secretId, version, taskId, uid ?? null, workload]);
}

const nothing: AuditEntry = {
  time: '',
  outcome: 'dropped',
  count: 0,
  secret: '',
  secretId: '',
  version: 0,
  service: '',
  task: '',
  target: '',
  uid: 0,
  gid: 0,
  threadId: 0,
  processId: 0,
  processStartedAt: null,
  processName: '',
  cgroup: '',
  workload: '',
};
