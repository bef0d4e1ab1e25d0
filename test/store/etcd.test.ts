import { randomBytes } from 'node:crypto';
import test, { type ExecutionContext } from 'ava';
import { pino } from 'pino';
import type { Clock } from '../../src/model/clock.js';
import { drawKey } from '../../src/crypto/exchange.js';
import { openArena } from '../../src/crypto/arena.js';
import { recordSealer } from '../../src/crypto/record_box.js';
import { openEtcdStore, type Fence } from '../../src/store/etcd.js';
import { EtcdLead, type Term } from '../../src/store/etcd_lead.js';
import type { Change, Store } from '../../src/store/store.js';
import { systemClock } from '../../src/system/clock.js';
import { etcdCluster, type EtcdCluster } from '../support/etcd.js';
import { inLab, labStep } from '../support/lab.js';
import { refusesAsync } from '../support/refuses.js';
import { slowDisk } from '../support/slow_disk.js';
import { checks } from '../support/store_conformance.js';

const clusters = new Map<number, EtcdCluster>();
const endings: (() => unknown)[] = [];

test.before(async (t) => {
  if (!inLab) return;
  t.timeout(120_000);
  const lasting = { teardown: (end: () => unknown) => void endings.push(end) };
  for (const members of [1, 3]) clusters.set(members, await etcdCluster(lasting, { members }));
});

test.after.always(async () => {
  for (const end of endings.toReversed()) await end();
});

let prefixes = 0;
const arena = openArena(64 * 1024);
const sealer = recordSealer(drawKey(arena));

interface Opening {
  cluster: EtcdCluster;
  prefix: string;
  fence?: Fence;
}

async function open(
  t: ExecutionContext,
  { cluster, prefix, ...fenced }: Opening,
  clock = systemClock,
): Promise<Store> {
  const { endpoints, certificates } = cluster;
  const store = await openEtcdStore({
    endpoints,
    certificates,
    prefix,
    sealer,
    ...fenced,
    clock,
    random: randomBytes,
  });
  t.teardown(() => store.close());
  return store;
}

function fresh(members: number): Opening {
  const cluster = clusters.get(members);
  if (cluster === undefined) throw new Error(`no etcd of ${members}`);
  return { cluster, prefix: `/test${prefixes++}/` };
}

async function candidate(t: ExecutionContext, { cluster, prefix }: Opening, id: string): Promise<EtcdLead> {
  const { endpoints, certificates } = cluster;
  const self = { id, address: `${id}:1` };
  const log = pino({ level: 'silent' });
  const lead = await EtcdLead.join({
    endpoints,
    certificates,
    prefix,
    sealer,
    self,
    clock: systemClock,
    log,
  });
  t.teardown(() => lead.close());
  return lead;
}

async function led(lead: EtcdLead): Promise<{ term: Term; fence: Fence; broken: () => boolean }> {
  const term = await lead.lead(AbortSignal.timeout(30_000));
  if (term === undefined) throw new Error('it does not lead');
  let isBroken = false;
  const onBroken = (): void => void (isBroken = true);
  return { term, fence: { ...term.fence, onBroken }, broken: () => isBroken };
}

function put(key: string, value = key) {
  return { checks: [], puts: [{ key, value: Buffer.from(value) }], deletes: [] };
}

for (const members of [1, 3]) {
  for (const [name, check] of Object.entries(checks)) {
    labStep(`etcd of ${members}: ${name}`, async (t) => {
      t.timeout(60_000);
      const opening = fresh(members);
      let store = await open(t, opening);
      const reopen = async (): Promise<Store> => {
        await store.close();
        store = await open(t, opening);
        return store;
      };
      await t.notThrowsAsync(check({ store, reopen }));
    });
  }
}

