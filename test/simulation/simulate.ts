/**
 * A cluster in one process, from one number: a manager, nodes, operators, and whatever fails. The same seed goes the same way.
 *
 * Real: everything that agents and managers decide and remember (agent/core.ts, manager/core.ts, operators' calls), envelopes,
 * certificates, receipts, wire messages. Stood in for: clock, network, disk, arena and mount, X25519.
 */
import { standsIn } from './exchange_stand_in.js';
import { remembers } from './remembered.js';
import { createHash } from 'node:crypto';
import { create } from '@bufbuild/protobuf';
import { pino } from 'pino';
import { NodeRecordSchema } from '../../src/proto/gen/inro/v1/records_pb.js';
import { tables } from '../../src/store/tables.js';
import { transact } from '../../src/store/transaction.js';
import { Chance } from './chance.js';
import { Checks, Violation } from './checks.js';
import { identityOf } from './cluster_keys.js';
import { Faults } from './faults.js';
import { checkEnd } from './end.js';
import { HostClock } from './host_clock.js';
import { ManagerHost } from './manager_host.js';
import { Mirror } from './mirror.js';
import { connect, Link, type Connection } from './network.js';
import { NodeHost } from './node_host.js';
import { Operator } from './operator.js';
import { Wipes } from './wipes.js';
import { Restless, World } from './world.js';

standsIn();
remembers();

export interface SimulationOptions {
  seed: number;
  /** How long things are changed and fail, ms of simulated time. */
  busyMs?: number;
  /** What is broken on purpose, to see that it is noticed. */
  sabotage?: (parts: Sabotaged) => void;
  /** Told of each thing that happens. */
  trace?: (line: string) => void;
  /** What agents and managers log, instead of nothing. */
  logTo?: (line: string) => void;
}

export interface Sabotaged {
  hosts: readonly NodeHost[];
  manager: ManagerHost;
  world: World;
}

export interface Simulated {
  seed: number;
  /** What was wrong; undefined: nothing. */
  violation: string | undefined;
  /** Of all that happened, in its order. */
  digest: string;
  events: number;
  checks: number;
  commits: number;
  did: Record<string, number>;
}

/** How long everything has to come right, once nothing fails any more: the longest is a node that comes and goes. */
const quietMs = 8 * 60_000;
const quietStepMs = 20_000;
const checkAllMs = 1_000;
/** Clocks are off by less than this. */
const drift = 4e-4;

