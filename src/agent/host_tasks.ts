/**
 * This node's tasks and their files. Takes whole assignments and applies them in one order: removals and
 * wipes first (always, even when nothing else fits), then new values, then each task's new generation.
 */
import type { Logger } from 'pino';
import type { Plaintext } from '../crypto/plaintext.js';
import type { Clock } from '../model/clock.js';
import { asInroError, InroError } from '../model/error.js';
import { checkReference } from '../model/reference.js';
import { hasEnded, type TaskState } from '../model/task.js';
import type {
  AssignedReference,
  AssignedTask,
  DeliveredVersion,
} from '../proto/gen/inro/v1/dispatcher_pb.js';
import { agentLimits } from './limits.js';
import { heldNote, readHeldNote, readTaskNote, taskNote } from './inheritance_notes.js';
import type { MountDriver, PublishedFile } from './mount/driver.js';
import type { Inheritance } from './mount/inheritance.js';
import { ownerIds } from './owner.js';
import { heldKey, type HeldVersion, type Vault } from './vault.js';

export interface HostTask {
  assigned: AssignedTask;
  state: TaskState;
  error: string;
  generation: number;
  /** What the current generation shows, to see whether a new one is needed; empty when nothing is published. */
  shown: string;
}

export interface TaskReport {
  taskId: string;
  state: TaskState;
  error: string;
  atMs: number;
}

export interface HostTasksParts {
  vault: Vault;
  driver: MountDriver;
  clock: Clock;
  log: Logger;
  clusterId: string;
}

export class HostTasks {
  readonly #parts: HostTasksParts;
  readonly #tasks = new Map<string, HostTask>();
  #stopped = false;

  constructor(parts: HostTasksParts) {
    this.#parts = parts;
  }

  list(): HostTask[] {
    return [...this.#tasks.values()];
  }

  /** Goes on where a predecessor was: values by what was noted beside them, tasks as they were published last. */
  inherit({ generations, values }: Inheritance): void {
    const { vault, driver, clock } = this.#parts;
    for (const { value, note, modifiedMs, readableUntilMs } of values) {
      const { secretId, version, ciphertextDigest } = readHeldNote(note);
      if (secretId === '') {
        value.wipe(); // of what secret, nobody knows
        continue;
      }
      const held = { secretId, version, ciphertextDigest, createdMs: modifiedMs, value };
      const isCurrent = readableUntilMs === Infinity;
      vault.inherit(held, isCurrent ? undefined : Math.max(0, readableUntilMs - clock.boottimeMs()));
    }
    for (const { taskId, number, note } of generations) {
      const assigned = readTaskNote(note);
      if (assigned?.id !== taskId) {
        driver.withdraw(taskId); // nobody would ever take it away: what is not known cannot be missed
        continue;
      }
      this.#tasks.set(taskId, {
        assigned,
        state: 'RUNNING',
        error: '',
        generation: number,
        shown: this.#shownBy(assigned),
      });
    }
  }

  /** Changes nothing any more, without wiping: what is here is a successor's. */
  letGo(): void {
    this.#stopped = true;
    this.#parts.vault.letGo();
  }

  /**
   * Brings the host to exactly these tasks.
   * @param delivered new versions by `heldKey`.
   * @returns each task whose state the manager should hear.
   */
  apply(
    wanted: ReadonlyMap<string, AssignedTask>,
    delivered: ReadonlyMap<string, DeliveredVersion>,
    sessionKey: Plaintext,
  ): TaskReport[] {
    const reports = this.#removeGone(wanted);
    this.#wipeUnneeded(wanted);
    const failures = this.#takeIn(wanted, delivered, sessionKey);
    for (const task of wanted.values()) reports.push(this.#bring(task, failures));
    this.#wipeUnneeded(this.#liveTasks()); // what only failed tasks wanted
    return reports;
  }

  /** True once the agent is stopping: no assignment is to be applied any more. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** Wipes at once, without a grace, whoever still uses it: its files fail until a generation without them is published. */
  revoke(secretId: string, version: number): void {
    this.#parts.vault.wipe(heldKey(secretId, version), 'revoked');
  }

  /** Withdraws and wipes everything; tasks that have not ended come back with the next complete assignment, unless stopped. */
  wipeAll(reason: 'lease' | 'stopped' | 'removed'): void {
    this.#stopped ||= reason === 'stopped';
    for (const task of this.#tasks.values()) {
      this.#parts.driver.withdraw(task.assigned.id);
      task.shown = '';
    }
    this.#parts.vault.wipeAll(reason);
  }

  #removeGone(wanted: ReadonlyMap<string, AssignedTask>): TaskReport[] {
    const reports: TaskReport[] = [];
    for (const [id, task] of this.#tasks) {
      if (wanted.has(id)) continue;
      this.#parts.driver.withdraw(id);
      this.#tasks.delete(id);
      if (hasEnded(task.state)) continue;
      this.#parts.log.info({ task: id, service: task.assigned.serviceName }, 'task has ended');
      reports.push({ taskId: id, state: 'SHUTDOWN', error: '', atMs: this.#parts.clock.now() });
    }
    return reports;
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
    const { driver, clock, log } = this.#parts;
    const task = this.#tasks.get(assigned.id) ?? {
      assigned,
      state: 'ASSIGNED' as TaskState,
      error: '',
      generation: 0,
      shown: '',
    };
    task.assigned = assigned;
    this.#tasks.set(assigned.id, task);
    const report = (): TaskReport => ({
      taskId: assigned.id,
      state: task.state,
      error: task.error,
      atMs: clock.now(),
    });
    if (hasEnded(task.state)) return report();
    try {
      for (const reference of assigned.references) {
        const failure = failures.get(keyOf(reference));
        if (failure !== undefined) throw failure;
      }
      const shown = this.#shownBy(assigned);
      if (shown !== task.shown) {
        const files = assigned.references.map((reference) => this.#fileOf(reference));
        const { id: taskId, serviceId, serviceName } = assigned;
        driver.openService(serviceId, serviceName);
        driver.publish({
          taskId,
          serviceId,
          serviceName,
          number: task.generation + 1,
          graceMs: agentLimits.graceMs,
          files,
          note: taskNote(assigned),
        });
        task.generation += 1;
        task.shown = shown;
        log.info(
          { task: taskId, service: serviceName, generation: task.generation, files: files.length },
          'generation published',
        );
      }
      task.state = 'RUNNING';
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
  #fileOf(assigned: AssignedReference): PublishedFile {
    const { reference } = assigned;
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
      value: held.value,
      note: heldNote(held),
    };
  }

  #shownBy({ serviceName, references }: AssignedTask): string {
    return JSON.stringify([serviceName, references.map((reference) => this.#fingerprint(reference))]);
  }

  #fingerprint(assigned: AssignedReference): unknown[] {
    const { reference, version } = assigned;
    const digest = Buffer.from(this.#parts.vault.get(keyOf(assigned))?.ciphertextDigest ?? []).toString(
      'hex',
    );
    return [
      reference?.secretId,
      version,
      digest,
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

function keyOf({ reference, version }: AssignedReference): string {
  return heldKey(reference?.secretId ?? '', version);
}
