/**
 * This node's tasks and their files. Takes whole assignments and applies them in one order: removals and
 * wipes first (always, even when nothing else fits), then new values, then each task's new generation.
 */
import type { Logger } from 'pino';
import type { Plaintext } from '../crypto/plaintext.js';
import type { Clock } from '../model/clock.js';
import { asInroError, InroError } from '../model/error.js';
import { quoted } from '../model/name.js';
import { stopGraceMs } from '../model/container.js';
import { checkReference } from '../model/reference.js';
import type { ReadersRule } from '../model/readers.js';
import { hasEnded, type TaskState } from '../model/task.js';
import type {
  AssignedReference,
  AssignedTask,
  DeliveredVersion,
} from '../proto/gen/inro/v1/dispatcher_pb.js';
import { readersOf } from '../proto/readers.js';
import { agentLimits } from './limits.js';
import { heldNote, readHeldNote, readTaskNote, taskNote } from './inheritance_notes.js';
import type { MountDriver, PublishedFile } from './mount/driver.js';
import type { Inheritance } from './mount/inheritance.js';
import { ownerIds } from './owner.js';
import { heldKey, type HeldVersion, type Vault } from './vault.js';
import { askedFor } from './workloads/asked_for.js';
import type { Attachments, DueActions, Workload } from './workloads/attachments.js';

export interface HostTask {
  assigned: AssignedTask;
  state: TaskState;
  error: string;
  generation: number;
  /** What the current generation shows, to see whether a new one is needed; empty when nothing is published. */
  shown: string;
  /** Which value each target showed last. */
  values: ReadonlyMap<string, string>;
  due: DueActions;
  /** How what a change asked for went, the last time. */
  change: TaskChange | undefined;
  /** It is removed, and goes when its container has ended. */
  ending: { late: { cancel(): void } } | undefined;
  exitCode: number | undefined;
}

export interface TaskChange {
  action: string;
  /** '' where it was done. */
  error: string;
  atMs: number;
}

export interface TaskReport {
  taskId: string;
  state: TaskState;
  error: string;
  atMs: number;
  change?: TaskChange;
  exitCode?: number;
}

export interface HostTasksParts {
  vault: Vault;
  driver: MountDriver;
  attachments: Attachments;
  clock: Clock;
  log: Logger;
  clusterId: string;
}

export class HostTasks {
  readonly #parts: HostTasksParts;
  readonly #tasks = new Map<string, HostTask>();
  /** What a manager has not been told, besides the answers to its assignments. */
  #reports: TaskReport[] = [];
  #wake = (): void => undefined;
  #stopped = false;
  /** Told of each change of what tasks there are. */
  onChange: (() => void) | undefined;
  runsContainers = false;

  constructor(parts: HostTasksParts) {
    this.#parts = parts;
  }

