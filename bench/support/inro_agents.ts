/** inro as it is measured beside a Swarm: a manager and three agents, and on each node a workload that waits for its secret. */
import { connectUnix, call, type Connection } from '../../src/rpc/client.js';
import { Control } from '../../src/proto/gen/inro/v1/control_pb.js';
import { eventually, program, type Daemon } from '../../test/support/inro.js';
import { Host } from '../../test/support/machine.js';
import { family } from './host.js';
import type { Lab } from './lab.js';
import { SealedSecret } from './sealed_secret.js';
import { isFailure, Sightings, type Sighting } from './sightings.js';
import { CommandLine, must, wire, type Action, type How, type System } from './system.js';
import type { Workload } from './workload.js';

const nodeNames = ['node-1', 'node-2', 'node-3'] as const;
const managerAddress = '10.77.0.1:4747';
const file = '/run/inro/secrets/web/key';
const settleMs = 60_000;

export class InroAgents implements System {
  readonly name = 'inro';
  // It changes what the workload has: neither is stopped.
  readonly orders = ['start-first'] as const;
  readonly sightings: Sightings;
  readonly #manager: Host;
  readonly #managerPid: number;
  readonly #nodes = new Map<string, { host: Host; agent: Daemon }>();
  readonly #wires: ReadonlyMap<string, string>;
  readonly #inro: CommandLine;
  readonly #operator: Connection;
  readonly #workload: Workload;
  #readers: Daemon[] = [];
  #secret: SealedSecret | undefined;
  #hasSecret = false;
  #hasService = false;
  /** Of the secrets that are made from now on: `10s`. */
  lease: string | undefined;

  private constructor(
    manager: Host,
    managerPid: number,
    wires: ReadonlyMap<string, string>,
    workload: Workload,
    sightings: Sightings,
  ) {
    this.#manager = manager;
    this.#managerPid = managerPid;
    this.#wires = wires;
    this.#workload = workload;
    this.sightings = sightings;
    const socket = manager.outside('/run/inro/manager.sock');
    const env = { INRO_MANAGER: `unix:${socket}`, INRO_IDENTITY: undefined };
    this.#inro = new CommandLine([process.execPath, program], env);
    this.#operator = connectUnix(socket, 'the manager');
  }

  static async start(lab: Lab, workload: Workload): Promise<InroAgents> {
    const hosts = new Map<string, Host>();
    for (const hostname of ['manager', ...nodeNames]) {
      const host = await Host.open({ hostname, ownNetwork: true });
      await lab.endWith(() => host.close());
      hosts.set(hostname, host);
    }
    const wires = await wire(hosts);
    const manager = hosts.get('manager') as Host;
    const { daemon } = await manager.startManager({ listen: '0.0.0.0:4747' });
    const sightings = await Sightings.open(lab, 'inro');
    const agents = new InroAgents(manager, daemon.pid, wires, workload, sightings);
    await lab.endWith(async () => agents.#operator.close());
    const token = await manager.ask(['token', 'show', 'worker']);
    for (const name of nodeNames) {
      const host = hosts.get(name) as Host;
      await host.join(token, managerAddress);
      agents.#nodes.set(name, { host, agent: await host.startAgent() });
    }
    return agents;
  }

  startUpMs(): Promise<number> {
    return this.#inro.untilOutputMs(['secret', 'ls']);
  }

  async begin(): Promise<void> {
    await this.end();
    for (const { host } of this.#nodes.values())
      this.#readers.push(host.spawn(this.#workload.command('web', file, this.sightings)));
    await eventually('the workloads', async () => this.#workloads.length === nodeNames.length);
  }

  async end(): Promise<void> {
    if (this.#hasService) await this.#inro.run(['service', 'rm', 'web']);
    if (this.#hasSecret) await this.#inro.run(['secret', 'rm', 'key']);
    this.#hasService = this.#hasSecret = false;
    await Promise.all(this.#readers.map((reader) => reader.kill9()));
    this.#readers = [];
    await eventually('the workloads have ended', async () => this.#workloads.length === 0);
  }

  async create(how: How, value: string): Promise<Action> {
    this.#hasSecret = this.#hasService = true;
    if (how === 'api') {
      this.#secret = await SealedSecret.create(this.#operator, 'key', Buffer.from(value));
      const service = { name: 'web', replicas: 1, references: [this.#secret.reference] };
      return async () => void (await call(this.#operator, Control, 'createService', service));
    }
    await this.#keep(value);
    return this.#command(['service', 'create', '--name', 'web', '--secret', 'key']);
  }

  async rotate(how: How, value: string): Promise<Action> {
    if (how === 'api') {
      const secret = this.#secret as SealedSecret;
      return () => secret.update(this.#operator, Buffer.from(value));
    }
    return this.#command(['secret', 'update', 'key', '-'], value);
  }

  async remove(how: How): Promise<Action> {
    this.#hasService = false;
    return how === 'api'
      ? async () => void (await call(this.#operator, Control, 'removeService', { name: 'web' }))
      : this.#command(['service', 'rm', 'web']);
  }

  async drain(node: string): Promise<Action> {
    return this.#command(['node', 'update', '--availability', 'drain', node]);
  }

  async activate(node: string): Promise<void> {
    await this.#inro.run(['node', 'update', '--availability', 'active', node]);
  }

  async settled(): Promise<void> {
    await eventually(
      'one node has it',
      async () => this.#workloads.filter(({ seen }) => !isFailure(seen)).length === 1,
      settleMs,
    );
  }

  /** Its workload stays, and looks. */
  async watch(): Promise<void> {
    await this.settled();
  }

  isGone({ what, node, seen }: Sighting, where: string): boolean {
    return what === 'web' && node === where && isFailure(seen);
  }

  isThere(where: string): boolean {
    return this.#workloads.some(({ node, seen }) => node === where && !isFailure(seen));
  }

  async setWire(node: string, state: 'up' | 'down'): Promise<void> {
    await must(this.#manager, `ip link set ${this.#wires.get(node)} ${state}`);
  }

  async removeAll(): Promise<void> {
    await this.#inro.run(['service', 'rm', '--detach', 'web']);
    await this.#inro.run(['secret', 'rm', 'key']);
    this.#hasService = this.#hasSecret = false;
  }

  async healed(): Promise<void> {
    const ready = async (): Promise<boolean> => {
      const nodes = JSON.parse(await this.#inro.run(['node', 'ls', '--json'])) as { status: string }[];
      return nodes.every(({ status }) => status === 'ready');
    };
    await eventually('all nodes are ready', ready, settleMs);
  }

  async serveEverywhere(value: string): Promise<void> {
    await this.#keep(value);
    await this.#inro.run(['service', 'create', '--name', 'web', '--secret', 'key', '--mode', 'global']);
    this.#hasService = true;
  }

  daemons(): { manager: number[]; nodes: number[] } {
    const agents = [...this.#nodes.values()].map(({ agent }) => agent.pid);
    return { manager: family(this.#managerPid), nodes: agents.flatMap(family) };
  }

  /** By the command, which reads it from its standard input. */
  async #keep(value: string): Promise<void> {
    const lease = this.lease === undefined ? [] : ['--lease', this.lease];
    await this.#inro.run(['secret', 'create', ...lease, 'key', '-'], value);
    this.#hasSecret = true;
  }

  #command(args: readonly string[], stdin?: string): Action {
    return async () => void (await this.#inro.run(args, stdin));
  }

  get #workloads(): Sighting[] {
    return this.sightings.present.filter(({ what }) => what === 'web');
  }
}
