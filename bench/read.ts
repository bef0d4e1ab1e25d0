/**
 * What a read costs its reader and the agent, and what a wipe costs: the kernel driver against tmpfs, which needs no server, and
 * against fuse-native, which is served by JavaScript. All of them take turns in each round, so that whatever else the host does
 * meets all alike.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import type { DriverName } from '../src/agent/mount/drivers.js';
import type { Benchmark, Report } from './support/benchmark.js';
import { allowedCpus, cannotCompile, cannotMount } from './support/host.js';
import type { Lab } from './support/lab.js';
import { Reader } from './support/reader.js';
import { line, type Line, type Target } from './support/results.js';
import { Served, type ServedFacts } from './support/served.js';
import { Turns } from './support/turns.js';
import { wipeOften, type Wipes } from './support/wipes.js';

const valueBytes = 64;
/** One turn ends after so many operations, or so many ms. */
const turnOps = 3_000;
const turnMs = 120;
/** With a busy event loop, the portable driver needs a long time for a few. */
const busyTurnMs = 600;
/** Before memory is looked at for the first time: Node's own start is over then. */
const settlingReads = 20_000;
/** What may still be called flat, times what it was before. */
const flat = 1.01;

export const benchmark: Benchmark = {
  summary: 'what a read costs its reader and the agent, and what a wipe costs; against tmpfs and fuse-native',
  options: {
    rounds: { standard: 20, means: 'in which all take turns' },
    wipes: { standard: 200, means: 'of each kind' },
    reads: { standard: 200_000, means: 'over which memory is watched' },
    workers: { standard: 2, means: 'threads of the kernel driver that answer' },
  },
  missing: () => cannotCompile() ?? cannotMount(),
  run,
};

async function run(lab: Lab, options: Readonly<Record<string, number>>): Promise<Report> {
  const { rounds = 1, wipes = 1, reads = 1, workers } = options;
  const [cpu = 0] = allowedCpus();
  const reader = await Reader.build(lab);
  const [kernel, facts] = await Served.start(lab, 'kernel', { driver: 'kernel', workers });
  const [pinned] = await Served.start(lab, 'pinned', { driver: 'kernel', workers, cpu });
  const [portable] = await Served.start(lab, 'fuse-native', { driver: 'fuse-native' });
  const paths = {
    tmpfs: await onTmpfs(lab),
    kernel: await kernel.publish('web', valueBytes),
    pinned: await pinned.publish('web', valueBytes),
    portable: await portable.publish('web', valueBytes),
  };

  lab.say(`reads: ${rounds} rounds`);
  const turns = new Turns();
  const time = (what: 'whole' | 'pread', path: string, at = {}, ms = turnMs) =>
    reader.time(what, path, turnOps, ms, at);
  for (let round = 0; round < rounds; round++) {
    await turns.take(round, [
      ['tmpfs whole', () => time('whole', paths.tmpfs)],
      ['kernel whole', () => time('whole', paths.kernel), kernel],
      ['portable whole', () => time('whole', paths.portable), portable],
      ['tmpfs whole, one CPU', () => time('whole', paths.tmpfs, { cpu })],
      ['kernel whole, one CPU', () => time('whole', paths.pinned, { cpu })],
      ['tmpfs pread', () => time('pread', paths.tmpfs)],
      ['kernel pread', () => time('pread', paths.kernel)],
      ['portable pread', () => time('pread', paths.portable)],
      ['tmpfs pread, one CPU', () => time('pread', paths.tmpfs, { cpu })],
      ['kernel pread, one CPU', () => time('pread', paths.pinned, { cpu })],
      ['kernel whole, busy', () => kernel.whileBusy(() => time('whole', paths.kernel))],
      ['portable whole, busy', () => portable.whileBusy(() => time('whole', paths.portable, {}, busyTurnMs))],
    ]);
  }

  lab.say(`wipes: ${wipes} of each kind`);
  const strict = await wipeOften(reader, kernel, wipes, false);
  const mapped = await wipeOften(reader, kernel, wipes, true);

  lab.say(`memory: ${reads} reads of each driver`);
  const memory = [
    await watchMemory(reader, 'kernel', kernel, paths.kernel, reads),
    await watchMemory(reader, 'fuse-native', portable, paths.portable, reads),
  ];

  for (const served of [kernel, pinned, portable]) await served.unmount();
  return {
    conditions: conditions(facts, workers),
    lines: [
      ...readLines(turns),
      ...wipeLines('strict', strict),
      ...wipeLines('mmap reference', mapped),
      ...costLines(turns, memory, reads),
    ],
    notes: [
      `A round's value is the median of up to ${turnOps} operations, if nothing else is said. Value and ratio are the medians of the rounds, with the least and the most in brackets.`,
      `"one CPU": reader and serving process may use CPU ${cpu} alone; otherwise the scheduler places them.`,
    ],
  };
}