  list(): HostTask[] {
    return [...this.#tasks.values()];
  }

  /** A task's container has begun or ended. */
  report(
    taskId: string,
    state: 'RUNNING' | 'COMPLETE' | 'FAILED' | 'REJECTED',
    error: string,
    exitCode?: number,
  ): void {
    const { driver, attachments, clock } = this.#parts;
    const task = this.#tasks.get(taskId);
    if (task === undefined || hasEnded(task.state) || this.#stopped) return;
    task.state = state;
    task.error = error;
    task.exitCode = exitCode;
    if (hasEnded(state)) {
      task.shown = '';
      driver.withdraw(taskId);
      attachments.forgetTask(taskId);
      this.#wipeUnneeded(this.#liveTasks());
    }
    this.#reports.push(reportOf(task, clock.now()));
    this.#wake();
  }

  /** Removed tasks whose containers have not ended yet. */
  get ending(): { taskId: string; serviceId: string }[] {
    return this.list()
      .filter(({ ending }) => ending !== undefined)
      .map(({ assigned }) => ({ taskId: assigned.id, serviceId: assigned.serviceId }));
  }

  /** Its container is gone: what is removed goes now. */
  containerGone(taskId: string): void {
    const task = this.#tasks.get(taskId);
    // What is here may be a successor's by now.
    if (task?.ending === undefined || this.#stopped) return;
    // Also where it had ended by itself: a manager waits for the word that it is gone.
    const [report = reportOf(task, this.#parts.clock.now())] = this.#remove(task);
    this.#wipeUnneeded(this.#liveTasks());
    this.#reports.push(report);
    this.#wake();
    this.onChange?.();
  }

  /** What changed files asked for, up to this generation, has been done, or has failed. */
  changed(taskId: string, generation: number, change: TaskChange): void {
    const task = this.#tasks.get(taskId);
    if (task === undefined || this.#stopped) return;
    task.due = new Map([...task.due].filter(([, number]) => number > generation));
    task.change = change;
    if (task.shown !== '') this.#admit(task);
    this.#reports.push(reportOf(task, this.#parts.clock.now()));
    this.#wake();
  }

  /** Resolves to them once there are some; to none when the signal aborts. Not told twice: a new stream tells all states. */
  async reports(signal: AbortSignal): Promise<TaskReport[]> {
    while (this.#reports.length === 0 && !signal.aborted) {
      await new Promise<void>((resolve) => {
        this.#wake = () => {
          signal.removeEventListener('abort', this.#wake);
          resolve();
        };
        signal.addEventListener('abort', this.#wake, { once: true });
      });
    }
    return this.#reports.splice(0);
  }

  isAttached(attachmentId: string): boolean {
    return this.#parts.attachments.get(attachmentId) !== undefined;
  }

  /** Goes on where a predecessor was: values by what was noted beside them, tasks as they were published last. */
  inherit({ generations, values }: Inheritance): void {
    const { vault, driver, attachments, clock } = this.#parts;
    for (const { value, note, modifiedMs, readableUntilMs } of values) {
      const { secretId, version, ciphertextDigest, leaseShiftMs } = readHeldNote(note);
      if (secretId === '') {
        value.wipe(); // of what secret, nobody knows
        continue;
      }
      const shift = { leaseShiftMs: Number(leaseShiftMs) };
      const held = { secretId, version, ciphertextDigest, createdMs: modifiedMs, ...shift, value };
      const isCurrent = readableUntilMs === Infinity;
      vault.inherit(held, isCurrent ? undefined : Math.max(0, readableUntilMs - clock.boottimeMs()));
    }
    for (const { taskId, number, note, gate } of generations) {
      const assigned = readTaskNote(note);
      if (assigned?.id !== taskId) {
        driver.withdraw(taskId); // nobody would ever take it away: what is not known cannot be missed
        continue;
      }
      for (const reference of assigned.references) vault.use(keyOf(reference), assigned.id);
      const due = attachments.inherit(assigned, gate.note, gate.readers !== 'any');
      this.#tasks.set(taskId, {
        assigned,
        state: 'RUNNING',
        error: '',
        generation: number,
        shown: this.#shownBy(assigned),
        values: this.#valuesOf(assigned),
        due,
        change: undefined,
        ending: undefined,
        exitCode: undefined,
      });
    }
  }

  /**
   * A workload begins to use a service: from now on its processes can read, and, unless the service says otherwise, no others.
   * @param service by id or name.
   * @throws not_found when no task of it is shown here, not_supported where it cannot be told who reads, arena_full.
   */
  attach(
    service: string,
    workload: Workload,
    { id, taskId = '' }: { id: string; taskId?: string },
  ): HostTask {
    const { attachments, clock, driver, log } = this.#parts;
    const task = this.ofService(service, taskId);
    if (driver.admit === undefined)
      throw new InroError('not_supported', `driver ${driver.facts().name} cannot tell who reads`, {
        remedy: 'run the agent with the kernel driver',
      });
    const { serviceId } = task.assigned;
    attachments.add({ ...workload, id, serviceId, taskId, sinceMs: clock.now() });
    try {
      this.#regate(serviceId);
    } catch (error) {
      this.detach(id);
      throw error;
    }
    log.info({ service: task.assigned.serviceName, [workload.kind]: workload.name }, 'attached');
    return task;
  }

  /** The newest task that is shown here, or that one. @param service by id or name. @throws not_found */
  ofService(service: string, taskId = ''): HostTask {
    const task = this.list().findLast(
      ({ assigned, shown }) =>
        shown !== '' &&
        (assigned.serviceId === service || assigned.serviceName === service) &&
        (taskId === '' || assigned.id === taskId),
    );
    if (task === undefined) throw notHere(service);
    return task;
  }

  /** The same for a workload that may be attached already. @throws as attach(). */
  attachOnce(service: string, workload: Workload, id: string): void {
    if (this.#parts.attachments.find(service, workload) === undefined) this.attach(service, workload, { id });
  }

  /** The workload uses it no more: its processes cannot read from here on, by no descriptor. Never fails. */
  detach(attachmentId: string): void {
    const { attachments, driver, log } = this.#parts;
    const known = attachments.get(attachmentId);
    if (known === undefined) return;
    attachments.remove(attachmentId);
    if (this.#stopped) return;
    try {
      this.#regate(known.serviceId);
    } catch (error) {
      // No memory for a gate with fewer readers: better nobody than one too many.
      log.error({ err: error }, 'the arena is full: nobody can read what a workload has left');
      for (const { assigned } of this.#ofService(known.serviceId))
        driver.admit?.(assigned.id, { readers: [], note: new Uint8Array() });
    }
    log.info({ service: known.serviceId, [known.kind]: known.name }, 'detached');
  }

  #regate(serviceId: string): void {
    for (const task of this.#ofService(serviceId)) this.#admit(task);
  }

  #admit({ assigned, due }: HostTask): void {
    const { driver, attachments } = this.#parts;
    driver.admit?.(assigned.id, attachments.gateOf(assigned, readersRule(assigned), due));
  }

  #ofService(serviceId: string): HostTask[] {
    return this.list().filter(({ assigned, shown }) => shown !== '' && assigned.serviceId === serviceId);
  }

  /** Changes nothing any more, without wiping: what is here is a successor's. */
  letGo(): void {
    this.#stopped = true;
    this.#parts.vault.letGo();
  }

  /**
   * Brings the host to exactly these tasks.
   * @param delivered new versions by `heldKey`.
   * @param atOnce removed tasks do not wait for their containers' end.
   * @returns each task whose state the manager should hear.
   */
  apply(
    wanted: ReadonlyMap<string, AssignedTask>,
    delivered: ReadonlyMap<string, DeliveredVersion>,
    sessionKey: Plaintext,
    atOnce = false,
  ): TaskReport[] {
    const reports = this.#removeGone(wanted, atOnce);
    const ending = this.list().filter((task) => task.ending !== undefined);
    this.#wipeUnneeded(
      new Map([...ending.map(({ assigned }) => [assigned.id, assigned] as const), ...wanted]),
    );
    const failures = this.#takeIn(wanted, delivered, sessionKey);
    for (const task of wanted.values()) reports.push(this.#bring(task, failures));
    this.#wipeUnneeded(this.#liveTasks()); // what only failed tasks wanted
    this.onChange?.();
    return reports;
  }

  /** True once the agent is stopping: no assignment is to be applied any more. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** @param key of `heldKey`. */
  holds(key: string): boolean {
    return this.#parts.vault.get(key) !== undefined;
  }

  /** Wipes at once, without a grace, whoever still uses it: its files fail until a generation without them is published. */
  revoke(secretId: string, version: number): void {
    this.#parts.vault.wipe(heldKey(secretId, version), 'revoked');
  }

  /**
   * Wipes what may not be served any more, given the node's deadline; a task that has nothing else is withdrawn. All of it comes back
   * with the next complete assignment.
   * @returns keys of what was wiped.
   */
  wipeExpired(deadlineMs: number): string[] {
    const { vault, driver } = this.#parts;
    const wiped = new Set(vault.wipeExpired(deadlineMs));
    for (const task of wiped.size === 0 ? [] : this.#tasks.values()) {
      const keys = task.assigned.references.map(keyOf);
      if (!keys.some((key) => wiped.has(key))) continue;
      task.shown = '';
      if (keys.every((key) => vault.get(key) === undefined)) driver.withdraw(task.assigned.id);
    }
    return [...wiped];
  }

  /**
   * Withdraws and wipes everything. Tasks that have not ended come back with the next complete assignment, unless stopped; those of a
   * node that was removed are over.
   */
  wipeAll(reason: 'stopped' | 'removed'): void {
    this.#stopped ||= reason === 'stopped';
    for (const task of this.#tasks.values()) {
      this.#parts.driver.withdraw(task.assigned.id);
      task.shown = '';
    }
    this.#parts.vault.wipeAll(reason);
    if (reason !== 'removed') return;
    for (const [id, { ending }] of this.#tasks) {
      this.#parts.attachments.forgetTask(id);
      ending?.late.cancel();
    }
    this.#tasks.clear();
    this.onChange?.();
  }

  #removeGone(wanted: ReadonlyMap<string, AssignedTask>, atOnce: boolean): TaskReport[] {
    const gone = this.list().filter(({ assigned }) => !wanted.has(assigned.id));
    return gone.flatMap((task) => (!atOnce && this.#endsLater(task) ? [] : this.#remove(task)));
  }

  /** A container may need its secrets until it has stopped. It has its stop grace, whatever becomes of the engine. */
  #endsLater(task: HostTask): boolean {
    const { clock, log } = this.#parts;
    const { assigned, state, shown } = task;
    const { id, serviceName: service, container } = assigned;
    if (task.ending !== undefined) return true;
    if (container === undefined || !this.runsContainers || hasEnded(state) || shown === '') return false;
    const late = clock.timer(stopGraceMs(container) + agentLimits.containerEndMs, () => {
      log.error({ task: id, service }, 'its container has not ended in time; its files go now');
      this.containerGone(id);
    });
    task.ending = { late };
    log.info({ task: id, service }, 'task ends with its container');
    return true;
  }

  #remove({ assigned: { id, serviceName }, state, ending }: HostTask): TaskReport[] {
    const { driver, attachments, clock, log } = this.#parts;
    ending?.late.cancel();
    driver.withdraw(id);
    attachments.forgetTask(id);
    this.#tasks.delete(id);
    if (hasEnded(state)) return [];
    log.info({ task: id, service: serviceName }, 'task has ended');
    return [{ taskId: id, state: 'SHUTDOWN', error: '', atMs: clock.now() }];
  }

  /** A version that another version of the same reference replaces has the grace; everything else goes now. */
  #wipeUnneeded(tasks: ReadonlyMap<string, AssignedTask>): void {
    const { vault } = this.#parts;
    const references = [...tasks.values()].flatMap((task) => task.references);
    const needed = new Set(references.map(keyOf));
    const secrets = new Set(references.map((r) => r.reference?.secretId));
    for (const key of vault.keys()) {
      if (needed.has(key)) vault.keep(key);
      else if (secrets.has(vault.get(key)?.secretId)) vault.retire(key, agentLimits.graceMs);
      else vault.wipe(key, 'removed');
    }
  }

  /** @returns why a version could not be taken in, by `heldKey`. */
  #takeIn(
    wanted: ReadonlyMap<string, AssignedTask>,
    delivered: ReadonlyMap<string, DeliveredVersion>,
    sessionKey: Plaintext,
  ): Map<string, InroError> {
    const { vault, clusterId, log } = this.#parts;
    const failures = new Map<string, InroError>();
    for (const key of new Set([...wanted.values()].flatMap((task) => task.references).map(keyOf))) {
      const delivery = delivered.get(key);
      if (isHeld(vault.get(key), delivery)) continue;
      try {
        if (delivery === undefined || delivery.ciphertext.length === 0) {
          const why = delivery?.error ?? '';
          throw new InroError(
            'protocol',
            `the manager could not deliver ${key}${why === '' ? '' : `: ${why}`}`,
          );
        }
        vault.put(delivery, clusterId, sessionKey);
      } catch (error) {
        log.error({ err: error, secret: key }, 'a value was not taken in');
        failures.set(key, asInroError(error));
      }
    }
    return failures;
  }

  #bring(assigned: AssignedTask, failures: ReadonlyMap<string, InroError>): TaskReport {
    const { driver, attachments, clock, log } = this.#parts;
    const task: HostTask = this.#tasks.get(assigned.id) ?? {
      assigned,
      state: 'ASSIGNED',
      error: '',
      generation: 0,
      shown: '',
      values: new Map(),
      due: new Map(),
      change: undefined,
      ending: undefined,
      exitCode: undefined,
    };
    // A manager whose store was restored may want what another one has removed.
    task.ending?.late.cancel();
    task.ending = undefined;
    task.assigned = assigned;
    this.#tasks.set(assigned.id, task);
    const report = (): TaskReport => reportOf(task, clock.now());
    if (hasEnded(task.state)) return report();
    try {
      if (assigned.container !== undefined && !this.runsContainers) {
        throw new InroError(
          'not_supported',
          'this node runs no containers: its agent.yaml has no key docker with the socket of an engine',
        );
      }
      for (const reference of assigned.references) {
        const failure = failures.get(keyOf(reference));
        if (failure !== undefined) throw failure;
      }
      const shown = this.#shownBy(assigned);
      if (shown === task.shown) this.#admit(task);
      else {
        const number = task.generation + 1;
        const values = this.#valuesOf(assigned);
        const asked = task.generation === 0 ? [] : askedFor(assigned, task.values, values);
        const due = new Map([...task.due, ...asked.map((action) => [action, number] as const)]);
        const gate = attachments.gateOf(assigned, readersRule(assigned), due);
        const files = assigned.references.map((reference) => this.#fileOf(assigned, reference));
        const { id: taskId, serviceId, serviceName } = assigned;
        for (const reference of assigned.references) this.#parts.vault.use(keyOf(reference), taskId);
        driver.openService(serviceId, serviceName);
        driver.publish({
          taskId,
          serviceId,
          serviceName,
          number,
          graceMs: agentLimits.graceMs,
          files,
          gate,
          note: taskNote(assigned),
        });
        Object.assign(task, { generation: number, shown, values, due });
        log.info(
          { task: taskId, service: serviceName, generation: task.generation, files: files.length },
          'generation published',
        );
      }
      // A container's task runs when the container does.
      if (assigned.container === undefined) task.state = 'RUNNING';
      else if (task.state === 'ASSIGNED') task.state = 'READY';
    } catch (error) {
      task.error = asInroError(error).message;
      task.state = task.state === 'RUNNING' ? 'FAILED' : 'REJECTED';
      task.shown = '';
      driver.withdraw(assigned.id);
      log.error({ task: assigned.id, service: assigned.serviceName, err: error }, 'task failed');
    }
    return report();
  }

  /** @throws not_found for an unknown owner, bad_input for what no manager should send. */
  #fileOf({ serviceName }: AssignedTask, assigned: AssignedReference): PublishedFile {
    const { reference, version } = assigned;
    const held = this.#parts.vault.get(keyOf(assigned));
    if (reference === undefined || held === undefined)
      throw new InroError('protocol', 'a reference without its secret');
    const { target, mode } = checkReference(reference);
    return {
      target,
      source: reference.secretId,
      mode,
      ...ownerIds(reference),
      modifiedMs: held.createdMs,
      mmap: reference.mmap,
      leaseShiftMs: held.leaseShiftMs,
      value: held.value,
      note: heldNote(held),
      about: { serviceName, secretName: reference.secretName, version },
    };
  }

  #shownBy({ serviceName, unit, references }: AssignedTask): string {
    return JSON.stringify([serviceName, unit, references.map((reference) => this.#fingerprint(reference))]);
  }

  /** By target. */
  #valuesOf({ references }: AssignedTask): Map<string, string> {
    return new Map(references.map((each) => [each.reference?.target ?? '', this.#valueOf(each)]));
  }

  #valueOf(assigned: AssignedReference): string {
    const digest = this.#parts.vault.get(keyOf(assigned))?.ciphertextDigest ?? [];
    return `${keyOf(assigned)} ${Buffer.from(digest).toString('hex')}`;
  }

  #fingerprint(assigned: AssignedReference): unknown[] {
    const { reference } = assigned;
    return [
      this.#valueOf(assigned),
      reference?.target,
      reference?.uid,
      reference?.gid,
      reference?.mode,
      reference?.mmap,
    ];
  }

  #liveTasks(): Map<string, AssignedTask> {
    return new Map(
      this.list()
        .filter((task) => !hasEnded(task.state))
        .map(({ assigned }) => [assigned.id, assigned]),
    );
  }
}

/** What is held is taken for what is wanted unless something else comes under its name, as after a restored backup. */
function isHeld(held: HeldVersion | undefined, delivery: DeliveredVersion | undefined): boolean {
  if (held === undefined) return false;
  if (delivery === undefined || delivery.ciphertext.length === 0) return true;
  return Buffer.compare(held.ciphertextDigest, delivery.ciphertextDigest) === 0;
}

/** What a container is run for is the container's from the beginning. */
export function readersRule({ readers, container }: AssignedTask): ReadersRule {
  const rule = readersOf(readers);
  return rule === 'auto' && container !== undefined ? 'attached' : rule;
}

function reportOf({ assigned, state, error, change, exitCode }: HostTask, atMs: number): TaskReport {
  const more = {
    ...(change === undefined ? {} : { change }),
    ...(exitCode === undefined ? {} : { exitCode }),
  };
  return { taskId: assigned.id, state, error, atMs, ...more };
}

function notHere(service: string): InroError {
  return new InroError('not_found', `no task of service ${quoted(service)} is on this node`, {
    remedy: "'inro agent status' shows the tasks of this node, 'inro service ps' those of a service",
  });
}

function keyOf({ reference, version }: AssignedReference): string {
  return heldKey(reference?.secretId ?? '', version);
}
