/** inro manager backup, inro manager restore: on the manager's own host. */
import {
  closeSync,
  createReadStream,
  existsSync,
  fsyncSync,
  openSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { openArena, type Arena } from '../../crypto/arena.js';
import { sealUnlockKey } from '../../crypto/unlock_exchange.js';
import { restoreBackup } from '../../manager/restore.js';
import { InroError } from '../../model/error.js';
import { sizeText } from '../../model/size.js';
import { ManagerBackup, type BackupPiece } from '../../proto/gen/inro/v1/backup_pb.js';
import { ManagerLock } from '../../proto/gen/inro/v1/lock_pb.js';
import { call, openStream, type Connection } from '../../rpc/client.js';
import { addon } from '../../system/addon.js';
import { withManager } from '../operator.js';
import { paths } from '../paths.js';
import { iso, printLine } from '../print.js';
import { askForUnlockKey, unlockKeyFrom } from '../unlock_key_input.js';

const arenaBytes = 1024 * 1024;

/** @param file a path that is not there yet, or `-` for standard output. */
export async function managerBackup(
  file: string,
  { key: source, socket }: { key?: string; socket?: string },
): Promise<void> {
  const arena = ownArena();
  if (file !== '-' && existsSync(file))
    throw new InroError('already_exists', `${file} is there already`, {
      remedy: 'name another file, or remove it: a backup overwrites nothing',
    });
  await withManager({ manager: `unix:${socket ?? paths.managerSocket}` }, async (manager) => {
    const sealed = source === undefined ? undefined : await sealedFor(manager, source, arena);
    const channel = openStream(manager, ManagerBackup, 'backup');
    await channel.send(sealed === undefined ? {} : { key: sealed });
    const bytes = await write(file, channel.messages);
    if (file !== '-') printLine(`${file}: ${sizeText(bytes)}`);
  });
}

export async function managerRestore(
  file: string,
  { state, key: source }: { state: string; key?: string },
): Promise<void> {
  const arena = ownArena();
  if (file !== '-' && !existsSync(file))
    throw new InroError('not_found', `there is no backup ${file}`, { remedy: 'name its file' });
  if (file === '-' && (source === undefined || source === '-'))
    throw new InroError('bad_input', 'the backup and its key cannot both come from standard input', {
      remedy: 'name a file for one of them: --key FILE',
    });
  const key = source === undefined ? askAtTerminal(arena) : unlockKeyFrom(source, arena);
  try {
    const pieces = file === '-' ? process.stdin : createReadStream(file);
    const { head, entries } = await restoreBackup(state, pieces, { key, arena });
    printLine(
      `${state}: cluster ${head.clusterId} as it was ${iso(head.createdMs)}, ${entries} records${head.autolock ? ', under the same unlock key' : ''}`,
    );
  } finally {
    key.wipe();
  }
}

function askAtTerminal(arena: Arena) {
  if (process.stdin.isTTY) return askForUnlockKey(arena);
  throw new InroError('bad_input', 'it is not said what opens the backup', {
    remedy: "give its key: --key FILE, '-' for standard input, or @NAME for a credential",
  });
}

async function sealedFor(manager: Connection, source: string, arena: Arena) {
  const { exchangeKey } = await call(manager, ManagerLock, 'getLock', {});
  const key = unlockKeyFrom(source, arena);
  try {
    return sealUnlockKey(key, exchangeKey, arena);
  } finally {
    key.wipe();
  }
}

/** Under another name until it is whole and on the disk. */
async function write(file: string, pieces: AsyncIterable<BackupPiece>): Promise<number> {
  const unfinished = `${file}.unfinished`;
  const descriptor = file === '-' ? 1 : openNew(unfinished);
  let total = 0;
  try {
    for await (const { bytes } of pieces) {
      for (let written = 0; written < bytes.length;) written += writeSync(descriptor, bytes, written);
      total += bytes.length;
    }
    if (file !== '-') fsyncSync(descriptor);
  } catch (error) {
    if (file !== '-') rmSync(unfinished, { force: true });
    if (error instanceof InroError) throw error;
    throw unwritable(file, error);
  } finally {
    if (file !== '-') closeSync(descriptor);
  }
  if (file !== '-') renameSync(unfinished, file);
  return total;
}

function openNew(path: string): number {
  try {
    return openSync(path, 'w', 0o600);
  } catch (error) {
    throw unwritable(path, error);
  }
}

function unwritable(path: string, error: unknown): InroError {
  return new InroError('bad_input', `${path} cannot be written: ${(error as Error).message}`, {
    remedy: 'check its folder: permissions, a full disk',
    cause: error,
  });
}

function ownArena(): Arena {
  addon().forbidDumps();
  return openArena(arenaBytes);
}
