/**
 * How many nodes one manager carries: agents over real mTLS streams against one manager process. All agents are one process here, and
 * share the processors with the manager.
 */
import { randomBytes } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { openArena } from '../src/crypto/arena.js';
import { drawExchangeKey } from '../src/crypto/exchange.js';
import { Control } from '../src/proto/gen/inro/v1/control_pb.js';
import { call, connectUnix, type Connection } from '../src/rpc/client.js';
import { Host } from '../test/support/machine.js';
import type { Benchmark, Report } from './support/benchmark.js';
import { cannotMount, cpuUs, rssKib } from './support/host.js';
import type { Lab } from './support/lab.js';
import { line } from './support/results.js';
import { SealedSecret } from './support/sealed_secret.js';
import { SimulatedAgent } from './support/simulated_agent.js';

const secretBytes = 1024;
const enrolAtOnce = 32;
const steadyMs = 15_000;
const callMs = 300_000;
const patienceMs = 300_000;
const smallest = 250;
/** What the targets are for; in a smaller fleet, for the largest. */
const targetAgents = 2_000;

export const benchmark: Benchmark = {
  summary:
    'agents over real streams against one manager: all at once, a rotation for all, many tasks, at rest',
  options: {
    agents: { standard: 4_000, means: 'in the largest fleet; from 250 on it is doubled' },
    services: { standard: 1_000, means: 'that are placed beside the one that all nodes have' },
    tasks: { standard: 10_000, means: 'that they have together' },
    rotations: { standard: 5, means: 'of the secret that all nodes have, for each size' },
  },
  missing: () => cannotMount(),
  run,
};

interface Sized {
  agents: number;
  stormSeconds: number;
  failures: number;
  rotationMs: number[];
  cpuPercent: number;
  kibPerAgent: number;
}

async function run(
  lab: Lab,
  { agents = 1, services = 1, tasks = 1, rotations = 1 }: Readonly<Record<string, number>>,
): Promise<Report> {
  const host = await Host.open({ hostname: 'manager' });
  const fleet: SimulatedAgent[] = [];
  let connection: Connection | undefined;
  try {
    const { daemon, address } = await host.startManager();
    connection = connectUnix(host.outside('/run/inro/manager.sock'), 'the manager');
    const operator = connection;
    const { rootPem } = await call(operator, Control, 'getCluster', {});
    const token = await host.ask(['token', 'show', 'worker']);
    const arena = openArena(8 << 20);
    const sessionKey = drawExchangeKey(arena).publicKey;
    const secret = await SealedSecret.create(operator, 'everywhere', randomBytes(secretBytes));
    await call(operator, Control, 'createService', {
      name: 'all',
      references: [secret.reference],
      global: true,
    });

    const sizes: Sized[] = [];
    for (let size = Math.min(smallest, agents); ; size = Math.min(size * 2, agents)) {
      lab.say(`${size} agents enrol`);
      while (fleet.length < size) {
        const count = Math.min(enrolAtOnce, size - fleet.length);
        const enrol = () => SimulatedAgent.enrol({ address, rootPem, token }, sessionKey);
        fleet.push(...(await Promise.all(Array.from({ length: count }, enrol))));
      }
      for (const agent of fleet) agent.close();
      await pause(2_000);
      const idleKib = rssKib(daemon.pid);
      lab.say(`${size} agents attach`);
      for (const agent of fleet) agent.failures = 0;
      const began = performance.now();
      await Promise.all(fleet.map((agent) => agent.attach()));
      const stormSeconds = (performance.now() - began) / 1000;
      await until('each node has its task', () => fleet.every((agent) => agent.tasks > 0));
      const failures = fleet.reduce((sum, agent) => sum + agent.failures, 0);
      const rotationMs: number[] = [];
      for (let n = 0; n < rotations; n++) rotationMs.push(await rotate(operator, secret, fleet));
      lab.say(`${size} agents at rest`);
      const cpuBefore = cpuUs(daemon.pid);
      await pause(steadyMs);
      const cpuPercent = ((cpuUs(daemon.pid) - cpuBefore) / 1000 / steadyMs) * 100;
      const kibPerAgent = Math.max(0, rssKib(daemon.pid) - idleKib) / size;
      sizes.push({ agents: size, stormSeconds, failures, rotationMs, cpuPercent, kibPerAgent });
      if (size === agents) break;
    }

    lab.say(`${services} services, ${tasks} tasks`);
    const before = fleet.reduce((sum, agent) => sum + agent.tasks, 0);
    const began = performance.now();
    const replicas = Math.ceil(tasks / services);
    for (let made = 0; made < services; made += enrolAtOnce) {
      const names = Array.from({ length: Math.min(enrolAtOnce, services - made) }, (_, n) => `s${made + n}`);
      const create = (name: string) =>
        call(operator, Control, 'createService', { name, references: [secret.reference], replicas }, callMs);
      await Promise.all(names.map(create));
    }
    const wanted = before + replicas * services;
    await until('all tasks run', () => fleet.reduce((sum, agent) => sum + agent.tasks, 0) >= wanted);
    const placedSeconds = (performance.now() - began) / 1000;
    return report(sizes, { placedSeconds, tasks: replicas * services, services });
  } finally {
    for (const agent of fleet) agent.close();
    connection?.close();
    await host.close();
  }
}

