/**
 * Runs the containers of tasks: one for each, from when its files are shown to its end, which is the task's. What should be is taken from
 * the tasks whenever they change; what is, from the engine, by a label: so a successor goes on with what runs.
 */
import { join } from 'node:path';
import type { Logger } from 'pino';
import { secretsFolder, stopGraceMs } from '../../model/container.js';
import type { Clock } from '../../model/clock.js';
import { asInroError } from '../../model/error.js';
import type { AssignedTask } from '../../proto/gen/inro/v1/dispatcher_pb.js';
import type { HostTask, HostTasks } from '../host_tasks.js';
import type { Engine } from './engine.js';

export interface RunnerParts {
  engine: Engine;
  tasks: HostTasks;
  mountPath: string;
  clock: Clock;
  log: Logger;
}

const label = { task: 'inro.task', service: 'inro.service', slot: 'inro.slot' } as const;
const retryMs = 1_000;

interface End {
  /** '' if well. */
  words: string;
  exitCode?: number;
}

export class ContainerRunner {
  readonly #parts: RunnerParts;
  /** By task: the container that runs for it. */
  readonly #containers = new Map<string, string>();
  /** By task. */
  readonly #runs = new Map<string, { over: AbortController; ended: Promise<void> }>();
  /** Containers that end to begin again: their end is not the task's. */
  readonly #restarting = new Map<string, Promise<void>>();
  #left = false;

  constructor(parts: RunnerParts) {
    this.#parts = parts;
  }