for (const [name, check] of Object.entries(checks)) {
  labStep(`etcd, by the one that leads: ${name}`, async (t) => {
    t.timeout(60_000);
    const opening = fresh(1);
    const { fence } = await led(await candidate(t, opening, 'a'));
    let store = await open(t, { ...opening, fence });
    const reopen = async (): Promise<Store> => {
      await store.close();
      store = await open(t, { ...opening, fence });
      return store;
    };
    await t.notThrowsAsync(check({ store, reopen }));
  });
}

labStep('one leads at a time; who does not any more changes nothing, whatever it believes', async (t) => {
  t.timeout(90_000);
  const opening = fresh(3);
  const [a, b] = [await candidate(t, opening, 'a'), await candidate(t, opening, 'b')];
  const first = await led(a);
  const store = await open(t, { ...opening, fence: first.fence });
  await store.commit(put('by a'));
  t.is(await b.lead(AbortSignal.timeout(3_000)), undefined);
  t.is(b.leader?.address, 'a:1');
  t.deepEqual(b.members.map(({ id }) => id).toSorted(), ['a', 'b']);
  // Its key is taken away under it; it will hear of that only when it looks.
  opening.cluster.ctl('del', `${opening.prefix}manager/leader`);
  const second = await led(b);
  const other = await open(t, { ...opening, fence: second.fence });
  await other.commit(put('by b'));
  await refusesAsync(t, store.commit(put('by a, late')), 'not_leader', /does not lead any more/);
  t.true(first.broken());
  t.false(second.broken());
  t.deepEqual(
    (await other.list('')).map(({ key }) => key),
    ['by a', 'by b'],
  );
  while (!first.term.lost.aborted) await systemClock.sleep(50);
  t.true(first.term.isOver());
  t.false(second.term.isOver());
  // Given back, it is free at once.
  await second.term.end();
  t.true(second.term.isOver());
  await refusesAsync(t, other.commit(put('by b, late')), 'not_leader');
  const third = await led(a);
  await (await open(t, { ...opening, fence: third.fence })).commit(put('by a again'));
});

labStep('a leader that etcd does not hear of is deposed before another one leads', async (t) => {
  t.timeout(90_000);
  const opening = fresh(1);
  const gate = { isShut: false };
  // What it would do stands still; what it knows of time does not.
  const sleep: Clock['sleep'] = async (...args) => {
    while (gate.isShut) await systemClock.sleep(20);
    await systemClock.sleep(...args);
  };
  const { endpoints, certificates } = opening.cluster;
  const stopped = await EtcdLead.join({
    endpoints,
    certificates,
    prefix: opening.prefix,
    sealer,
    self: { id: 'a', address: 'a:1' },
    clock: { ...systemClock, sleep },
    log: pino({ level: 'silent' }),
  });
  t.teardown(() => stopped.close());
  const { term } = await led(stopped);
  gate.isShut = true;
  const next = await led(await candidate(t, opening, 'b'));
  t.true(term.isOver());
  t.true(term.lost.aborted);
  t.false(next.term.isOver());
  gate.isShut = false;
});

labStep('two on one store: one order, each hears all of it, and counts are never lost', async (t) => {
  t.timeout(60_000);
  const opening = fresh(3);
  const stores = await Promise.all([open(t, opening), open(t, opening)]);
  const heard = stores.map((store) => {
    const changes: Change[] = [];
    store.watch((change) => changes.push(change));
    return changes;
  });
  await stores[0]?.commit(put('count', '0'));
  await Promise.all(stores.flatMap((store) => [1, 2, 3].map(() => count(store, 10))));
  const entry = await stores[1]?.get('count');
  t.is(Buffer.from(entry?.value ?? []).toString(), '60');
  t.is(entry?.revision, 61);
  while (heard.some((changes) => (changes.at(-1)?.revision ?? 0) < 61)) await systemClock.sleep(20);
  for (const changes of heard)
    t.deepEqual(
      changes.map(({ revision }) => revision),
      Array.from({ length: 61 }, (_, n) => n + 1),
    );
  t.deepEqual(heard[0], heard[1]);
});

