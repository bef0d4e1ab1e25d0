import { randomBytes } from 'node:crypto';
import test, { type ExecutionContext } from 'ava';
import type { Clock } from '../../src/model/clock.js';
import { drawKey } from '../../src/crypto/exchange.js';
import { openArena } from '../../src/crypto/arena.js';
import { recordSealer } from '../../src/crypto/record_box.js';
import { openEtcdStore } from '../../src/store/etcd.js';
import type { Change, Store } from '../../src/store/store.js';
import { systemClock } from '../../src/system/clock.js';
import { etcdCluster, type EtcdCluster } from '../support/etcd.js';
import { inLab, labStep } from '../support/lab.js';
import { refusesAsync } from '../support/refuses.js';
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
}

async function open(t: ExecutionContext, { cluster, prefix }: Opening, clock = systemClock): Promise<Store> {
  const { endpoints, certificates } = cluster;
  const store = await openEtcdStore({ endpoints, certificates, prefix, sealer, clock, random: randomBytes });
  t.teardown(() => store.close());
  return store;
}

function fresh(members: number): Opening {
  const cluster = clusters.get(members);
  if (cluster === undefined) throw new Error(`no etcd of ${members}`);
  return { cluster, prefix: `/test${prefixes++}/` };
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
