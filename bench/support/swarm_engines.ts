/** Docker Swarm as it is measured: three engines, one of them the manager, the others with the tasks. */
import { eventually, type Daemon } from '../../test/support/inro.js';
import { Host } from '../../test/support/machine.js';
import { Engine } from './engine.js';
import { family } from './host.js';
import type { Lab } from './lab.js';
import { isFailure, Sightings, type Sighting } from './sightings.js';
import { secretReference, serviceSpec, serviceWords, type SecretUse } from './swarm_service.js';
import { CommandLine, must, wire, type Action, type How, type Order, type System } from './system.js';
import { image, type Workload } from './workload.js';

const names = ['node-1', 'node-2', 'node-3'] as const;
const joinPort = 2377;
const settleMs = 60_000;

interface Service {
  Version: { Index: number };
  Spec: { TaskTemplate: { ContainerSpec: { Secrets: object[] } }; UpdateConfig?: object };
}

export class SwarmEngines implements System {
  readonly name = 'Docker Swarm';
  readonly orders = ['stop-first', 'start-first'] as const;
  readonly sightings: Sightings;
  readonly #engines: ReadonlyMap<string, Engine>;
  readonly #manager: Engine;
  readonly #wires: ReadonlyMap<string, string>;
  readonly #docker: CommandLine;
  readonly #workload: Workload;
  #watchers: Daemon[] = [];
  #secrets: SecretUse[] = [];
  #made = 0;

  private constructor(
    engines: ReadonlyMap<string, Engine>,
    wires: ReadonlyMap<string, string>,
    workload: Workload,
    sightings: Sightings,
  ) {
    this.#engines = engines;
    this.#manager = engines.get(names[0]) as Engine;
    this.#wires = wires;
    this.#workload = workload;
    this.sightings = sightings;
    // No settings of whoever runs this.
    const env = { DOCKER_CONFIG: workload.folder, DOCKER_CONTEXT: undefined };
    this.#docker = new CommandLine(['docker', '-H', `unix://${this.#manager.socket}`], env);
  }

  static async start(lab: Lab, workload: Workload): Promise<SwarmEngines> {
    const hosts = new Map<string, Host>();
    for (const hostname of names) {
      const host = await Host.open({ hostname, ownNetwork: true });
      await lab.endWith(() => host.close());
      hosts.set(hostname, host);
    }
    const wires = await wire(hosts);
    const engines = new Map<string, Engine>();
    for (const [name, host] of hosts) {
      const engine = await Engine.start(host);
      await lab.endWith(() => engine.end());
      await engine.import(image, workload.folder, workload.file);
      engines.set(name, engine);
    }
    const sightings = await Sightings.open(lab, 'swarm');
    const swarm = new SwarmEngines(engines, wires, workload, sightings);
    await swarm.#join();
    return swarm;
  }

