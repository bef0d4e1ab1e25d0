/** The table of `npm run bench -- swarm`. */
import type { Report } from './benchmark.js';
import { line, type Line, type Target } from './results.js';
import type { Copies, CutOff } from './swarm_ends.js';
import type { Round } from './swarm_rounds.js';
import type { Order } from './system.js';

const name = 'Docker Swarm';
const quick: Target[] = [{ atMost: 10, of: 'value' }];
const none: Target[] = [{ atMost: 0, of: 'value' }];

export interface Both<T> {
  inro: T;
  swarm: T;
}

export interface Measured {
  rounds: readonly Both<Round>[];
  cuts: readonly Both<CutOff>[];
  served: Both<Copies>;
  removed: Both<Copies>;
  lookS: number;
  afterS: number;
}

type Look = (round: Round) => number;

export function lines(all: Measured): Pick<Report, 'lines' | 'notes'> {
  return {
    lines: [...ofRounds(all), ...ofCuts(all), ...ofCopies(all)],
    notes: [
      'Timed from the start of the command, or from the call, until the workload has read it, or nobody can: the same program in both, which looks every half millisecond. With Swarm it is in a container that the service starts, with inro a process that is there before and after: only Swarm has to start something to hand over a value.',
      "A command's start-up: `secret ls` of the same program, from its start until it prints, once before each command; what is beyond is a round's time without the median of that round's. Below 0: it takes longer to print a list than to make a change. Swarm's is without its own start-up.",
      'create: the service, of a secret that is there. rotate: inro `secret update`; Swarm `service update --secret-rm --secret-add`, with the new secret there before the clock starts.',
      `Calls: inro's gRPC with the sealing of the value, Swarm's Engine API; both through the manager's socket. Swarm rotates start-first there.`,
      'gone: for inro the workload gets ENOENT, or ESTALE at the end of a lease; for Swarm the file is no more on the tmpfs that the engine keeps for the container.',
      'A node is cut off by taking its link down; service and secret are removed when another node has taken over. inro: a secret with --lease 10s (24h if not given); Swarm has none.',
      ...copyNotes(all),
    ],
  };
}

function ofRounds({ rounds }: Measured): Line[] {
  const of = (claim: string, look: Look, options: { peer?: Look; targets?: Target[]; unit?: string } = {}) =>
    line({
      claim,
      unit: options.unit ?? 'ms',
      values: rounds.map(({ inro }) => look(inro)),
      peer: { name, values: rounds.map(({ swarm }) => (options.peer ?? look)(swarm)) },
      ...(options.targets === undefined ? {} : { targets: options.targets }),
    });
  const rotated = (how: 'command' | 'api', order: Order, what: 'ms' | 'restarts'): Look => {
    return (round) => round[how].rotations[order]?.[what] ?? NaN;
  };
  const beyond = (look: Look): Look => {
    return (round) => look(round) - round.startUpMs;
  };
  const inroRotates = rotated('command', 'start-first', 'ms');
  const byCommand: [string, Look, Look?][] = [
    ['create -> readable', (round) => round.command.createMs],
    ['rotate -> new value readable (Swarm: stop-first)', inroRotates, rotated('command', 'stop-first', 'ms')],
    ['rotate -> new value readable (Swarm: start-first)', inroRotates],
    ['remove -> gone', (round) => round.command.removeMs],
  ];
  return [
    of("a command's start-up: secret ls", ({ startUpMs }) => startUpMs),
    ...byCommand.map(([claim, look, peer = look]) => of(`${claim}: whole command`, look, { peer })),
    // Beside Swarm's faster way.
    ...byCommand
      .filter(([, , slower]) => slower === undefined)
      .map(([claim, look]) => of(`${claim}: beyond start-up`, beyond(look), { targets: quick })),
    of('create -> readable: by a call', (round) => round.api.createMs, { targets: quick }),
    of('rotate -> new value readable: by a call', rotated('api', 'start-first', 'ms'), { targets: quick }),
    of('remove -> gone: by a call', (round) => round.api.removeMs, { targets: quick }),
    of('restarts for a rotation', rotated('command', 'start-first', 'restarts'), {
      targets: none,
      unit: 'tasks',
    }),
    of('drain -> readable elsewhere: whole command', ({ drained }) => drained.elsewhereMs),
    of('drain -> gone here: whole command', ({ drained }) => drained.goneMs),
  ];
}

function ofCuts({ cuts, lookS }: Measured): Line[] {
  const gone = cuts.map(({ inro }) => inro.goneS);
  return [
    line({
      claim: 'cut off -> readable elsewhere',
      unit: 's',
      values: cuts.map(({ inro }) => inro.elsewhereS),
      peer: { name, values: cuts.map(({ swarm }) => swarm.elsewhereS) },
    }),
    line({ claim: 'cut off -> gone there (Swarm: see below)', unit: 's', values: gone }),
    line({
      claim: `cut off: still readable there, ${lookS} s after service and secret were removed`,
      unit: 'nodes',
      values: cuts.map(({ inro }) => Number(inro.isThere)),
      peer: { name, values: cuts.map(({ swarm }) => Number(swarm.isThere)) },
      targets: none,
    }),
  ];
}

function ofCopies({ served, removed, afterS }: Measured): Line[] {
  const of = (claim: string, { inro, swarm }: Both<Copies>) =>
    line({
      claim: `copies in readable memory of the daemons, ${claim}`,
      unit: 'copies',
      values: [total(inro)],
      peer: { name, values: [total(swarm)] },
      targets: none,
    });
  return [of('while served', served), of(`${afterS} s after the removal`, removed)];
}

function copyNotes({ served, removed, afterS }: Measured): string[] {
  const words = ({ manager, nodes }: Copies) => `${manager} in the manager, ${nodes} on the other nodes`;
  return [
    `Copies of one value of 32 bytes in /proc/PID/mem. Swarm, dockerd, containerd and its shims: ${words(served.swarm)}; ${afterS} s after service and secret were removed ${words(removed.swarm)}. inro, manager and agents: ${words(served.inro)}; then ${words(removed.inro)}.`,
  ];
}

function total({ manager, nodes }: Copies): number {
  return manager + nodes;
}