export async function simulate(options: SimulationOptions): Promise<Simulated> {
  const { seed, busyMs = 3 * 60_000, trace, sabotage } = options;
  const chance = (stream: number): Chance => new Chance(seed, stream);
  const setting = chance(0);
  const world = new World();
  const told = createHash('sha256');
  let events = 0;
  let commits = 0;
  const say = (words: string): void => {
    const line = `${world.nowMs.toFixed(3)} ${words}`;
    told.update(`${line}\n`);
    trace?.(line);
  };
  const log =
    options.logTo === undefined
      ? pino({ level: 'silent' })
      : pino(
          { level: 'debug' },
          { write: (line: string) => options.logTo?.(`${world.nowMs.toFixed(3)} ${line}`) },
        );

  const mirror = await Mirror.open();
  const clockOf = (): HostClock => new HostClock(world, 1 + setting.between(-drift, drift));
  const manager: ManagerHost = new ManagerHost({
    world,
    chance: chance(1),
    clock: clockOf(),
    log,
    onCommit: (change) => {
      commits += 1;
      say(
        `commit ${change.revision}: ${[...change.puts.map(({ key }) => key), ...change.deletes.map((key) => `-${key}`)].join(' ')}`,
      );
      mirror.commit(change);
    },
  });

  const connections = new Map<NodeHost, Set<Connection>>();
  let joined = 0;
  const hosts = Array.from({ length: 3 + setting.below(3) }, (_, n) => {
    const link = new Link(world, chance(100 + n));
    return new NodeHost({
      name: `host${n + 1}`,
      identity: identityOf(joined++),
      world,
      chance: chance(200 + n),
      clock: clockOf(),
      link,
      arenaBytes: setting.is(0.1) ? 700 : 64 * 1024,
      log,
      open: (host, process, tell) => {
        const server = manager.process;
        const connection = connect(world, link, process, server, (accepted) => {
          if (server !== undefined) manager.accept(host, server, accepted);
        });
        connection.onManagerTook((message) => {
          const kind = (message as { message: { case?: string } }).message.case ?? '';
          say(`${host.name} -> ${kind}`);
          if (kind === 'heartbeat' || kind === 'hello') checks.heard(host.nodeId);
        });
        connection.onDelivered((message) => {
          say(`${host.name} <- ${(message as { message: { case?: string } }).message.case ?? ''}`);
          tell(message as never);
        });
        const all = connections.get(host) ?? new Set();
        connections.set(host, all.add(connection));
        connection.agent.closed.addEventListener('abort', () => all.delete(connection), { once: true });
        return connection.agent;
      },
    });
  });

  const values = new Map<string, string>();
  const checks: Checks = new Checks({ world, mirror, manager, hosts, values, slowest: 1 / (1 - drift) });
  manager.onDown = (nodeId) => checks.down(nodeId);
  /** What was found in the middle of somebody else's step, who must not hear of it. */
  const found: unknown[] = [];
  const noting = (check: () => void): void => {
    try {
      check();
    } catch (error) {
      found.push(error);
    }
  };
  mirror.view.onChange(({ serviceIds }) => noting(() => checks.tasksOf(serviceIds)));
  const wipes = new Wipes(say);
  for (const host of hosts)
    wipes.follow(host, (generation) => noting(() => checks.published(host, generation)));
  const operatorParts = { world, manager, mirror, checks, hosts, values, say };
  const operator = new Operator({ ...operatorParts, chance: chance(3) });
  const terminals = 1 + setting.below(3);
  const faults = new Faults({
    world,
    chance: chance(2),
    hosts,
    manager,
    breakOff: (host, side) => {
      for (const connection of connections.get(host) ?? []) connection.breakOff(side);
    },
    say,
  });

  /** A host whose identity is good for nothing joins anew after a while. */
  const join = async (host: NodeHost): Promise<void> => {
    const { running } = manager;
    if (running === undefined) return void world.in(1_000, () => void join(host));
    const record = create(NodeRecordSchema, {
      id: host.nodeId,
      role: 'worker',
      createdMs: BigInt(manager.clock.wallMs()),
    });
    await transact(running.store, async (tx) => tx.put(tables.nodes, host.nodeId, record));
    host.start();
  };
  const rejoin = (host: NodeHost): void => {
    world.in(5_000, () => {
      if (host.core?.session.status.state === 'removed') {
        host.become(identityOf(joined++));
        say(`${host.name} joins as ${host.nodeId}`);
        void join(host);
      }
      rejoin(host);
    });
  };

  let nextAllMs = 0;
  world.afterEach = () => {
    events += 1;
    operator.check();
    if (found.length > 0) throw found[0];
    if (world.nowMs < nextAllMs) return;
    nextAllMs = world.nowMs + checkAllMs;
    checks.all();
  };

  let violation: string | undefined;
  try {
    manager.start();
    for (const host of hosts) {
      void join(host);
      rejoin(host);
    }
    sabotage?.({ hosts, manager, world });
    await world.run(2_000);
    for (let n = 0; n < terminals; n++) void operator.run(setting.pick([500, 2_000, 8_000]));
    faults.begin(setting.pick([2_000, 8_000, 30_000]));
    await world.run(world.nowMs + busyMs);
    say('all is well from here on');
    operator.isDone = true;
    faults.heal();
    const wellMs = world.nowMs;
    let late: Violation | undefined;
    do {
      await world.run(world.nowMs + quietStepMs);
      checks.all();
      late = undefined;
      try {
        checkEnd({ mirror, manager, hosts, wipes, isCramped: hosts.some((host) => host.isCramped) });
      } catch (error) {
        if (!(error instanceof Violation)) throw error;
        late = error;
      }
    } while (late !== undefined && world.nowMs < wellMs + quietMs);
    if (late !== undefined) throw late;
  } catch (error) {
    if (!(error instanceof Violation) && !(error instanceof Restless)) throw error;
    violation = `${world.nowMs.toFixed(3)} ${error.message}`;
    say(`violation: ${violation}`);
  }
  const did = { ...faults.counts, ...operator.counts };
  return { seed, violation, digest: told.digest('hex'), events, checks: checks.count, commits, did };
}
