/**
 * What it costs to keep: secrets that operators create, each acknowledged when it is durable, by one writer and by many at once. Its peer is
 * the engine itself, lmdb or etcd: one durable transaction for each, of the same bytes, with nothing around it.
 */
import { randomBytes } from 'node:crypto';
import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { open } from 'lmdb';
import { EtcdClient } from '../src/store/etcd_client.js';
import { systemClock } from '../src/system/clock.js';
import { ControlClient } from '../test/support/control_client.js';
import { etcdCluster, freePort } from '../test/support/etcd.js';
import { Host } from '../test/support/machine.js';
import type { Benchmark, Report } from './support/benchmark.js';
import { cannotMount } from './support/host.js';
import type { Lab } from './support/lab.js';
import { line } from './support/results.js';

const valueBytes = 1024;
const writers = [1, 32] as const;

export const benchmark: Benchmark = {
  summary:
    'acknowledged creates of secrets, by 1 and by 32 writers; against bare transactions of lmdb and etcd on the same disk',
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

/** A manager, and what its engine takes for as many bytes without anything around it. */
interface Engine {
  name: string;
  clients: readonly ControlClient[];
  /** @param round names what it writes. */
  bare: (count: number, creates: number, round: number) => Promise<Taken>;
}

async function run(
  lab: Lab,
  { rounds = 1, creates = 32 }: Readonly<Record<string, number>>,
): Promise<Report> {
  const endings: (() => unknown)[] = [];
  const teardown = (end: () => unknown): void => void endings.push(end);
  try {
    const engines = [await onLmdb(lab, teardown)];
    const hasEtcd = spawnSync('etcd', ['--version']).status === 0;
    if (hasEtcd) engines.push(await onEtcd(lab, teardown));
    const taken = new Map<string, Taken[]>();
    const note = (name: string, one: Taken): void => {
      taken.set(name, [...(taken.get(name) ?? []), one]);
    };
    let made = 0;
    for (let round = 0; round < rounds; round++) {
      lab.say(`round ${round + 1} of ${rounds}`);
      const value = randomBytes(valueBytes);
      for (const { name, clients, bare } of engines) {
        for (const count of writers) {
          const some = clients.slice(0, count);
          note(
            `${name} ${count}`,
            await atOnce(creates, some, (client) => client.create(`s${made++}`, value)),
          );
          note(`bare ${name} ${count}`, await bare(count, creates, round));
        }
      }
    }
    return report(taken, engines, creates);
  } finally {
    for (const end of endings.toReversed()) await end();
  }
}

type Teardown = (end: () => unknown) => void;

async function clientsOf(host: Host, teardown: Teardown): Promise<ControlClient[]> {
  const clients = await Promise.all(
    Array.from({ length: Math.max(...writers) }, () =>
      ControlClient.on(host.outside('/run/inro/manager.sock')),
    ),
  );
  for (const client of clients) teardown(() => client.close());
  return clients;
}

async function onLmdb(lab: Lab, teardown: Teardown): Promise<Engine> {
  const host = await Host.open({ hostname: 'manager' });
  teardown(() => host.close());
  await host.startManager({ state: lab.path('manager') });
  return {
    name: 'lmdb',
    clients: await clientsOf(host, teardown),
    bare: (count, creates, round) => bareLmdb(lab.path(`bare-${round}-${count}`), creates),
  };
}

/** Of one member: what more members cost is the network's. */
async function onEtcd(lab: Lab, teardown: Teardown): Promise<Engine> {
  const etcd = await etcdCluster({ teardown }, { members: 1, folder: lab.path('etcd') });
  const host = await Host.open({ hostname: 'manager' });
  teardown(() => host.close());
  const { ca, cert, key } = etcd.files;
  await host.startManager({
    state: lab.path('manager-etcd'),
    listen: `127.0.0.1:${await freePort()}`,
    store: `etcd://${etcd.endpoints.join(',')}/inro`,
    'store-ca': ca,
    'store-cert': cert,
    'store-key': key,
  });
  const client = new EtcdClient(etcd, systemClock);
  teardown(() => client.close());
  const value = randomBytes(valueBytes + 512);
  return {
    name: 'etcd',
    clients: await clientsOf(host, teardown),
    bare: (count, creates, round) => {
      let n = 0;
      return atOnce(creates, Array.from({ length: count }), () => {
        const put = { key: Buffer.from(`/bare/${round}/${n++}`), value };
        return client.txn({ success: [{ request: { case: 'requestPut', value: put } }] });
      });
    },
  };
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
async function bareLmdb(path: string, count: number): Promise<Taken> {
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

function report(
  all: ReadonlyMap<string, readonly Taken[]>,
  engines: readonly Engine[],
  creates: number,
): Report {
  const of = (name: string, what: keyof Taken): number[] => (all.get(name) ?? []).map((one) => one[what]);
  const hasEtcd = engines.some(({ name }) => name === 'etcd');
  return {
    conditions: `${creates} secrets of ${valueBytes} bytes in each round; writers, manager and etcd (one member) share the processors`,
    lines: engines.flatMap(({ name }) =>
      writers.flatMap((count) => {
        const who = count === 1 ? '1 writer' : `${count} writers`;
        // lmdb has one writer at a time, whoever asks.
        const peerName = name === 'lmdb' ? 'bare lmdb, 1 writer' : `bare etcd, ${who}`;
        const peer = (what: keyof Taken) => ({ name: peerName, values: of(`bare ${name} ${count}`, what) });
        const values = (what: keyof Taken): number[] => of(`${name} ${count}`, what);
        return [
          line({
            claim: `a create on ${name}, ${who}: the clock for one`,
            unit: 'us',
            values: values('us'),
            peer: peer('us'),
          }),
          line({
            claim: `a create on ${name}, ${who}: p99 until acknowledged`,
            unit: 'us',
            values: values('p99Us'),
            peer: peer('p99Us'),
          }),
        ];
      }),
    ),
    notes: [
      'A create is sealed by its writer, sent, unwrapped and wrapped by the manager, written to five tables, and followed by a line of the audit, both durable before the answer.',
      "The peer's is one durable transaction with one record of the same size: no encryption (but etcd's TLS), no socket of ours, no audit.",
      ...(hasEtcd
        ? []
        : ['etcd is not installed here, so it was not measured: apt-get install etcd-server.']),
    ],
  };
}