async function endlessly(act: (n: number) => Promise<unknown>): Promise<never> {
  for (let n = 0; ; n++) await act(n);
}

async function count(store: Store, times: number): Promise<void> {
  for (let done = 0; done < times;) {
    const entry = await store.get('count');
    if (entry === undefined) throw new Error('no count');
    const next = String(Number(Buffer.from(entry.value).toString()) + 1);
    try {
      await store.commit({ ...put('count', next), checks: [{ key: 'count', revision: entry.revision }] });
      done++;
    } catch (error) {
      if ((error as { code?: string }).code !== 'conflict') throw error;
    }
  }
}

labStep(
  'members die, the leader among them, while two commit: what was acknowledged is there, once',
  async (t) => {
    t.timeout(180_000);
    const opening = fresh(3);
    const { cluster } = opening;
    const stores = await Promise.all([open(t, opening), open(t, opening)]);
    await stores[0]?.commit(put('count', '0'));
    const writing = new AbortController();
    const acknowledged = [0, 0];
    const failures: unknown[] = [];
    const writers = stores.map(async (store, n) => {
      while (!writing.signal.aborted) {
        try {
          await count(store, 1);
          acknowledged[n] = (acknowledged[n] ?? 0) + 1;
        } catch (error) {
          failures.push(error);
        }
      }
    });
    for (let round = 0; round < 6; round++) {
      await systemClock.sleep(700);
      const victim =
        round % 2 === 0 ? cluster.leader() : (cluster.members[round % 3] as (typeof cluster.members)[0]);
      await victim.kill();
      await systemClock.sleep(2_500);
      await victim.start();
      await systemClock.sleep(1_500);
    }
    writing.abort();
    await Promise.all(writers);
    t.deepEqual(failures, []);
    const entry = await stores[0]?.get('count');
    const [first = 0, second = 0] = acknowledged;
    t.true(first > 0 && second > 0);
    t.is(Number(Buffer.from(entry?.value ?? []).toString()), first + second);
  },
);

labStep(
  'a slow disk makes commits wait; one that stands still makes them fail, and say what they know',
  async (t) => {
    t.timeout(180_000);
    const disk = slowDisk(t);
    const cluster = await etcdCluster(t, { members: 1, within: () => disk.through });
    const opening = { cluster, prefix: '/slow/' };
    const { fence, term } = await led(await candidate(t, opening, 'a'));
    const store = await open(t, { ...opening, fence });
    const acknowledged: string[] = [];
    const tried: string[] = [];
    const write = async (key: string): Promise<void> => {
      tried.push(key);
      await store.commit(put(key));
      acknowledged.push(key);
    };
    disk.writes(20);
    for (let n = 0; n < 20; n++) await write(`slow ${n}`);
    disk.writes(1);
    const failures: string[] = [];
    for (let n = 0; n < 3; n++) {
      try {
        await write(`still ${n}`);
      } catch (error) {
        failures.push((error as Error).message);
      }
    }
    for (const words of failures) t.regex(words, /whether the change was made is not known|does not lead/);
    t.log(`${failures.length} of 3 failed`);
    disk.writes(undefined);
    const fresher = term.isOver() ? await led(await candidate(t, opening, 'b')) : { fence };
    const again = await open(t, { ...opening, fence: fresher.fence });
    await again.commit(put('after'));
    const keys = (await again.list('')).map(({ key }) => key);
    for (const key of acknowledged) t.true(keys.includes(key), key);
    for (const key of keys) t.true(tried.includes(key) || key === 'after', key);
  },
);

