/** A manager's folder from a backup: all of it or nothing. */
import { mkdirSync, readdirSync, renameSync, rmdirSync, rmSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import type { Arena } from '../crypto/arena.js';
import { wrapWith, writePrivateBytes } from '../crypto/at_rest.js';
import type { Plaintext } from '../crypto/plaintext.js';
import { maxSealedBoxBytes, SealedReader } from '../crypto/sealed_stream.js';
import { boxTag, openBox } from '../crypto/secretbox.js';
import { InroError } from '../model/error.js';
import type { BackupFile, BackupHead, BackupItem } from '../proto/gen/inro/v1/backup_pb.js';
import { fillLmdbStore } from '../store/lmdb.js';
import type { Entry } from '../store/store.js';
import { replaceFile } from '../system/files.js';
import { Autolock } from './autolock.js';
import {
  backupMagic,
  damaged,
  digestOfHead,
  itemsIn,
  maxHeadBytes,
  PieceReader,
  readHead,
} from './backup_format.js';
import { fileOfBackup } from './backup_files.js';

export interface Restored {
  head: BackupHead;
  entries: number;
}

/**
 * @param folder is not there yet, or is empty. @param key what the backup was sealed under; the caller's to wipe.
 * @throws bad_input, already_exists, store_full, state_unusable: then nothing is there.
 */
export async function restoreBackup(
  folder: string,
  pieces: AsyncIterable<Uint8Array>,
  { key, arena }: { key: Plaintext; arena: Arena },
): Promise<Restored> {
  const target = resolve(folder);
  checkEmpty(target);
  const building = `${target}.restoring`;
  rmSync(building, { recursive: true, force: true });
  try {
    mkdirSync(join(building, 'store'), { recursive: true, mode: 0o700 });
    const restored = await build(building, pieces, { key, arena });
    rmSync(target, { recursive: true, force: true });
    renameSync(building, target);
    return restored;
  } catch (error) {
    rmSync(building, { recursive: true, force: true });
    if (error instanceof InroError) throw error;
    throw new InroError('state_unusable', `${folder} cannot be made: ${(error as Error).message}`, {
      remedy: `check ${dirname(target)}: permissions, a full disk`,
      cause: error,
    });
  } finally {
    wrapWith(undefined);
  }
}

async function build(
  folder: string,
  pieces: AsyncIterable<Uint8Array>,
  { key, arena }: { key: Plaintext; arena: Arena },
): Promise<Restored> {
  const reader = new PieceReader(pieces);
  const magic = await reader.take(backupMagic.length);
  if (magic === undefined || !magic.equals(backupMagic))
    throw new InroError('bad_input', 'that is no backup of an inro manager', {
      remedy: "name a file that 'inro manager backup' made",
    });
  const headBytes = (await reader.takeWithLength(maxHeadBytes)) ?? Buffer.alloc(0);
  const head = readHead(headBytes);
  const own = openKey(head, key, arena);
  try {
    if (head.autolock) lockAs(folder, key);
    const items = itemsIn(contents(reader, own, arena));
    const { entries, rest } = await readFiles(folder, items, { headBytes, own, arena });
    let count = 0;
    let isWhole = false;
    const wanted = (async function* (): AsyncGenerator<Entry> {
      for await (const { item } of rest(entries)) {
        if (isWhole) throw damaged('something stands behind its end');
        if (item.case === 'count') {
          isWhole = true;
          continue;
        }
        if (item.case !== 'entry') throw damaged('an item stands where it has no place');
        count++;
        yield { ...item.value, revision: Number(item.value.revision) };
      }
      if (!isWhole) throw damaged('its end is missing');
    })();
    await fillLmdbStore(join(folder, 'store'), Number(head.revision), wanted);
    return { head, entries: count };
  } finally {
    own.wipe();
  }
}

/** Writes the files, which come first. @returns the first item behind them, and how to go on with it. */
async function readFiles(
  folder: string,
  items: AsyncGenerator<BackupItem>,
  { headBytes, own, arena }: { headBytes: Uint8Array; own: Plaintext; arena: Arena },
) {
  const first = (await items.next()).value as BackupItem | undefined;
  if (first?.item.case !== 'headDigest' || !Buffer.from(first.item.value).equals(digestOfHead(headBytes)))
    throw damaged('its head was changed');
  let entries: BackupItem | undefined;
  for (;;) {
    const next = await items.next();
    if (next.done === true) break;
    if (next.value.item.case !== 'file') {
      entries = next.value;
      break;
    }
    writeFile(folder, next.value.item.value, own, arena);
  }
  const rest = async function* (begin: BackupItem | undefined): AsyncGenerator<BackupItem> {
    if (begin !== undefined) yield begin;
    yield* items;
  };
  return { entries, rest };
}

function writeFile(folder: string, { name, content, boxed }: BackupFile, own: Plaintext, arena: Arena): void {
  const file = fileOfBackup(folder, name);
  if (file === undefined || file.isPrivate !== boxed) throw damaged(`it has a file that no manager has`);
  if (!boxed) return replaceFile(file.path, content, 0o600);
  const bytes = openBox(boxTag.keyFile, content, own, arena);
  try {
    writePrivateBytes(file.path, bytes);
  } finally {
    bytes.wipe();
  }
}

/** @throws bad_input */
function openKey({ sealedKey, clusterId, autolock }: BackupHead, key: Plaintext, arena: Arena): Plaintext {
  try {
    return openBox(boxTag.backupKey, sealedKey, key, arena);
  } catch (cause) {
    throw new InroError('bad_input', `that key does not open this backup of cluster ${clusterId}`, {
      remedy: autolock
        ? 'it was made under the unlock key that the manager had then'
        : 'give the key that stood behind --key when it was made',
      cause,
    });
  }
}

/** Its keys are wrapped by the same unlock key, from the first byte on. */
function lockAs(folder: string, key: Plaintext): void {
  const autolock = new Autolock(folder, true);
  const copy = autolock.arena.take(key.size);
  copy.expose().set(key.expose());
  autolock.lockWith(copy);
}

async function* contents(reader: PieceReader, own: Plaintext, arena: Arena): AsyncGenerator<Uint8Array> {
  const opened = new SealedReader(own, arena);
  for (;;) {
    const box = await reader.takeWithLength(maxSealedBoxBytes);
    if (box === undefined) break;
    try {
      yield opened.read(box);
    } catch (cause) {
      throw cause instanceof InroError && cause.code === 'envelope' ? damaged(cause.message) : cause;
    }
  }
  if (!opened.isOver) throw damaged('its end is missing');
}

function checkEmpty(folder: string): void {
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw error;
  }
  if (names.length === 0) return rmdirSync(folder);
  throw new InroError('already_exists', `the folder ${folder} is not empty`, {
    remedy: 'restore into another one, or move that one away: a manager must not run in it meanwhile',
  });
}
