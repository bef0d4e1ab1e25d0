/**
 * What it costs to keep: secrets that operators create, each acknowledged when it is durable, by one writer and by many at once. Its peer is
 * the engine itself, lmdb: one durable transaction for each, of the same bytes, with nothing around it.
 */
import { randomBytes } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { open } from 'lmdb';
import { ControlClient } from '../test/support/control_client.js';
import { Host } from '../test/support/machine.js';
import type { Benchmark, Report } from './support/benchmark.js';
import { cannotMount } from './support/host.js';
import type { Lab } from './support/lab.js';
import { line } from './support/results.js';

const valueBytes = 1024;
const writers = [1, 32] as const;

export const benchmark: Benchmark = {
  summary:
    'acknowledged creates of secrets, by 1 and by 32 writers; against bare lmdb transactions on the same disk',
  options: {
    rounds: { standard: 7, means: 'in which each is measured once' },
    creates: { standard: 640, means: 'secrets of 1 KiB in each' },
  },
  missing: () => cannotMount(),
  run,
};

interface Taken {
  /** Of the clock, for one of them. */
  us: number;
  p99Us: number;
}

async function run(
  lab: Lab,
  { rounds = 1, creates = 32 }: Readonly<Record<string, number>>,
): Promise<Report> {
  const host = await Host.open({ hostname: 'manager' });
  try {
    await host.startManager({ state: lab.path('manager') });
    const clients = await Promise.all(
      Array.from({ length: Math.max(...writers) }, () =>
        ControlClient.on(host.outside('/run/inro/manager.sock')),
      ),
    );
    const taken = new Map<string, Taken[]>();
    const note = (name: string, one: Taken): void => {
      taken.set(name, [...(taken.get(name) ?? []), one]);
    };
    let made = 0;
    for (let round = 0; round < rounds; round++) {
      lab.say(`round ${round + 1} of ${rounds}`);
      const value = randomBytes(valueBytes);
      for (const count of writers) {
        const some = clients.slice(0, count);
        note(`${count}`, await atOnce(creates, some, (client) => client.create(`s${made++}`, value)));
        note(`bare ${count}`, await bare(lab.path(`bare-${round}-${count}`), creates));
      }
    }
    for (const client of clients) client.close();
    return report(taken, creates);
  } finally {
    await host.close();
  }
}

/** Each of those who write begins the next when the one before is acknowledged. */
async function atOnce<T>(
  count: number,
  all: readonly T[],
  act: (one: T) => Promise<unknown>,
): Promise<Taken> {
  let begun = 0;
  const times: number[] = [];
  const began = performance.now();
  await Promise.all(
    all.map(async (one) => {
      while (begun++ < count) {
        const from = performance.now();
        await act(one);
        times.push((performance.now() - from) * 1000);
      }
    }),
  );
  return taken(began, times);
}

/** The same engine and options as src/store/lmdb.ts, and as many bytes as a create writes. */
async function bare(path: string, count: number): Promise<Taken> {
  mkdirSync(path, { recursive: true });
  const database = open<Buffer, string>({ path, encoding: 'binary', overlappingSync: false });
  const value = randomBytes(valueBytes + 512);
  const times: number[] = [];
  const began = performance.now();
  for (let n = 0; n < count; n++) {
    const from = performance.now();
    database.transactionSync(() => database.putSync(`k/${n}`, value));
    times.push((performance.now() - from) * 1000);
  }
  const result = taken(began, times);
  await database.close();
  return result;
}

function taken(began: number, times: readonly number[]): Taken {
  const sorted = [...times].sort((a, b) => a - b);
  const us = ((performance.now() - began) * 1000) / times.length;
  return { us, p99Us: sorted[Math.floor(sorted.length * 0.99)] ?? NaN };
}

function report(all: ReadonlyMap<string, readonly Taken[]>, creates: number): Report {
  const of = (name: string, what: keyof Taken): number[] => (all.get(name) ?? []).map((one) => one[what]);
  const name = 'bare lmdb, 1 writer';
  return {
    conditions: `${creates} secrets of ${valueBytes} bytes in each round; embedded store; writers and manager share the processors`,
    lines: writers.flatMap((count) => {
      const who = count === 1 ? '1 writer' : `${count} writers`;
      const peer = (what: keyof Taken) => ({ name, values: of(`bare ${count}`, what) });
      return [
        line({
          claim: `a create, ${who}: the clock for one`,
          unit: 'us',
          values: of(`${count}`, 'us'),
          peer: peer('us'),
        }),
        line({
          claim: `a create, ${who}: p99 until acknowledged`,
          unit: 'us',
          values: of(`${count}`, 'p99Us'),
          peer: peer('p99Us'),
        }),
      ];
    }),
    notes: [
      'A create is sealed by its writer, sent, unwrapped and wrapped by the manager, written to five tables, and followed by a line of the audit, both durable before the answer.',
      "The peer's is one durable transaction with one record of the same size: no encryption, no socket, no audit.",
    ],
  };
}
