/**
 * Services as volumes of a container engine: a container that mounts the volume of a service is attached to it while it runs.
 *
 * The engine's Mount call names no container, so Docker is asked which containers name the volume. Those that are about to begin
 * pass by their id, before they have a process (native/core/gate.cc); others pass while they run. Podman has a hook (oci_hook.ts).
 */
import { join } from 'node:path';
import type { Logger } from 'pino';
import { z } from 'zod';
import type { Clock } from '../../model/clock.js';
import { asInroError, InroError } from '../../model/error.js';
import { checkName, quoted } from '../../model/name.js';
import { parseFile, readFileIfThere, replaceFile } from '../../system/files.js';
import type { HostTasks } from '../host_tasks.js';
import type { Attachments } from '../workloads/attachments.js';
import type { Engine, ListedContainer } from './engine.js';
import { hookCommand, isHookInstalled } from './oci_hook.js';
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
const restartMs = 2_000;
const lookEveryMs = 5_000;
const retryMs = 1_000;
/** After the first volume was made. */
const firstLookMs = 250;
const isAlive = ({ state }: ListedContainer): boolean => ['running', 'paused', 'restarting'].includes(state);

export class DockerVolumes {
  readonly #parts: DockerVolumesParts;
  readonly #volumes: Map<string, { service: string; createdAt: string }>;
  /** By volume: when it was mounted last, ms since 1970. The container that it was mounted for may not have begun yet. */
  readonly #mountedMs = new Map<string, number>();
  /** By container, until it is removed: when it ended last, ms since 1970, by the same host's clock. */
  readonly #endedMs = new Map<string, number>();
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
          await clock.sleep(firstLookMs, signal);
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
        for await (const { action, containerId, atMs } of engine.events(over.signal)) {
          if (action === 'die') this.#endedMs.set(containerId, atMs);
          if (action === 'destroy') this.#endedMs.delete(containerId);
          if (/^(start|die|destroy|unpause|rename)$/.test(action)) await this.#look();
        }
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
    const { engine, tasks, clock } = this.#parts;
    const { service } = this.#known(Name);
    tasks.ofService(service); // throws where there is none
    if (await engine.isPodman()) {
      // Its hook attaches the container, a moment from now.
      if (isHookInstalled()) return { Mountpoint: this.#path(service) };
      throw new InroError(
        'not_supported',
        'Podman does not run the hook that says which container a volume is for',
        {
          remedy: `inro agent ${hookCommand} --print > /usr/share/containers/oci/hooks.d/inro.json`,
        },
      );
    }
    this.#mountedMs.set(Name, clock.now());
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
    const { engine, tasks, attachments, log } = this.#parts;
    const listed = await engine.containersWithVolumes(pluginName);
    const wanted = new Map<string, { service: string; container: ListedContainer }>();
    for (const container of listed) {
      for (const volume of container.volumes) {
        const service = this.#volumes.get(volume)?.service;
        if (service !== undefined && (isAlive(container) || this.#mayBegin(container, volume)))
          wanted.set(`${pluginName}/${volume}/${container.id}`, { service, container });
      }
    }
    for (const { id, kind } of attachments.list())
      if (kind === 'container' && id.startsWith(`${pluginName}/`) && !wanted.has(id)) tasks.detach(id);
    for (const [id, { service, container }] of wanted) {
      try {
        if (attachments.get(id) === undefined && !this.#isAttachedByHook(service, container))
          tasks.attach(service, { kind: 'container', name: container.name, cgroup: byId(container) }, { id });
      } catch (error) {
        if (asInroError(error).code !== 'not_found')
          log.error({ err: error, container: container.name, service }, 'a container was not attached');
      }
    }
  }

  /** In its own cgroup, whose path has the container's id in it; that attachment ends with the cgroup. */
  #isAttachedByHook(service: string, { id }: ListedContainer): boolean {
    const { attachments, tasks } = this.#parts;
    const { assigned } = tasks.ofService(service);
    return attachments
      .ofTask(assigned)
      .some(({ cgroup }) => cgroup !== undefined && cgroup.cgroup !== 0 && cgroup.path.includes(id));
  }

  /** It does not run, and the volume was mounted lately, after its end: that may have been for it. */
  #mayBegin({ id, state }: ListedContainer, volume: string): boolean {
    const mountedMs = this.#mountedMs.get(volume) ?? -Infinity;
    const endedMs = this.#endedMs.get(id) ?? -Infinity;
    const agoMs = this.#parts.clock.now() - mountedMs;
    // In a restart the engine may tell the end a moment after it has asked for the mount.
    const isAfter = mountedMs >= endedMs || (endedMs - mountedMs < restartMs && agoMs < 5 * restartMs);
    return /^(created|exited)$/.test(state) && isAfter && agoMs < startMs;
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

/** By its id: that is its own for all its life, and before it has a process. */
function byId({ id }: ListedContainer): { cgroup: number; path: string } {
  return { cgroup: 0, path: id };
}
