/**
 * A store in memory whose calls can be made to take their time, as those of one on a network do. Nothing is
 * simplified: it passes the same conformance suite.
 */
import { InroError } from '../../src/model/error.js';
import type { Change, Commit, Entry, Store } from '../../src/store/store.js';

export interface FakeStoreOptions {
  /** What is kept over a restart; another one, or none, is another disk. */
  disk?: FakeDisk;
  /** Waited for at the beginning of each call, and once more between a commit's decision and its answer. */
  delay?: (call: 'get' | 'list' | 'commit' | 'answer') => Promise<void>;
}

export class FakeDisk {
  readonly entries = new Map<string, { value: Uint8Array; revision: number }>();
  revision = 0;
}

export function fakeStore({
  disk = new FakeDisk(),
  delay = async () => undefined,
}: FakeStoreOptions = {}): Store {
  const listeners = new Set<(change: Change) => void>();
  const unheard: Change[] = [];
  let closed = false;

  const entry = (key: string): Entry | undefined => {
    const found = disk.entries.get(key);
    return found && { key, value: Uint8Array.from(found.value), revision: found.revision };
  };

  const begin = async (call: 'get' | 'list' | 'commit'): Promise<void> => {
    await delay(call);
    if (closed) throw new Error('this store is closed');
  };

  const decide = ({ checks, puts, deletes }: Commit): Change => {
    for (const { key, revision } of checks) {
      if ((disk.entries.get(key)?.revision ?? 0) !== revision)
        throw new InroError('conflict', `${key} was changed by somebody else`);
    }
    const revision = ++disk.revision;
    for (const { key, value } of puts) disk.entries.set(key, { value: Uint8Array.from(value), revision });
    for (const key of deletes) disk.entries.delete(key);
    return { revision, puts, deletes };
  };

  const announce = (change: Change): void => {
    unheard.push(change);
    if (unheard.length > 1) return; // a listener has committed; whoever tells the first tells this one next
    for (let next = unheard[0]; next !== undefined; unheard.shift(), next = unheard[0])
      for (const listener of listeners) listener(next);
  };

  return {
    async get(key) {
      await begin('get');
      return entry(key);
    },
    async list(prefix) {
      await begin('list');
      const keys = [...disk.entries.keys()].filter((key) => key.startsWith(prefix));
      keys.sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
      return keys.flatMap((key) => entry(key) ?? []);
    },
    async snapshot(use) {
      await begin('list');
      const keys = [...disk.entries.keys()].toSorted();
      const entries = keys.flatMap((key) => entry(key) ?? []);
      return use(
        disk.revision,
        (async function* () {
          for (const one of entries) yield one;
        })(),
      );
    },
    async commit(commit) {
      await begin('commit');
      const change = decide(commit);
      announce(change);
      await delay('answer');
      return change.revision;
    },
    async revision() {
      return disk.revision;
    },
    watch(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    async forgetPast() {},
    async close() {
      closed = true;
    },
  };
}
