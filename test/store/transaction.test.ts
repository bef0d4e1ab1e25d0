import { create } from '@bufbuild/protobuf';
import test from 'ava';
import { InroError } from '../../src/model/error.js';
import { NodeRecordSchema, SecretRecordSchema } from '../../src/proto/gen/inro/v1/records_pb.js';
import type { Store } from '../../src/store/store.js';
import { tables } from '../../src/store/tables.js';
import { transact, type Transaction } from '../../src/store/transaction.js';
import { fakeStore } from '../support/fake_store.js';
import { refusesAsync } from '../support/refuses.js';

const { secrets } = tables;
const secret = (id: string, name = id) => create(SecretRecordSchema, { id, name });

/** Somebody else's change, between what a transaction reads and its commit. */
async function meanwhile(store: Store, id: string, name: string): Promise<void> {
  await transact(store, async (tx) => tx.put(secrets, id, secret(id, name)));
}

async function nameOf(store: Store, id: string): Promise<string | undefined> {
  return (await transact(store, (tx) => tx.get(secrets, id))).result?.name;
}

test('what is decided is committed as one', async (t) => {
  const store = fakeStore();
  const { result, revision } = await transact(store, async (tx) => {
    tx.put(secrets, 's1', secret('s1'));
    tx.put(secrets, 's2', secret('s2'));
    tx.putBytes('plain', Buffer.from('bytes'));
    return 'decided';
  });
  t.deepEqual({ result, revision }, { result: 'decided', revision: 1 });
  t.deepEqual(
    (await transact(store, (tx) => tx.list(secrets))).result.map(({ id }) => id),
    ['s1', 's2'],
  );
  t.is(Buffer.from((await store.get('plain'))?.value ?? []).toString(), 'bytes');
});

test('reading alone commits nothing', async (t) => {
  const store = fakeStore();
  await meanwhile(store, 's1', 'a');
  t.is((await transact(store, (tx) => tx.get(secrets, 's1'))).revision, 1);
  t.is(await store.revision(), 1);
});

test('when what was read has changed meanwhile, all is decided again on what is there now', async (t) => {
  const store = fakeStore();
  await meanwhile(store, 's1', 'a');
  const seen: (string | undefined)[] = [];
  await transact(store, async (tx) => {
    const record = await tx.get(secrets, 's1');
    seen.push(record?.name);
    if (seen.length === 1) await meanwhile(store, 's1', 'b');
    tx.put(secrets, 's1', secret('s1', `${record?.name}+`));
  });
  t.deepEqual(seen, ['a', 'b']);
  t.is(await nameOf(store, 's1'), 'b+');
});

test('that something was not there is a thing that was read, too', async (t) => {
  const store = fakeStore();
  let tries = 0;
  await transact(store, async (tx) => {
    const there = await tx.get(secrets, 's1');
    if (++tries === 1) await meanwhile(store, 's1', 'first');
    if (there === undefined) tx.put(secrets, 's1', secret('s1', 'second'));
  });
  t.is(tries, 2);
  t.is(await nameOf(store, 's1'), 'first');
});

test('what was listed must still be so', async (t) => {
  const store = fakeStore();
  await meanwhile(store, 's1', 'a');
  await meanwhile(store, 's2', 'a');
  let tries = 0;
  await transact(store, async (tx) => {
    const names = (await tx.list(secrets)).map(({ name }) => name);
    if (++tries === 1) await meanwhile(store, 's2', 'b');
    tx.put(secrets, 'all', secret('all', names.join('+')));
  });
  t.is(await nameOf(store, 'all'), 'a+b');
});

// A decision on an older reading must not pass because a younger one of the same key was checked.
const readings: Record<string, (tx: Transaction) => Promise<string | undefined>> = {
  'get, then get': async (tx) => (await tx.get(secrets, 's1'))?.name,
  'get, then list': async (tx) => (await tx.list(secrets)).find(({ id }) => id === 's1')?.name,
};
for (const [name, second] of Object.entries(readings)) {
  test(`of two readings in one transaction the first counts: ${name}`, async (t) => {
    const store = fakeStore();
    await meanwhile(store, 's1', 'a');
    let tries = 0;
    await transact(store, async (tx) => {
      const first = (await tx.get(secrets, 's1'))?.name;
      if (++tries === 1) await meanwhile(store, 's1', 'b');
      await second(tx);
      tx.put(secrets, 's1', secret('s1', `${first}+`));
    });
    t.is(await nameOf(store, 's1'), 'b+', 'the change in between is not lost');
  });
}

