/**
 * inro beside what it was made to do better than: a Swarm of three engines. Both are asked for the same, one after the other in each
 * round; the same program is the workload of both, and says when it sees what.
 */
import { pause } from '../test/support/inro.js';
import type { Benchmark, Report } from './support/benchmark.js';
import { cannotCompile, cannotMount, lacksProgram } from './support/host.js';
import { InroAgents } from './support/inro_agents.js';
import type { Lab } from './support/lab.js';
import { SwarmEngines } from './support/swarm_engines.js';
import { cutOff, Marked, type CutOff } from './support/swarm_ends.js';
import { lines, type Both } from './support/swarm_lines.js';
import { round, type Round } from './support/swarm_rounds.js';
import { Workload } from './support/workload.js';

/** The shortest that inro has. */
const lease = '10s';
/** From when a value is served everywhere until its copies are counted. */
const serveMs = 5_000;

export const benchmark: Benchmark = {
  summary: 'create, rotate, remove, drain, a node cut off, copies in memory; against Docker Swarm',
  options: {
    rounds: { standard: 9, means: 'of create, rotate, drain and remove' },
    cuts: { standard: 3, means: 'nodes that are cut off, of each system' },
    look: { standard: 30, means: 'seconds after the removal until a cut-off node is looked at' },
    after: { standard: 300, means: 'seconds after the removal until memory is looked at again' },
  },
  missing: () =>
    cannotMount() ??
    cannotCompile() ??
    lacksProgram('ip', 'which makes networks', 'iproute2') ??
    lacksProgram('nsenter', 'which enters them', 'util-linux') ??
    lacksProgram('iptables', 'which the engines need', 'iptables') ??
    lacksProgram('dockerd', 'the engine', 'docker.io') ??
    lacksProgram('docker', "the engine's client", 'docker.io'),
  run,
};

async function run(
  lab: Lab,
  { rounds = 1, cuts = 1, look = 1, after = 1 }: Readonly<Record<string, number>>,
): Promise<Report> {
  const workload = await Workload.build(lab);
  lab.say('three engines, a manager and three agents begin');
  const swarm = await SwarmEngines.start(lab, workload);
  const inro = await InroAgents.start(lab, workload);

  const measured: Both<Round>[] = [];
  for (let number = 0; number < rounds; number++) {
    lab.say(`round ${number + 1} of ${rounds}`);
    measured.push({ swarm: await round(swarm), inro: await round(inro) });
  }
  const cutOffs: Both<CutOff>[] = [];
  inro.lease = lease;
  for (let number = 0; number < cuts; number++) {
    lab.say(`cut ${number + 1} of ${cuts}`);
    // Beside each other: both wait, and use next to nothing.
    const [ofSwarm, ofInro] = await Promise.all([cutOff(swarm, look * 1000), cutOff(inro, look * 1000)]);
    cutOffs.push({ swarm: ofSwarm, inro: ofInro });
  }
  inro.lease = undefined;
  lab.say('copies in memory');
  const marked = {
    swarm: await Marked.serve(swarm),
    inro: await Marked.serve(inro),
  };
  await pause(serveMs);
  const served = { swarm: await marked.swarm.count(), inro: await marked.inro.count() };
  await marked.swarm.remove();
  await marked.inro.remove();
  lab.say(`copies in memory, ${after} s after the removal`);
  await pause(after * 1000);
  const removed = { swarm: await marked.swarm.count(), inro: await marked.inro.count() };

  return {
    conditions: `Docker Engine ${await swarm.version()}: a manager and two workers; inro: a manager and three agents; each host with its own network and mounts, all state on tmpfs`,
    ...lines({ rounds: measured, cuts: cutOffs, served, removed, lookS: look, afterS: after }),
  };
}
