/** State on disk: folders that others cannot read, and files that are replaced in one durable step. */
import {
  chmodSync,
  closeSync,
  existsSync,
  readdirSync,
  statSync,
  fchmodSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { constants as osConstants } from 'node:os';
import { dirname, join } from 'node:path';
import { getSystemErrorName } from 'node:util';
import { InroError } from '../model/error.js';
import { addon } from './addon.js';

/**
 * Makes the folder and what is missing above it; one that is there already keeps its mode.
 * (Node's own `recursive` never returns where the kernel answers ENOENT for a parent that exists, as in /proc.)
 */
export function makeFolder(path: string, mode: number): void {
  if (existsSync(path)) return;
  const parent = dirname(path);
  if (parent !== path) makeFolder(parent, mode);
  try {
    mkdirSync(path, { mode });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
}

/** Makes the folder, closed to others (0700). @throws state_unusable. */
export function makeStateFolder(path: string): void {
  try {
    makeFolder(path, 0o700);
    checkClosed(path);
  } catch (error) {
    throw new InroError(
      'state_unusable',
      `the state folder ${path} cannot be used: ${(error as Error).message}`,
      {
        remedy: 'choose another with --state DIR, or run as the user it belongs to',
        cause: error,
      },
    );
  }
}

/** A folder that was there before is taken as it is, or not at all: whoever owns it, owns what is in it. */
function checkClosed(path: string): void {
  const { uid, mode } = statSync(path);
  if (uid !== process.geteuid?.()) {
    throw new InroError('state_unusable', `the state folder ${path} belongs to another user (uid ${uid})`, {
      remedy: 'choose another with --state DIR, or give it to this user with chown',
    });
  }
  if ((mode & 0o077) === 0) return;
  if (readdirSync(path).length === 0) return chmodSync(path, 0o700);
  throw new InroError('state_unusable', `the state folder ${path} is open to other users`, {
    remedy: `if it is meant for inro alone, close it: chmod 700 ${path}; otherwise choose another with --state DIR`,
  });
}

/**
 * Makes the folder and takes its lock for the life of this process, or until the function that it gives back is called.
 * @throws state_unusable, already_running.
 */
export function claimStateFolder(path: string, who: string): () => void {
  makeStateFolder(path);
  const descriptor = addon().lockFile(join(path, 'lock'));
  if (descriptor === -osConstants.errno.EWOULDBLOCK) {
    throw new InroError('already_running', `another ${who} uses the state folder ${path}`, {
      remedy: 'stop it first, or choose another folder with --state DIR',
    });
  }
  if (descriptor < 0) {
    throw new InroError(
      'state_unusable',
      `the state folder ${path} cannot be locked: ${getSystemErrorName(descriptor)}`,
      {
        remedy: 'check that it can be written: permissions, a read-only or full disk',
      },
    );
  }
  return () => closeSync(descriptor);
}

/** Old content or new, never half of it; on disk before it returns. @throws state_unusable. */
export function replaceFile(path: string, content: string | Uint8Array, mode: number): void {
  const bytes = typeof content === 'string' ? Buffer.from(content) : content;
  const temporary = `${path}.new`;
  try {
    const descriptor = openSync(temporary, 'w', mode);
    try {
      fchmodSync(descriptor, mode); // it may be the remainder of a write that was cut off
      for (let written = 0; written < bytes.length;) written += writeSync(descriptor, bytes, written);
      fsyncSync(descriptor);
    } finally {
      closeSync(descriptor);
    }
    renameSync(temporary, path);
    syncFolder(dirname(path));
  } catch (error) {
    throw new InroError('state_unusable', `${path} cannot be written: ${(error as Error).message}`, {
      remedy: 'check the folder: permissions, a read-only or full disk',
      cause: error,
    });
  }
}

/** In the place of what is there; on disk before it returns. @throws state_unusable. */
export function moveFile(from: string, to: string): void {
  try {
    renameSync(from, to);
    syncFolder(dirname(to));
  } catch (error) {
    throw new InroError('state_unusable', `${from} cannot become ${to}: ${(error as Error).message}`, {
      remedy: 'check the folder: permissions, a read-only disk',
      cause: error,
    });
  }
}

/** Gone from the disk before it returns, if it was there. @throws state_unusable. */
export function removeFile(path: string): void {
  try {
    rmSync(path, { force: true });
    syncFolder(dirname(path));
  } catch (error) {
    throw new InroError('state_unusable', `${path} cannot be removed: ${(error as Error).message}`, {
      remedy: 'check the folder: permissions, a read-only disk',
      cause: error,
    });
  }
}

function syncFolder(path: string): void {
  const folder = openSync(path, 'r');
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}

/** Reads a file's text as what it should be. @throws state_unusable, naming the file, for whatever `parse` throws. */
export function parseFile<T>(path: string, text: string, parse: (text: string) => T, remedy: string): T {
  try {
    return parse(text);
  } catch (error) {
    throw new InroError('state_unusable', `${path} is damaged: ${(error as Error).message}`, {
      remedy,
      cause: error,
    });
  }
}

/** The file's text, or undefined when there is none. @throws state_unusable when it cannot be read. */
export function readFileIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new InroError('state_unusable', `${path} cannot be read: ${(error as Error).message}`, {
      remedy: 'run as the user it belongs to',
      cause: error,
    });
  }
}