test('a transaction reads what it wrote itself', async (t) => {
  const store = fakeStore();
  await meanwhile(store, 's1', 'a');
  await meanwhile(store, 's2', 'b');
  await transact(store, async (tx) => {
    tx.put(secrets, 's1', secret('s1', 'changed'));
    tx.delete(secrets, 's2');
    t.is((await tx.get(secrets, 's1'))?.name, 'changed');
    t.is(await tx.get(secrets, 's2'), undefined);
    t.deepEqual(
      (await tx.list(secrets)).map(({ name }) => name),
      ['changed'],
    );
    tx.putBytes('k', Buffer.from('1'));
    t.is(Buffer.from((await tx.getBytes('k')) ?? []).toString(), '1');
    tx.deleteBytes('k');
    t.is(await tx.getBytes('k'), undefined);
    t.is(await nameOf(store, 's1'), 'a', 'nobody else does before the commit');
  });
  t.is(await nameOf(store, 's1'), 'changed');
  t.is(await nameOf(store, 's2'), undefined);
});

test('a list within a transaction has what it has just put', async (t) => {
  const store = fakeStore();
  await meanwhile(store, 's2', 'b');
  await transact(store, async (tx) => {
    tx.put(secrets, 's1', secret('s1', 'new'));
    tx.put(secrets, 's3', secret('s3', 'new'));
    tx.put(tables.nodes, 'n1', create(NodeRecordSchema, { id: 'n1' }));
    t.deepEqual(
      (await tx.list(secrets)).map(({ id }) => id),
      ['s1', 's2', 's3'],
    );
    t.deepEqual(
      (await tx.list(secrets, 's3')).map(({ id }) => id),
      ['s3'],
    );
  });
});

test('what a decision throws ends it, with nothing done and no second try', async (t) => {
  const store = fakeStore();
  let tries = 0;
  const decide = async (tx: Transaction): Promise<void> => {
    tries += 1;
    tx.put(secrets, 's1', secret('s1'));
    throw new InroError('in_use', 'it is in use');
  };
  await refusesAsync(t, transact(store, decide), 'in_use');
  t.deepEqual([tries, await store.revision()], [1, 0]);
});

test('who never gets through is told so, after a bounded number of tries', async (t) => {
  const store = fakeStore();
  let tries = 0;
  const decide = async (tx: Transaction): Promise<void> => {
    await tx.get(secrets, 's1');
    await meanwhile(store, 's1', String(++tries));
    tx.put(secrets, 's1', secret('s1', 'mine'));
  };
  const error = await refusesAsync(t, transact(store, decide), 'conflict');
  t.is(error.kind, 'temporary');
  t.is(tries, 16);
});

test('many at once on one record all get through, one after the other', async (t) => {
  const store = fakeStore({ delay: () => new Promise((resolve) => setImmediate(resolve)) });
  await meanwhile(store, 's1', '0');
  const add = (): Promise<unknown> =>
    transact(store, async (tx) => {
      const record = await tx.get(secrets, 's1');
      tx.put(secrets, 's1', secret('s1', String(Number(record?.name) + 1)));
    });
  await Promise.all(Array.from({ length: 10 }, add));
  t.is(await nameOf(store, 's1'), '10');
});

test('a record that cannot be read names its key', async (t) => {
  const store = fakeStore();
  await store.commit({
    checks: [],
    puts: [{ key: 'secret/s1', value: Uint8Array.of(0xff, 0xff) }],
    deletes: [],
  });
  const error = await refusesAsync(
    t,
    transact(store, (tx) => tx.get(secrets, 's1')),
    'store_corrupt',
    /secret\/s1/,
  );
  t.regex(error.remedy ?? '', /backup/);
  await refusesAsync(
    t,
    transact(store, (tx) => tx.list(secrets)),
    'store_corrupt',
    /secret\/s1/,
  );
});