  /** To be called whenever tasks have changed. */
  reconcile(): void {
    if (this.#left) return;
    const { tasks } = this.#parts;
    const live = new Map(tasks.list().map((task) => [task.assigned.id, task]));
    for (const [id, { over }] of this.#runs) if (!isToRun(live.get(id))) over.abort();
    for (const [id, task] of live) {
      if (this.#runs.has(id)) continue;
      const over = new AbortController();
      if (isToRun(task)) this.#keep(id, over, this.#run(task, over.signal));
      else if (task.ending !== undefined) this.#keep(id, over, this.#endAll(task.assigned));
    }
  }

  #keep(taskId: string, over: AbortController, run: Promise<void>): void {
    const ended = run.finally(() => {
      this.#runs.delete(taskId);
      this.#parts.tasks.containerGone(taskId);
      this.reconcile(); // it may be wanted again
    });
    this.#runs.set(taskId, { over, ended });
  }

  /** What a former agent has run for a task that is removed. */
  async #endAll(task: AssignedTask): Promise<void> {
    const { engine, log } = this.#parts;
    try {
      for (const { id } of await engine.containersLabelled(label.task, task.id)) await this.#end(task, id);
    } catch (error) {
      log.error({ err: error, task: task.id }, 'its container could not be ended');
    }
  }

  /** In its place: the task goes on. @throws what the engine says. */
  async restart(containerId: string): Promise<void> {
    const { engine, tasks } = this.#parts;
    const own = tasks.list().find(({ assigned }) => this.#containers.get(assigned.id) === containerId);
    const restarting = engine.restart(containerId, own === undefined ? undefined : graceOf(own.assigned));
    this.#restarting.set(
      containerId,
      restarting.catch(() => undefined), // the caller hears of it, and who waits looks for itself
    );
    try {
      await restarting;
    } finally {
      this.#restarting.delete(containerId);
    }
  }

  /** Ends all containers. */
  async stop(): Promise<void> {
    const runs = [...this.#runs.values()];
    this.#left = true;
    for (const { over } of runs) over.abort();
    await Promise.all(runs.map(({ ended }) => ended));
  }

  /** Leaves them to a successor. */
  leave(): void {
    this.#left = true;
  }

  async #run({ assigned, state }: HostTask, signal: AbortSignal): Promise<void> {
    const { engine, tasks, log } = this.#parts;
    const { id: taskId, serviceName } = assigned;
    const about = { task: taskId, service: serviceName };
    let containerId = '';
    try {
      containerId =
        (await this.#existing(taskId, state === 'RUNNING')) ?? (await this.#create(assigned, signal));
      this.#containers.set(taskId, containerId);
      this.#attach(assigned, containerId);
      if (signal.aborted) return;
      await engine.start(containerId);
      if (signal.aborted) return;
      tasks.report(taskId, 'RUNNING', '');
      log.info({ ...about, container: containerId.slice(0, 12) }, 'container runs');
      const end = await this.#untilEnd(containerId, signal);
      if (end === undefined || this.#left) return;
      const { words, exitCode } = end;
      tasks.report(taskId, words === '' ? 'COMPLETE' : 'FAILED', words, exitCode);
      log.info({ ...about, error: words, exitCode }, 'container has ended');
    } catch (thrown) {
      if (signal.aborted || this.#left) return;
      const error = asInroError(thrown);
      log.error({ ...about, err: error }, 'a container could not be run');
      tasks.report(taskId, 'REJECTED', error.message);
    } finally {
      this.#containers.delete(taskId);
      if (containerId !== '' && !(this.#left && !signal.aborted)) await this.#end(assigned, containerId);
    }
  }

  /** One that a former agent started. What it mounted is there no more, unless this agent went on with the mount. */
  async #existing(taskId: string, isInherited: boolean): Promise<string | undefined> {
    const { engine } = this.#parts;
    const found = await engine.containersLabelled(label.task, taskId);
    const [first] = isInherited ? found : [];
    for (const { id } of found) if (id !== first?.id) await engine.remove(id);
    return first?.id;
  }

  async #create(task: AssignedTask, signal: AbortSignal): Promise<string> {
    const { engine, mountPath } = this.#parts;
    const { id, serviceName, slot, container: spec } = task;
    if (spec === undefined) return '';
    if (!(await engine.hasImage(spec.image))) await engine.pull(spec.image, signal);
    return engine.create(`${serviceName}.${slot}.${id}`, {
      Image: spec.image,
      ...(spec.args.length === 0 ? {} : { Cmd: spec.args }),
      Env: spec.env,
      Labels: { ...spec.labels, [label.task]: id, [label.service]: serviceName, [label.slot]: String(slot) },
      User: spec.user,
      WorkingDir: spec.workingDirectory,
      ...(spec.stopSignal === '' ? {} : { StopSignal: spec.stopSignal }),
      StopTimeout: Math.ceil(graceOf(task) / 1000),
      HostConfig: {
        Mounts: [
          { Type: 'bind', Source: join(mountPath, '.task', id), Target: secretsFolder, ReadOnly: true },
          ...spec.mounts.map(({ type, source, target, readOnly }) => ({
            Type: type,
            ...(type === 'volume' ? { Source: source } : {}),
            Target: target,
            ReadOnly: readOnly,
          })),
        ],
        ReadonlyRootfs: spec.readOnly,
        ...(spec.network === '' ? {} : { NetworkMode: spec.network }),
        RestartPolicy: { Name: 'no' },
      },
    });
  }

  /** Before it has a process: its first one may read. */
  #attach({ id: taskId, serviceId, serviceName, slot }: AssignedTask, containerId: string): void {
    const { tasks } = this.#parts;
    const cgroup = { cgroup: 0, path: containerId };
    const workload = { kind: 'container', name: `${serviceName}.${slot}`, cgroup } as const;
    if (!tasks.isAttached(attachmentOf(taskId)))
      tasks.attach(serviceId, workload, { id: attachmentOf(taskId), taskId });
  }

  /** How it ended; undefined when that is not to be waited for any more. Survives a restart of the engine. */
  async #untilEnd(containerId: string, signal: AbortSignal): Promise<End | undefined> {
    const { engine, clock } = this.#parts;
    while (!signal.aborted && !this.#left) {
      try {
        await this.#restarting.get(containerId);
        const { state, ...end } = await engine.inspect(containerId);
        if (this.#restarting.has(containerId)) continue; // begun meanwhile
        if (/^(exited|stopped|dead)$/.test(state)) return { words: wordsOf(end), exitCode: end.exitCode }; // stopped: Podman has not cleaned up yet
        await engine.wait(containerId, signal);
      } catch (error) {
        if (asInroError(error).code === 'not_found') return { words: 'the container was removed' };
        await clock.sleep(retryMs, signal);
      }
    }
    return undefined;
  }

  async #end(task: AssignedTask, containerId: string): Promise<void> {
    const { engine, tasks, log } = this.#parts;
    try {
      await engine.stop(containerId, graceOf(task));
      await engine.remove(containerId);
    } catch (error) {
      if (asInroError(error).code !== 'not_found')
        log.error({ err: error, container: containerId.slice(0, 12) }, 'a container could not be ended');
    }
    tasks.detach(attachmentOf(task.id));
  }
}

function isToRun(task: HostTask | undefined): boolean {
  if (task?.assigned.container === undefined || task.ending !== undefined) return false;
  return task.state === 'READY' || task.state === 'RUNNING';
}

function attachmentOf(taskId: string): string {
  return `task/${taskId}`;
}

function graceOf({ container }: AssignedTask): number {
  return stopGraceMs(container);
}

function wordsOf({
  exitCode,
  outOfMemory,
  error,
}: {
  exitCode: number;
  outOfMemory: boolean;
  error: string;
}): string {
  if (outOfMemory) return 'the container was killed: out of memory';
  if (error !== '') return error;
  return exitCode === 0 ? '' : `exit code ${exitCode}`;
}
