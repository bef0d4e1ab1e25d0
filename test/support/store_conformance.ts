/** What every store must do, as named checks that run on any of them. Each check begins with an empty store. */
import assert from 'node:assert/strict';
import { InroError } from '../../src/model/error.js';
import type { Change, Commit, Store } from '../../src/store/store.js';

export interface StoreUnderTest {
  store: Store;
  /** Closes it and opens it again on the same data. */
  reopen(): Promise<Store>;
}

export type StoreCheck = (underTest: StoreUnderTest) => Promise<void>;

export const checks: Record<string, StoreCheck> = {
  'a new store is empty, at revision 0': async ({ store }) => {
    assert.equal(await store.revision(), 0);
    assert.equal(await store.get('a'), undefined);
    assert.deepEqual(await store.list(''), []);
  },

  'a commit puts and deletes as one, and raises the revision by one': async ({ store }) => {
    assert.equal(await store.commit(puts({ a: '1', b: '1' })), 1);
    assert.equal(await store.commit({ ...puts({ b: '2', c: '2' }), deletes: ['a'] }), 2);
    assert.equal(await store.revision(), 2);
    assert.deepEqual(await shown(store), { b: '2@2', c: '2@2' });
    assert.equal(await store.commit(puts({ a: '3' })), 3);
    assert.deepEqual(await shown(store), { a: '3@3', b: '2@2', c: '2@2' });
  },

  'a commit of nothing still counts, and deleting what is not there is no error': async ({ store }) => {
    assert.equal(await store.commit(puts({})), 1);
    assert.equal(await store.commit({ ...puts({}), deletes: ['nothing'] }), 2);
    assert.equal(await store.revision(), 2);
  },

  'values are bytes: none, any, and more than a megabyte of them': async ({ store }) => {
    const values = {
      none: new Uint8Array(),
      all: Uint8Array.from({ length: 256 }, (_, n) => n),
      large: new Uint8Array(1_200_000).fill(7),
    };
    for (const [key, value] of Object.entries(values)) {
      await store.commit({ checks: [], puts: [{ key, value }], deletes: [] });
      const entry = await store.get(key);
      assert.ok(entry !== undefined && Buffer.from(entry.value).equals(value), key);
    }
  },

  'what was handed in or out can be changed without changing the store': async ({ store }) => {
    const value = Buffer.from('before');
    await store.commit({ checks: [], puts: [{ key: 'a', value }], deletes: [] });
    value.fill(0);
    (await store.get('a'))?.value.fill(0);
    (await store.list(''))[0]?.value.fill(0);
    assert.deepEqual(await shown(store), { a: 'before@1' });
  },

  'a snapshot is the store at one revision, whatever is written meanwhile': async ({ store }) => {
    await store.commit(puts({ a: '1', b: '1', d: '1' }));
    await store.commit(puts({ b: '2' }));
    const seen: string[] = [];
    const told = await store.snapshot(async (revision, entries) => {
      for await (const { key, value, revision: own } of entries) {
        seen.push(`${key}=${Buffer.from(value).toString()}@${own}`);
        await store.commit({
          ...puts({ b: 'later', c: 'later', [`z${seen.length}`]: 'later' }),
          deletes: ['d'],
        });
      }
      return revision;
    });
    assert.equal(told, 2);
    assert.deepEqual(seen, ['a=1@1', 'b=2@2', 'd=1@1']);
    assert.deepEqual(Object.keys(await shown(store)), ['a', 'b', 'c', 'z1', 'z2', 'z3']);
    await assert.rejects(
      store.snapshot(async () => {
        throw new Error('no more');
      }),
      /no more/,
    );
  },

  'a check holds for the revision that was read': async ({ store }) => {
    await store.commit(puts({ a: '1', b: '1' }));
    await store.commit({ ...puts({ a: '2' }), checks: [{ key: 'a', revision: 1 }, { key: 'b', revision: 1 }] }); // prettier-ignore
    await store.commit({ ...puts({ new: '3' }), checks: [{ key: 'new', revision: 0 }] });
    await store.commit({ checks: [{ key: 'a', revision: 2 }], puts: [], deletes: ['a'] });
    assert.deepEqual(await shown(store), { b: '1@1', new: '3@3' });
  },

  'a check that does not hold is a conflict, and nothing of the commit is done': async ({ store }) => {
    await store.commit(puts({ a: '1', b: '1' }));
    await store.commit(puts({ a: '2' }));
    for (const check of [
      { key: 'a', revision: 1 },
      { key: 'a', revision: 0 },
      { key: 'a', revision: 3 },
      { key: 'gone', revision: 1 },
    ]) {
      const commit = {
        checks: [{ key: 'b', revision: 1 }, check],
        puts: puts({ b: 'x', c: 'x' }).puts,
        deletes: ['a'],
      };
      await assert.rejects(store.commit(commit), (error: InroError) => {
        assert.ok(error instanceof InroError && error.code === 'conflict' && error.kind === 'temporary');
        return true;
      });
    }
    assert.deepEqual(await shown(store), { a: '2@2', b: '1@1' });
    assert.equal(await store.revision(), 2);
  },

  'a key that was deleted and made anew is not the old one': async ({ store }) => {
    await store.commit(puts({ a: '1' }));
    await store.commit({ checks: [], puts: [], deletes: ['a'] });
    await store.commit(puts({ a: '1' }));
    await assert.rejects(
      store.commit({ ...puts({ a: 'x' }), checks: [{ key: 'a', revision: 1 }] }),
      conflict,
    );
    await assert.rejects(
      store.commit({ ...puts({ a: 'x' }), checks: [{ key: 'a', revision: 0 }] }),
      conflict,
    );
    assert.deepEqual(await shown(store), { a: '1@3' });
  },

  'of many that want to change one thing at once, one wins each time': async ({ store }) => {
    await store.commit(puts({ count: '0' }));
    let conflicts = 0;
    const add = async (): Promise<void> => {
      for (;;) {
        const entry = await store.get('count');
        assert.ok(entry !== undefined);
        const next = String(Number(textOf(entry.value)) + 1);
        const checks = [{ key: 'count', revision: entry.revision }];
        try {
          await store.commit({ ...puts({ count: next }), checks });
          return;
        } catch (error) {
          conflict(error);
          conflicts += 1;
        }
      }
    };
    await Promise.all(Array.from({ length: 20 }, add));
    assert.deepEqual(await shown(store), { count: '20@21' });
    assert.ok(conflicts > 0, 'they did meet');
  },

  'a list has what begins so, in order, and nothing else': async ({ store }) => {
    const keys = [
      'a',
      'a.',
      'a/',
      'a/1',
      'a/10',
      'a/2',
      'a/b/c',
      'a/z',
      'a/~',
      'a/é',
      'a/名',
      'a/\uffff',
      'a/🗝',
      'a0',
      'ab',
      'b',
    ];
    await store.commit(puts(Object.fromEntries([...keys].reverse().map((key) => [key, key]))));
    const listed = async (prefix: string): Promise<string[]> =>
      (await store.list(prefix)).map(({ key }) => key);
    assert.deepEqual(await listed('a/'), keys.slice(2, 13));
    assert.deepEqual(await listed('a/1'), ['a/1', 'a/10']);
    assert.deepEqual(await listed('a'), keys.slice(0, 15));
    assert.deepEqual(await listed('A'), []);
    assert.deepEqual(await listed('a/b/c/'), []);
    assert.deepEqual(await listed(''), keys);
    assert.ok((await store.list('')).every(({ key, value }) => textOf(value) === key));
  },

  'a watcher hears each commit, in order, before whoever made it': async ({ store }) => {
    await store.commit(puts({ x1: '0', x2: '0' }));
    const heard: string[] = [];
    store.watch((change) => heard.push(`${change.revision}: ${told(change)}`));
    for (const [key, gone] of [
      ['a', 'x1'],
      ['b', 'x2'],
    ] as const) {
      await store
        .commit({ ...puts({ [key]: '1', c: '1' }), deletes: [gone] })
        .then((revision) => heard.push(`done ${revision}`));
    }
    assert.deepEqual(heard, ['2: a=1 c=1 -x1', 'done 2', '3: b=1 c=1 -x2', 'done 3']);
  },

  'a watcher hears of nothing that was not done, and of nothing after it has stopped': async ({ store }) => {
    const heard: number[] = [];
    const stop = store.watch(({ revision }) => heard.push(revision));
    await store.commit(puts({ a: '1' }));
    await assert.rejects(
      store.commit({ ...puts({ a: 'x' }), checks: [{ key: 'a', revision: 9 }] }),
      conflict,
    );
    stop();
    await store.commit(puts({ a: '2' }));
    assert.deepEqual(heard, [1]);
  },

  'a watcher that commits at once does not disorder what others hear': async ({ store }) => {
    const heard: number[] = [];
    const more: Promise<number>[] = [];
    store.watch(({ revision }) => {
      if (revision < 4) more.push(store.commit(puts({ b: String(revision) })));
    });
    store.watch(({ revision }) => heard.push(revision));
    await store.commit(puts({ a: '1' }));
    while (more.length > 0) await more.shift();
    assert.deepEqual(heard, [1, 2, 3, 4]);
  },

  'what was acknowledged is there after a restart, with its revisions': async ({ store, reopen }) => {
    await store.commit(puts({ a: '1', b: '1' }));
    await store.commit({ ...puts({ a: '2' }), deletes: ['b'] });
    const again = await reopen();
    assert.equal(await again.revision(), 2);
    assert.deepEqual(await shown(again), { a: '2@2' });
    assert.equal(await again.commit({ ...puts({ c: '3' }), checks: [{ key: 'a', revision: 2 }] }), 3);
  },

  'a store can be closed and opened again and again': async ({ store, reopen }) => {
    await store.commit(puts({ a: '1' }));
    for (let round = 2; round < 6; round++)
      assert.equal(await (await reopen()).commit(puts({ a: String(round) })), round);
  },

  'what is there outlives that the past is forgotten, and so does who listens': async ({ store, reopen }) => {
    await store.commit(puts({ a: '1', b: '1' }));
    await store.commit({ ...puts({ a: '2' }), deletes: ['b'] });
    await store.forgetPast();
    await store.forgetPast();
    const heard: string[] = [];
    store.watch((change) => heard.push(told(change)));
    await store.commit(puts({ c: '3' }));
    assert.deepEqual(heard, ['c=3']);
    const all = { a: '2@2', c: '3@3' };
    assert.deepEqual(await shown(store), all);
    assert.deepEqual(await shown(await reopen()), all);
  },

  'a closed store refuses, it does not crash': async ({ store }) => {
    await store.commit(puts({ a: '1' }));
    await store.close();
    await assert.rejects(store.get('a'));
    await assert.rejects(store.list('a'));
    await assert.rejects(store.commit(puts({ a: '2' })));
  },
};

function puts(values: Record<string, string>): Commit {
  const entries = Object.entries(values).map(([key, value]) => ({ key, value: Buffer.from(value) }));
  return { checks: [], puts: entries, deletes: [] };
}

async function shown(store: Store): Promise<Record<string, string>> {
  const entries = await store.list('');
  return Object.fromEntries(entries.map(({ key, value, revision }) => [key, `${textOf(value)}@${revision}`]));
}

function told({ puts: written, deletes }: Change): string {
  return [
    ...written.map(({ key, value }) => `${key}=${textOf(value)}`),
    ...deletes.map((key) => `-${key}`),
  ].join(' ');
}

function textOf(value: Uint8Array): string {
  return Buffer.from(value).toString();
}

function conflict(error: unknown): true {
  assert.ok(error instanceof InroError && error.code === 'conflict', String(error));
  return true;
}
