/**
 * Services as volumes of a container engine: a container that mounts the volume of a service is attached to it while it runs.
 *
 * The engine's Mount call names no container, so the engine is asked which containers name the volume. Those that are about to begin
 * pass by their id, before they have a process (native/core/gate.cc); others pass while they run.
 */
import { join } from 'node:path';
import type { Logger } from 'pino';
import { z } from 'zod';
import type { Clock } from '../../model/clock.js';
import { asInroError, InroError } from '../../model/error.js';
import { checkName, quoted } from '../../model/name.js';
import { addon } from '../../system/addon.js';
import { parseFile, readFileIfThere, replaceFile } from '../../system/files.js';
import type { HostTasks } from '../host_tasks.js';
import type { Attachments } from '../workloads/attachments.js';
import type { Engine, ListedContainer } from './engine.js';
import type { PluginHandlers, PluginRequest } from './plugin_server.js';

export interface DockerVolumesParts {
  engine: Engine;
  tasks: HostTasks;
  attachments: Attachments;
  mountPath: string;
  /** Keeps which volumes there are: engines remember theirs, and ask for them after any restart. */
  file: string;
  clock: Clock;
  log: Logger;
}

/** What engines know the plugin by: the name of its socket. */
const pluginName = 'inro';

const kept = z.strictObject({
  volumes: z.record(z.string(), z.strictObject({ service: z.string(), createdAt: z.iso.datetime() })),
});

/** How long a container may take from its volume's mount to its first process; an engine gives up after two minutes. */
const startMs = 120_000;
const lookEveryMs = 5_000;
const retryMs = 1_000;
const isAlive = ({ state }: ListedContainer): boolean => ['running', 'paused', 'restarting'].includes(state);
const mayBegin = ({ state }: ListedContainer): boolean => ['created', 'exited'].includes(state);

export class DockerVolumes {
  readonly #parts: DockerVolumesParts;
  readonly #volumes: Map<string, { service: string; createdAt: string }>;
  /** By volume: until when containers that name it may begin. */
  readonly #startingUntilMs = new Map<string, number>();
  readonly #locating = new Set<string>();
  #looking: Promise<void> = Promise.resolve();

