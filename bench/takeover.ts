/**
 * What readers notice when the agent is killed: where its descriptors are kept, where they are not, with fuse-native, and of a
 * copy on tmpfs, as Docker gives it to a container, which needs nobody. All take turns.
 */
import { Host } from '../test/support/machine.js';
import { KeptAgent } from '../test/support/kept_agent.js';
import { readSteadily, type ReaderResult } from '../test/support/steady_reader.js';
import type { Benchmark, Report } from './support/benchmark.js';
import { cannotMount } from './support/host.js';
import type { Lab } from './support/lab.js';
import { line, type Line } from './support/results.js';

const value = 'a value of 64 bytes, which all of these readers read: 0123456789';
const file = '/run/inro/secrets/web/key';
/** Readers go on for so long after the new agent is ready. */
const afterMs = 100;
/** Readers of the copy, of whom nobody takes anything, go on for so long. */
const copyMs = 500;
/** Longest wait until a new mount shows the value. */
const servedMs = 20_000;

export const benchmark: Benchmark = {
  summary:
    'what four readers notice of a SIGKILL of the agent; against a restart without handover, and tmpfs',
  options: { kills: { standard: 25, means: 'of each agent' } },
  missing: () => cannotMount(),
  run,
};

interface Kill {
  reads: number;
  failed: number;
  longestMs: number;
  /** From the kill until the next process is ready. */
  readyMs: number;
}

class Turn {
  readonly kills: Kill[] = [];
  readonly host: Host;
  readonly agent: KeptAgent;

  constructor(host: Host, agent: KeptAgent) {
    this.host = host;
    this.agent = agent;
  }

  async take(): Promise<void> {
    const stop = await readSteadily(this.host, file, [value]);
    const beganMs = performance.now();
    await this.agent.killAndWait();
    const readyMs = performance.now() - beganMs;
    await untilServed(this.host);
    await new Promise((resolve) => setTimeout(resolve, afterMs));
    this.kills.push({ ...sum(await stop()), readyMs });
  }

  of(what: keyof Kill): number[] {
    return this.kills.map((kill) => kill[what]);
  }
}

async function run(lab: Lab, { kills = 1 }: Readonly<Record<string, number>>): Promise<Report> {
  const hosts: Host[] = [];
  const open = async (hostname: string): Promise<Host> => {
    const host = await Host.open({ hostname });
    hosts.push(host);
    return host;
  };
  try {
    const first = await open('kept');
    const manager = await first.startManager();
    const token = await first.ask(['token', 'show', 'worker']);
    const start = async (host: Host, args: readonly string[], env: Record<string, string>): Promise<Turn> => {
      await host.join(token, manager.address);
      return new Turn(host, await KeptAgent.start(host, args, env));
    };
    const kept = await start(first, [], {});
    const plain = await start(await open('plain'), [], { FDSTORE: '0' });
    const portable = await start(await open('portable'), ['--driver', 'fuse-native'], { FDSTORE: '0' });
    await first.ask(['secret', 'create', 'key', '-'], { stdin: value });
    await first.ask(['service', 'create', '--name', 'web', '--secret', 'key', '--replicas', '3']);
    await first.sh(`mkdir -p /run/copy && printf '%s' '${value}' > /run/copy/key`);
    const tmpfs: ReaderResult[][] = [];
    const startsMs: number[] = [];
    for (let round = 0; round < kills; round++) {
      lab.say(`kill ${round + 1} of ${kills}`);
      for (const turn of round % 2 === 0 ? [kept, plain, portable] : [portable, plain, kept])
        await turn.take();
      const beganMs = performance.now();
      // It ends as soon as it has looked for an identity: what a start takes before there is anything to do.
      await first.inro(['agent', 'run', '--state', '/run/none', '--socket', '/run/none.sock']);
      startsMs.push(performance.now() - beganMs);
      const stop = await readSteadily(first, '/run/copy/key', [value]);
      await new Promise((resolve) => setTimeout(resolve, copyMs));
      tmpfs.push(await stop());
    }
    return {
      conditions: `four readers (two open and read, one preads an open descriptor, one lists), ${kills} kills of each agent, values of ${value.length} B`,
      lines: lines(kept, plain, portable, { tmpfs: tmpfs.map(sum), startsMs }),
      notes: [
        'A failed read is one that gave an error or other bytes; readers of a mount that is not kept go on failing until it is there again, and the descriptor that was open for ever.',
        'The longest wait is that of one read, from its call to its answer; where it fails at once it is short.',
        'The start of the process is that of an agent that finds no identity and ends, with no reader beside it.',
      ],
    };
  } finally {
    await Promise.all(hosts.map((host) => host.close()));
  }
}

interface Baseline {
  tmpfs: readonly Omit<Kill, 'readyMs'>[];
  startsMs: readonly number[];
}

function lines(kept: Turn, plain: Turn, portable: Turn, { tmpfs, startsMs }: Baseline): Line[] {
  const none = [{ atMost: 0, of: 'value' as const }];
  const failed = 'failed reads for each SIGKILL';
  const longest = 'longest wait of a read for each SIGKILL';
  const beyond = kept.kills.map(({ longestMs }, n) => longestMs - (startsMs[n] ?? NaN));
  return [
    line({ claim: `${failed}, descriptors kept`, unit: 'reads', values: kept.of('failed'), targets: none }),
    line({ claim: `${failed}, nothing kept`, unit: 'reads', values: plain.of('failed') }),
    line({ claim: `${failed}, fuse-native`, unit: 'reads', values: portable.of('failed') }),
    line({ claim: `reads for each SIGKILL, descriptors kept`, unit: 'reads', values: kept.of('reads') }),
    line({
      claim: longest,
      unit: 'ms',
      values: kept.of('longestMs'),
      peer: { name: 'tmpfs, nobody killed', values: tmpfs.map(({ longestMs }) => longestMs) },
    }),
    line({
      claim: longest,
      unit: 'ms',
      values: kept.of('longestMs'),
      peer: { name: 'start of the process', values: startsMs },
    }),
    line({
      claim: `${longest}, beyond the start of the process`,
      unit: 'ms',
      values: beyond,
      targets: [{ atMost: 150, of: 'value' }],
    }),
    line({
      claim: 'ready again after a SIGKILL, descriptors kept',
      unit: 'ms',
      values: kept.of('readyMs'),
      peer: { name: 'nothing kept', values: plain.of('readyMs') },
    }),
    line({
      claim: 'ready again after a SIGKILL, descriptors kept',
      unit: 'ms',
      values: kept.of('readyMs'),
      peer: { name: 'fuse-native', values: portable.of('readyMs') },
    }),
  ];
}

function sum(results: readonly ReaderResult[]): Omit<Kill, 'readyMs'> {
  const count = (by: Record<string, number>) => Object.values(by).reduce((all, one) => all + one, 0);
  return {
    reads: results.reduce((all, { reads }) => all + reads, 0),
    failed: results.reduce((all, { failed, wrong }) => all + count(failed) + count(wrong), 0),
    longestMs: Math.max(...results.map(({ longestMs }) => longestMs)),
  };
}

async function untilServed(host: Host): Promise<void> {
  const deadlineMs = performance.now() + servedMs;
  while ((await host.read(file)) !== value) {
    if (performance.now() > deadlineMs) throw new Error('the value is not served again');
  }
}