labStep('an etcd without a majority: it is said, and nothing is done; then it goes on', async (t) => {
  t.timeout(120_000);
  const opening = fresh(3);
  const { members } = opening.cluster;
  const store = await open(t, opening);
  await store.commit(put('before'));
  const gone = members.slice(0, 2);
  for (const member of gone) await member.kill();
  await refusesAsync(t, store.get('before'), 'unreachable', /does not answer/);
  await refusesAsync(t, store.commit(put('lost')), 'unreachable', /whether the change was made is not known/);
  for (const member of gone) await member.start();
  await store.commit(put('after'));
  const keys = (await store.list('')).map(({ key }) => key);
  t.true(keys.includes('before') && keys.includes('after'), keys.join(' '));
});

labStep('what somebody else writes below the prefix is found', async (t) => {
  const opening = fresh(1);
  const { cluster, prefix } = opening;
  const store = await open(t, opening);
  await store.commit(put('a'));
  cluster.ctl('put', `${prefix}data/a`, 'x');
  await refusesAsync(t, store.get('a'), 'store_corrupt', /was not written by this cluster/);
  await refusesAsync(
    t,
    endlessly(() => store.commit(put('b'))),
    'store_corrupt',
    /was not written by this cluster/,
  );
  await refusesAsync(t, open(t, opening), 'store_corrupt', /was not written by this cluster/);
});

labStep('an etcd that forgot what a store had not heard: it ends, and opening it again helps', async (t) => {
  t.timeout(60_000);
  const opening = fresh(1);
  const { cluster } = opening;
  const member = cluster.members[0] as (typeof cluster.members)[0];
  let opened = (): void => undefined;
  const gate = new Promise<void>((resolve) => (opened = resolve));
  const clock: Clock = { ...systemClock, sleep: (...args) => gate.then(() => systemClock.sleep(...args)) };
  const store = await open(t, opening, clock);
  await store.commit(put('a'));
  await member.kill();
  await member.start();
  const other = await open(t, opening);
  await other.commit(put('b'));
  await other.commit(put('c'));
  const [status] = JSON.parse(cluster.ctl('endpoint', 'status', '-w', 'json')) as {
    Status: { header: { revision: number } };
  }[];
  cluster.ctl('compact', String(status?.Status.header.revision));
  opened();
  await refusesAsync(
    t,
    endlessly(() => store.commit(put('d'))),
    'state_unusable',
    /forgot changes/,
  );
  t.true((await (await open(t, opening)).list('')).length >= 3);
});

labStep('what was replaced or deleted is given to nobody once the past is forgotten', async (t) => {
  const opening = fresh(3);
  const { cluster, prefix } = opening;
  const [store, other] = [await open(t, opening), await open(t, opening)];
  await store.commit(put('a', 'former'));
  const [{ header }] = [
    JSON.parse(cluster.ctl('get', `${prefix}head`, '-w', 'json')) as { header: { revision: number } },
  ];
  await store.commit(put('a', 'present'));
  const past = (): string =>
    cluster.ctl('get', `${prefix}data/a`, `--rev=${header.revision}`, '--print-value-only');
  t.true(past().length > 0);
  await store.forgetPast();
  await other.forgetPast();
  t.throws(past, { message: /has been compacted/ });
  await other.commit(put('b'));
  t.is(Buffer.from((await store.get('a'))?.value ?? []).toString(), 'present');
});

labStep('a full etcd changes nothing and says how to free it', async (t) => {
  t.timeout(120_000);
  const cluster = await etcdCluster(t, {
    members: 1,
    args: ['--quota-backend-bytes', String(4 * 1024 * 1024)],
  });
  const store = await open(t, { cluster, prefix: '/full/' });
  const large = Buffer.alloc(500_000, 7);
  await refusesAsync(
    t,
    endlessly((n) => store.commit({ checks: [], puts: [{ key: `k${n}`, value: large }], deletes: [] })),
    'store_full',
    /nothing was changed/,
  );
  const held = await store.revision();
  t.is((await store.list('')).length, held);
  await refusesAsync(
    t,
    store.commit({ checks: [], puts: [{ key: 'huge', value: Buffer.alloc(3_000_000) }], deletes: [] }),
    'too_large',
    /takes no request of that size/,
  );
});