  async #join(): Promise<void> {
    const ListenAddr = `0.0.0.0:${joinPort}`;
    await this.#manager.call('POST', '/swarm/init', { ListenAddr, AdvertiseAddr: '10.77.0.1' });
    const { JoinTokens } = await this.#manager.call<{ JoinTokens: { Worker: string } }>('GET', '/swarm');
    for (const [index, engine] of [...this.#engines.values()].entries()) {
      if (engine === this.#manager) continue;
      await engine.call('POST', '/swarm/join', {
        ListenAddr,
        AdvertiseAddr: `10.77.0.${index + 1}`,
        RemoteAddrs: [`10.77.0.1:${joinPort}`],
        JoinToken: JoinTokens.Worker,
      });
    }
    await this.healed();
  }

  /** Of the engine. */
  async version(): Promise<string> {
    return (await this.#manager.call<{ Version: string }>('GET', '/version')).Version;
  }

  startUpMs(): Promise<number> {
    return this.#docker.untilOutputMs(['secret', 'ls']);
  }

  async begin(): Promise<void> {
    await this.end();
  }

  async end(): Promise<void> {
    await this.#manager.call('DELETE', '/services/web').catch(() => undefined);
    await eventually('no container is left', () => this.#isEmpty(), settleMs);
    for (const { id } of this.#secrets) await this.#manager.call('DELETE', `/secrets/${id}`);
    this.#secrets = [];
    await Promise.all(this.#watchers.map((watcher) => watcher.kill9()));
    this.#watchers = [];
  }

  async create(how: How, value: string): Promise<Action> {
    const secret = await this.#keep(value);
    if (how === 'api') {
      const spec = serviceSpec(secret, this.sightings);
      return () => this.#manager.call('POST', '/services/create', spec);
    }
    const args = ['service', 'create', '--detach', '--quiet', '--no-resolve-image', '--name', 'web'];
    return this.#command([...args, ...serviceWords(secret, this.sightings)]);
  }

  async rotate(how: How, value: string, order: Order): Promise<Action> {
    const before = this.#secrets.at(-1) as SecretUse;
    const secret = await this.#keep(value);
    if (how === 'api') {
      const { Version, Spec } = await this.#manager.call<Service>('GET', '/services/web');
      Spec.TaskTemplate.ContainerSpec.Secrets = [secretReference(secret)];
      Spec.UpdateConfig = { ...Spec.UpdateConfig, Order: order };
      return () => this.#manager.call('POST', `/services/web/update?version=${Version.Index}`, Spec);
    }
    const change = ['--secret-rm', before.name, '--secret-add', `source=${secret.name},target=key`];
    const args = ['service', 'update', '--detach', '--quiet', '--no-resolve-image', '--update-order', order];
    return this.#command([...args, ...change, 'web']);
  }

  async remove(how: How): Promise<Action> {
    return how === 'api'
      ? () => this.#manager.call('DELETE', '/services/web')
      : this.#command(['service', 'rm', 'web']);
  }

  async drain(node: string): Promise<Action> {
    return this.#command(['node', 'update', '--availability', 'drain', node]);
  }

  async activate(node: string): Promise<void> {
    await this.#docker.run(['node', 'update', '--availability', 'active', node]);
  }

  async settled(): Promise<void> {
    await eventually(
      'there is one workload',
      async () => {
        const workloads = this.sightings.present.filter(({ what }) => what === 'web');
        return workloads.length === 1 && this.#keptFiles().length === 1;
      },
      settleMs,
    );
  }

  async watch(node: string): Promise<void> {
    const engine = this.#engines.get(node) as Engine;
    for (const file of engine.secretFiles())
      this.#watchers.push(engine.spawn(this.#workload.command('kept', file, this.sightings)));
    await eventually('the look at the tmpfs', async () => this.isThere(node));
  }

  isGone({ what, node, seen }: Sighting, where: string): boolean {
    return what === 'kept' && node === where && isFailure(seen);
  }

  isThere(where: string): boolean {
    return this.sightings.present.some(
      ({ what, node, seen }) => what === 'kept' && node === where && !isFailure(seen),
    );
  }

  async setWire(node: string, state: 'up' | 'down'): Promise<void> {
    await must(this.#manager.host, `ip link set ${this.#wires.get(node)} ${state}`);
  }

  async removeAll(): Promise<void> {
    await this.#manager.call('DELETE', '/services/web');
    for (const { id } of this.#secrets) await this.#manager.call('DELETE', `/secrets/${id}`);
    this.#secrets = [];
  }

  async healed(): Promise<void> {
    const ready = async (): Promise<boolean> => {
      const nodes = await this.#manager.call<{ Status: { State: string } }[]>('GET', '/nodes');
      return nodes.length === names.length && nodes.every(({ Status }) => Status.State === 'ready');
    };
    await eventually('all nodes are ready', ready, settleMs);
  }

  async serveEverywhere(value: string): Promise<void> {
    const secret = await this.#keep(value);
    const args = ['service', 'create', '--detach', '--quiet', '--no-resolve-image', '--name', 'web'];
    await this.#docker.run([...args, '--mode', 'global', ...serviceWords(secret, this.sightings)]);
  }

  daemons(): { manager: number[]; nodes: number[] } {
    const others = [...this.#engines.values()].filter((engine) => engine !== this.#manager);
    return {
      manager: family(this.#manager.pid),
      nodes: others.flatMap(({ pid }) => family(pid)),
    };
  }

  /** By the command, which reads it from its standard input. */
  async #keep(value: string): Promise<SecretUse> {
    const name = `key-${++this.#made}`;
    const id = (await this.#docker.run(['secret', 'create', name, '-'], value)).trim();
    this.#secrets.push({ id, name });
    return { id, name };
  }

  #command(args: readonly string[]): Action {
    return async () => void (await this.#docker.run(args));
  }

  #keptFiles(): string[] {
    return [...this.#engines.values()].flatMap((engine) => engine.secretFiles());
  }

  async #isEmpty(): Promise<boolean> {
    const all = await Promise.all([...this.#engines.values()].map((engine) => engine.isEmpty()));
    return all.every(Boolean);
  }
}
