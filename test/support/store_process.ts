/**
 * A process that uses a store and says how it went, for tests in which that process may die of it:
 *
 *   store_process.js open DIR      what is in it
 *   store_process.js whole DIR     a digest of all that is in it, then changes, and whether that is still there
 *   store_process.js fill DIR      commits until the disk is full, then looks at what is left
 *   store_process.js endless DIR   commits and acknowledges for ever
 */
import { createHash } from 'node:crypto';
import { pathToFileURL } from 'node:url';
import { asInroError } from '../../src/model/error.js';
import { openLmdbStore } from '../../src/store/lmdb.js';
import type { Store } from '../../src/store/store.js';

export interface Said {
  error?: { code: string; message: string; remedy: string | undefined };
  /** Numbers of the commits that were acknowledged. */
  acknowledged?: number;
  keys?: string[];
  revision?: number;
  digest?: string;
}

function say(said: Said): void {
  process.stdout.write(`${JSON.stringify(said)}\n`);
}

function sayError(thrown: unknown): void {
  const { code, message, remedy } = asInroError(thrown);
  say({ error: { code, message, remedy } });
}

async function open(folder: string): Promise<void> {
  const store = openLmdbStore(folder);
  const keys = (await store.list('k/')).map(({ key }) => key);
  say({ keys, revision: await store.revision() });
  await store.close();
}

async function whole(folder: string): Promise<void> {
  const digestOf = async (store: Store): Promise<string> => {
    const hash = createHash('sha256');
    for (const { key, value, revision } of await store.list('k/'))
      hash.update(`${key}@${revision}=`).update(value);
    return hash.digest('hex');
  };
  let store = openLmdbStore(folder);
  const digest = await digestOf(store);
  for (let n = 0; n < 60; n++)
    await store.commit({
      checks: [],
      puts: [{ key: `later/${n}`, value: new Uint8Array(n % 7 === 0 ? 20_000 : 500).fill(n) }],
      deletes: n > 20 ? [`later/${n - 20}`] : [],
    });
  await store.close();
  store = openLmdbStore(folder);
  say({ digest, keys: [String((await digestOf(store)) === digest)] });
  await store.close();
}

async function fill(folder: string): Promise<void> {
  const store = openLmdbStore(folder);
  let acknowledged = 0;
  try {
    for (;;) {
      const puts = [`k/${acknowledged + 1}/a`, `k/${acknowledged + 1}/b`].map((key) => ({
        key,
        value: large,
      }));
      acknowledged = await store.commit({ checks: [], puts, deletes: [] });
    }
  } catch (error) {
    sayError(error);
  }
  say({
    acknowledged,
    keys: (await store.list('k/')).map(({ key }) => key),
    revision: await store.revision(),
  });
  await store.close();
  await open(folder);
}

async function endless(folder: string): Promise<void> {
  const store = openLmdbStore(folder);
  for (let n = 1; ; n++) {
    const puts = [{ key: `k/${String(n).padStart(6, '0')}`, value: Buffer.from('value') }];
    say({ acknowledged: await store.commit({ checks: [], puts, deletes: [] }) });
  }
}

const large = new Uint8Array(100_000).fill(0x5a);

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const [, , mode = '', folder = ''] = process.argv;
  const todo = { open, whole, fill, endless }[mode];
  await todo?.(folder).catch(sayError);
}