async function onTmpfs(lab: Lab): Promise<string> {
  const root = lab.path('tmpfs');
  await mkdir(root);
  await lab.run('mount', ['-t', 'tmpfs', '-o', 'size=1m,mode=0700', 'inro-bench', root]);
  await mkdir(`${root}/web`);
  await writeFile(`${root}/web/key`, 'x'.repeat(valueBytes));
  return `${root}/web/key`;
}

interface Memory {
  driver: DriverName;
  beforeKib: number;
  afterKib: number;
}

async function watchMemory(
  reader: Reader,
  driver: DriverName,
  served: Served,
  path: string,
  reads: number,
): Promise<Memory> {
  await reader.reopen(path, Math.min(settlingReads, reads));
  const beforeKib = served.rssKib();
  await reader.reopen(path, reads);
  return { driver, beforeKib, afterKib: served.rssKib() };
}

/** What readers wait for. */
function readLines(turns: Turns): Line[] {
  const whole = 'open+fstat+read+close, 64 B, attached';
  const pread = 'pread on an open descriptor, 64 B, attached';
  const compare = (
    claim: string,
    [ours, peerName, theirs]: readonly [string, string, string],
    targets: readonly Target[] = [],
    which: 'meanNs' | 'p50Ns' | 'p99Ns' = 'p50Ns',
  ) => {
    const peer = { name: peerName, values: turns.us(theirs, which) };
    return line({ claim, unit: 'us', values: turns.us(ours, which), peer, targets });
  };
  const toTmpfs = ['kernel whole', 'tmpfs', 'tmpfs whole'] as const;
  const toPortable = ['kernel whole', 'fuse-native', 'portable whole'] as const;
  const busy = ['kernel whole, busy', 'fuse-native', 'portable whole, busy'] as const;
  return [
    compare(whole, toTmpfs, [{ atMost: 10, of: 'ratio' }]),
    compare(whole, toPortable, [{ atMost: 0.2, of: 'ratio' }]),
    compare(
      `${whole}; one CPU`,
      ['kernel whole, one CPU', 'tmpfs', 'tmpfs whole, one CPU'],
      [
        { atMost: 30, of: 'value' },
        { atMost: 10, of: 'ratio' },
      ],
    ),
    compare(`${whole}; p99`, toTmpfs, [], 'p99Ns'),
    compare(`${whole}; p99`, toPortable, [], 'p99Ns'),
    compare(`${whole}; mean, event loop 90 % busy`, busy, [], 'meanNs'),
    compare(pread, ['kernel pread', 'tmpfs', 'tmpfs pread']),
    compare(pread, ['kernel pread', 'fuse-native', 'portable pread']),
    compare(
      `${pread}; one CPU`,
      ['kernel pread, one CPU', 'tmpfs', 'tmpfs pread, one CPU'],
      [{ atMost: 12, of: 'value' }],
    ),
  ];
}

function wipeLines(kind: string, { quietUs, racedUs, tried, late }: Wipes): Line[] {
  const wipe = `wipe of 64 KiB, ${kind}`;
  const quick: Target = { atMost: 100, of: 'value' };
  const none: Target = { atMost: 0, of: 'value' };
  return [
    line({ claim: `${wipe}, open at a reader`, unit: 'us', values: quietUs, targets: [quick] }),
    line({ claim: `${wipe}, four threads reading it`, unit: 'us', values: racedUs }),
    line({ claim: `${wipe}: reads begun after it`, unit: 'reads', values: [tried] }),
    line({ claim: `${wipe}: of these, given bytes`, unit: 'reads', values: [late], targets: [none] }),
  ];
}

/** What the serving process needs. */
function costLines(turns: Turns, memory: readonly Memory[], reads: number): Line[] {
  return [
    line({
      claim: 'CPU time of the serving process for one open+fstat+read+close',
      unit: 'us',
      values: turns.serverUs('kernel whole'),
      peer: { name: 'fuse-native', values: turns.serverUs('portable whole') },
    }),
    ...memory.map(({ driver, beforeKib, afterKib }) =>
      line({
        claim: `RSS of the serving process after ${reads} reads; ${driver}`,
        unit: 'KiB',
        values: [afterKib],
        peer: { name: 'before them', values: [beforeKib] },
        targets: driver === 'kernel' ? [{ atMost: flat, of: 'ratio' }] : [],
      }),
    ),
  ];
}

function conditions({ strict, kind, locked }: ServedFacts, workers: number | undefined): string {
  const lock = kind === 'mlock' && !locked ? 'memory that could not be locked' : kind;
  return `arena: ${lock}; ${strict ? 'strict' : 'NOT strict: this kernel fills its page cache'}; ${workers} threads answer; readers are attached: each open and read asks who reads, each open is recorded`;
}
