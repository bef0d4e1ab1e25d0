/** The embedded store: lmdb, one durable transaction for each commit. */
import { statfsSync } from 'node:fs';
import { join } from 'node:path';
import { open, type RootDatabase } from 'lmdb';
import { sha256 } from '../crypto/signing.js';
import { InroError } from '../model/error.js';
import { faultOf } from './lmdb_file.js';
import type { Change, Commit, Entry, Store } from './store.js';

const revisionKey = '\u0000revision';
const revisionBytes = 8;
const checkBytes = 8;
const headBytes = revisionBytes + checkBytes;
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
          for (const { key, value, revision: own } of some) database.putSync(key, withHead(key, own, value));
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
    inWords(path, () => database.putSync(revisionKey, withHead(revisionKey, revision, new Uint8Array())));
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
      for (const { key, value } of commit.puts) database.putSync(key, withHead(key, revision, value));
      for (const key of commit.deletes) database.removeSync(key);
      database.putSync(revisionKey, withHead(revisionKey, revision, new Uint8Array()));
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

/** revision (8 bytes, big endian) | check (8) | value. The check is of key, revision and value: a disk may give back something else. */
function withHead(key: string, revision: number, value: Uint8Array): Buffer {
  const stored = Buffer.alloc(headBytes + value.length);
  stored.writeBigUInt64BE(BigInt(revision));
  stored.set(value, headBytes);
  checkOf(key, stored).copy(stored, revisionBytes);
  return stored;
}

function checkOf(key: string, stored: Buffer): Buffer {
  const parts = [Buffer.from(`${key}\0`), stored.subarray(0, revisionBytes), stored.subarray(headBytes)];
  return Buffer.from(sha256(Buffer.concat(parts))).subarray(0, checkBytes);
}

/** @throws store_corrupt */
function checked(key: string, stored: Buffer): Buffer {
  if (stored.length >= headBytes && checkOf(key, stored).equals(stored.subarray(revisionBytes, headBytes)))
    return stored;
  throw new InroError(
    'store_corrupt',
    `the record ${JSON.stringify(key)} is damaged: it is not what was written`,
    {
      remedy,
    },
  );
}

function readRevision(stored: Buffer | undefined): number {
  return stored === undefined ? 0 : Number(checked(revisionKey, stored).readBigUInt64BE());
}

function entry(key: string, stored: Buffer): Entry {
  const whole = checked(key, stored);
  return { key, value: new Uint8Array(whole.subarray(headBytes)), revision: Number(whole.readBigUInt64BE()) };
}