  /** @throws state_unusable */
  constructor(parts: DockerVolumesParts) {
    this.#parts = parts;
    const text = readFileIfThere(parts.file);
    const read = (): z.infer<typeof kept> => kept.parse(JSON.parse(text as string));
    const remedy = 'remove it; volumes of containers that exist then have to be created anew';
    this.#volumes = new Map(
      Object.entries(text === undefined ? {} : parseFile(parts.file, text, read, remedy).volumes),
    );
  }

  get handlers(): PluginHandlers {
    return {
      Capabilities: async () => ({ Capabilities: { Scope: 'local' } }),
      Create: async (request) => this.#create(request),
      Get: async ({ Name }) => ({ Volume: this.#shown(Name) }),
      List: async () => ({ Volumes: [...this.#volumes.keys()].map((name) => this.#shown(name)) }),
      Path: async ({ Name }) => ({ Mountpoint: this.#path(this.#known(Name).service) }),
      Remove: async ({ Name }) => {
        this.#known(Name);
        this.#volumes.delete(Name);
        this.#keep();
        return {};
      },
      Mount: (request) => this.#mount(request),
      Unmount: async () => {
        // The container has ended, whichever it was.
        await this.#look().catch((error: unknown) =>
          this.#parts.log.warn({ err: error }, 'containers cannot be listed'),
        );
        return {};
      },
    };
  }

  /** Keeps up with containers that begin and end. */
  async run(signal: AbortSignal): Promise<void> {
    const { engine, clock, log } = this.#parts;
    let isSaid = false;
    while (!signal.aborted) {
      try {
        // Nobody is asked before anything can come of it: most hosts have no engine.
        if (this.#volumes.size === 0) {
          await clock.sleep(lookEveryMs, signal);
          continue;
        }
        await this.#look();
        await this.#follow(engine, signal);
        isSaid = false;
      } catch (error) {
        if (signal.aborted) return;
        if (!isSaid)
          log.warn(
            { err: asInroError(error) },
            'what containers do is not known until the engine answers again',
          );
        isSaid = true;
        await clock.sleep(retryMs, signal);
      }
    }
  }

  async #follow(engine: Engine, signal: AbortSignal): Promise<void> {
    const over = new AbortController();
    const end = (): void => over.abort();
    signal.addEventListener('abort', end, { once: true });
    const looking = (async () => {
      // A task that came after its container.
      for (;;) {
        await this.#parts.clock.sleep(lookEveryMs, over.signal);
        if (over.signal.aborted) return;
        await this.#look();
      }
    })();
    try {
      const following = (async () => {
        for await (const { action } of engine.events(over.signal))
          if (/^(start|die|destroy|unpause|rename)$/.test(action)) await this.#look();
      })();
      await Promise.race([following, looking]);
    } finally {
      signal.removeEventListener('abort', end);
      over.abort();
      await looking.catch(() => undefined);
    }
  }

  #create({ Name, Opts }: PluginRequest): object {
    const unknown = Object.keys(Opts).find((key) => key !== 'service');
    if (unknown !== undefined)
      throw new InroError('bad_input', `there is no volume option ${quoted(unknown)}`, {
        remedy: 'the only one is service=NAME, where the volume has another name than the service',
      });
    const service = checkName('service', Opts['service'] ?? Name);
    const known = this.#volumes.get(Name);
    if (known !== undefined && known.service !== service)
      throw new InroError('already_exists', `volume ${quoted(Name)} is of service ${quoted(known.service)}`, {
        remedy: `remove it first: docker volume rm ${Name}`,
      });
    if (known === undefined) {
      this.#volumes.set(Name, { service, createdAt: new Date(this.#parts.clock.now()).toISOString() });
      this.#keep();
    }
    return {};
  }

  async #mount({ Name }: PluginRequest): Promise<object> {
    const { tasks, clock } = this.#parts;
    const { service } = this.#known(Name);
    tasks.ofService(service); // throws where there is none
    this.#startingUntilMs.set(Name, clock.now() + startMs);
    await this.#look();
    return { Mountpoint: this.#path(service) };
  }

  /** One after the other: each sees what the one before did. @throws unreachable, protocol. */
  #look(): Promise<void> {
    const next = this.#looking.catch(() => undefined).then(() => this.#compare());
    this.#looking = next;
    return next;
  }

  async #compare(): Promise<void> {
    const { engine, tasks, attachments, clock, log } = this.#parts;
    const listed = await engine.containersWithVolumes(pluginName);
    const wanted = new Map<string, { service: string; container: ListedContainer }>();
    for (const container of listed) {
      for (const volume of container.volumes) {
        const service = this.#volumes.get(volume)?.service;
        const isStarting = clock.now() < (this.#startingUntilMs.get(volume) ?? 0);
        if (service !== undefined && (isAlive(container) || (isStarting && mayBegin(container))))
          wanted.set(`${pluginName}/${volume}/${container.id}`, { service, container });
      }
    }
    for (const { id, kind } of attachments.list())
      if (kind === 'container' && id.startsWith(`${pluginName}/`) && !wanted.has(id)) tasks.detach(id);
    for (const [id, { service, container }] of wanted) {
      try {
        if (attachments.get(id) === undefined)
          tasks.attach(service, { kind: 'container', name: container.name, cgroup: byId(container) }, { id });
        if (container.state === 'running' && attachments.get(id)?.cgroup?.cgroup === 0)
          void this.#locate(id, container);
      } catch (error) {
        if (asInroError(error).code !== 'not_found')
          log.error({ err: error, container: container.name, service }, 'a container was not attached');
      }
    }
  }

  /**
   * Once it runs its cgroup is known, and when that is empty it has ended, whoever ended it. Nothing waits for this: the engine
   * tells no process of a container that it is ending, for which it may be waiting for us.
   */
  async #locate(attachmentId: string, { id, name }: ListedContainer): Promise<void> {
    const { engine, tasks, log } = this.#parts;
    if (this.#locating.has(id)) return;
    this.#locating.add(id);
    try {
      const pid = await engine.pidOf(id);
      const process = pid === 0 ? null : addon().processOf(pid);
      // Somebody else may have its number by now: the path says whose it is.
      if (process === null || process.cgroup === 0 || !process.cgroupPath.includes(id)) return;
      tasks.locate(attachmentId, { cgroup: process.cgroup, path: process.cgroupPath });
    } catch (error) {
      log.debug({ err: error, container: name }, 'the cgroup of a container is not known yet');
    } finally {
      this.#locating.delete(id);
    }
  }

  #known(name: string): { service: string; createdAt: string } {
    const volume = this.#volumes.get(name);
    if (volume === undefined) throw new InroError('not_found', `there is no volume ${quoted(name)}`);
    return volume;
  }

  #shown(name: string): object {
    const { service, createdAt } = this.#known(name);
    return { Name: name, Mountpoint: this.#path(service), CreatedAt: createdAt, Status: { service } };
  }

  #path(service: string): string {
    return join(this.#parts.mountPath, service);
  }

  #keep(): void {
    replaceFile(
      this.#parts.file,
      `${JSON.stringify({ volumes: Object.fromEntries(this.#volumes) })}\n`,
      0o600,
    );
  }
}

/** By its id alone: it may have no cgroup yet. */
function byId({ id }: ListedContainer): { cgroup: number; path: string } {
  return { cgroup: 0, path: id };
}
