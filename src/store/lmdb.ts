/** The embedded store: lmdb, one durable transaction for each commit. */
import { statfsSync } from 'node:fs';
import { join } from 'node:path';
import { open, type RootDatabase } from 'lmdb';
import { InroError } from '../model/error.js';
import { faultOf } from './lmdb_file.js';
import { packRecord, unpackRecord } from './record.js';
import type { Change, Commit, Entry, Store } from './store.js';

const revisionKey = '\u0000revision';
const remedy =
  "move the manager's folder away and restore it from a backup: inro manager restore (docs/operations.md)";
/** Of one transaction, when a store is filled. */
const fillBytes = 4 * 1024 * 1024;
const fillEntries = 1_000;
/** Below this a failed write is taken for a full disk: lmdb reports EIO, not ENOSPC. */
const fullBelowBytes = 256 * 1024;

/** @param path a folder that exists. @throws store_corrupt, state_unusable. */
export function openLmdbStore(path: string): Store {
  const database = openDatabase(path);
  const listeners = new Set<(change: Change) => void>();
  const unheard: Change[] = [];
  const currentRevision = (): number => readRevision(database.getBinary(revisionKey));

  return {
    get: async (key) => {
      const stored = database.getBinary(key);
      return stored === undefined ? undefined : entry(key, stored);
    },
    list: async (prefix) => {
      const entries: Entry[] = [];
      for (const { key, value } of database.getRange({ start: prefix, snapshot: true })) {
        if (!key.startsWith(prefix)) break;
        if (key !== revisionKey) entries.push(entry(key, value));
      }
      return entries;
    },
    snapshot: async (use) => {
      const transaction = database.useReadTransaction();
      try {
        const [head] = database.getRange({ start: revisionKey, limit: 1, transaction });
        const revision = head?.key === revisionKey ? readRevision(head.value) : 0;
        return await use(revision, entriesOf(database, transaction));
      } finally {
        transaction.done();
      }
    },
    commit: async (commit) => {
      const revision = write(database, path, commit, currentRevision);
      unheard.push({ revision, puts: commit.puts, deletes: commit.deletes });
      if (unheard.length > 1) return revision; // a listener commits: who tells it the first change tells it this one next
      for (let next = unheard[0]; next !== undefined; unheard.shift(), next = unheard[0])
        for (const listener of listeners) listener(next);
      return revision;
    },
    revision: async () => currentRevision(),
    watch: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    // It gives nothing of it back.
    forgetPast: async () => undefined,
    close: () => database.close(),
  };
}

async function* entriesOf(
  database: RootDatabase<Buffer, string>,
  transaction: ReturnType<typeof database.useReadTransaction>,
): AsyncGenerator<Entry> {
  for (const { key, value } of database.getRange({ transaction })) {
    if (key !== revisionKey) yield entry(key, value);
  }
}

/**
 * A store that was elsewhere, with its revisions; the folder has none yet.
 * @param path a folder that exists. @throws store_full, state_unusable.
 */
export async function fillLmdbStore(
  path: string,
  revision: number,
  entries: AsyncIterable<Entry>,
): Promise<void> {
  const database = openDatabase(path);
  try {
    const some: Entry[] = [];
    let bytes = 0;
    const write = (): void => {
      inWords(path, () =>
        database.transactionSync(() => {
          for (const { key, value, revision: own } of some)
            database.putSync(key, packRecord(key, own, value));
        }),
      );
      some.length = 0;
      bytes = 0;
    };
    for await (const one of entries) {
      some.push(one);
      bytes += one.value.length;
      if (bytes > fillBytes || some.length >= fillEntries) write();
    }
    write();
    inWords(path, () => database.putSync(revisionKey, packRecord(revisionKey, revision, new Uint8Array())));
  } finally {
    await database.close();
  }
}

function openDatabase(path: string): RootDatabase<Buffer, string> {
  const options = {
    path,
    encoding: 'binary' as const,
    // With overlapping syncs, or asynchronous transactions, a full disk hangs or throws twice.
    overlappingSync: false,
    noSubdir: false,
    maxDbs: 1,
    permissionsMode: 0o600, // known to lmdb, but not to its types
  };
  try {
    const fault = faultOf(join(path, 'data.mdb'));
    if (fault !== undefined) throw corrupt(path, fault);
    return open<Buffer, string>(options);
  } catch (error) {
    if (error instanceof InroError) throw error;
    const { message } = error as Error;
    if (/MDB_INVALID|MDB_CORRUPTED|MDB_VERSION|not an LMDB|corrupt/i.test(message))
      throw corrupt(path, message, error);
    throw new InroError('state_unusable', `the store in ${path} cannot be opened: ${message}`, {
      remedy: 'check that the folder belongs to this user and that its disk has room',
      cause: error,
    });
  }
}

function corrupt(path: string, fault: string, cause?: unknown): InroError {
  return new InroError('store_corrupt', `the store in ${path} is damaged: ${fault}`, {
    remedy,
    cause,
  });
}

function write(
  database: RootDatabase<Buffer, string>,
  path: string,
  commit: Commit,
  currentRevision: () => number,
): number {
  return inWords(path, () =>
    database.transactionSync(() => {
      for (const { key, revision } of commit.checks) {
        const stored = database.getBinary(key);
        const found = stored === undefined ? 0 : entry(key, stored).revision;
        if (found !== revision) throw new InroError('conflict', `${key} was changed by somebody else`);
      }
      const revision = currentRevision() + 1;
      for (const { key, value } of commit.puts) database.putSync(key, packRecord(key, revision, value));
      for (const key of commit.deletes) database.removeSync(key);
      database.putSync(revisionKey, packRecord(revisionKey, revision, new Uint8Array()));
      return revision;
    }),
  );
}

/** @throws store_full, state_unusable; what `write` throws itself as it is. */
function inWords<T>(path: string, write: () => T): T {
  try {
    return write();
  } catch (error) {
    if (error instanceof InroError) throw error;
    const { bavail, bsize } = statfsSync(path);
    if (bavail * bsize < fullBelowBytes) {
      throw new InroError('store_full', `the disk that holds ${path} is full; nothing was changed`, {
        remedy: 'free some space there and try again',
        cause: error,
      });
    }
    throw new InroError(
      'state_unusable',
      `the store in ${path} could not be written: ${(error as Error).message}; nothing was changed`,
      {
        remedy: 'check that disk (dmesg, mount options), then try again',
        cause: error,
      },
    );
  }
}

function readRevision(stored: Buffer | undefined): number {
  return stored === undefined ? 0 : unpackRecord(revisionKey, stored, remedy).revision;
}

function entry(key: string, stored: Buffer): Entry {
  const { revision, value } = unpackRecord(key, stored, remedy);
  return { key, value: new Uint8Array(value), revision };
}