/** @returns ms from the acknowledgement until the last agent has the new version. */
async function rotate(
  operator: Connection,
  secret: SealedSecret,
  fleet: readonly SimulatedAgent[],
): Promise<number> {
  const wanted = secret.version + 1;
  const late = new Set(fleet);
  const done = new Promise<number>((resolve) => {
    for (const agent of fleet)
      agent.onVersion = (version, atMs) => {
        if (version === wanted) late.delete(agent);
        if (late.size === 0) resolve(atMs);
      };
  });
  await secret.update(operator, randomBytes(secretBytes));
  const acknowledgedMs = performance.now();
  return Math.max(0, (await done) - acknowledgedMs);
}

async function until(what: string, isSo: () => boolean): Promise<void> {
  const end = performance.now() + patienceMs;
  while (!isSo()) {
    if (performance.now() > end) throw new Error(`waited ${patienceMs / 1000} s in vain: ${what}`);
    await pause(10);
  }
}

interface Placed {
  placedSeconds: number;
  tasks: number;
  services: number;
}

function report(sizes: readonly Sized[], { placedSeconds, tasks, services }: Placed): Report {
  const last = sizes.at(-1) as Sized;
  const first = sizes[0] as Sized;
  const aimed = Math.min(targetAgents, last.agents);
  const atMost = (value: number) => [{ atMost: value, of: 'value' as const }];
  const all = (agents: number): string => `${agents} agents`;
  return {
    conditions: `one manager, embedded store; ${last.agents} agents in one process, each on a connection of its own; they share the processors`,
    lines: [
      ...sizes.flatMap(({ agents, stormSeconds, rotationMs, cpuPercent, kibPerAgent }) => [
        line({
          claim: `${all(agents)} attach at once: until the last has its assignment`,
          unit: 's',
          values: [stormSeconds],
          ...(agents === aimed ? { targets: atMost(20) } : {}),
        }),
        line({
          claim: `${all(agents)}: a 1 KiB secret rotated, from the acknowledgement to the last agent`,
          unit: 'ms',
          values: rotationMs,
          ...(agents === aimed ? { targets: atMost(1_000) } : {}),
        }),
        line({ claim: `${all(agents)} at rest: manager's CPU, of one`, unit: '%', values: [cpuPercent] }),
        line({
          claim: `${all(agents)}: manager's memory, for one`,
          unit: 'KiB',
          values: [kibPerAgent],
          ...(agents === aimed ? { targets: atMost(120) } : {}),
        }),
      ]),
      line({
        claim: `CPU at rest for one agent, ${last.agents} beside ${first.agents}`,
        unit: '%',
        values: [last.cpuPercent / last.agents],
        peer: { name: all(first.agents), values: [first.cpuPercent / first.agents] },
      }),
      line({
        claim: `${services} services, ${tasks} tasks: until all run`,
        unit: 's',
        values: [placedSeconds],
      }),
      line({ claim: 'streams that broke', unit: '', values: [last.failures], targets: atMost(0) }),
    ],
    notes: [
      'Each agent proves its session key, beats, and answers each assignment; values are not opened. A rotation re-wraps the content key for each node.',
      'Memory is what the manager has more than before the agents attached.',
    ],
  };
}
