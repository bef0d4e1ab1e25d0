/**
 * Private keys on disk. Each lies there as it is, mode 0600, unless this process was given a wrapping key, by a systemd credential or by
 * a manager's unlock key: then each file is one box (`boxTag.keyFile`) under it, and a copy of the disk is worth nothing without that key.
 * There is one wrapping key in a process; it is said before any file is read.
 */
import { closeSync, fstatSync, fsyncSync, openSync, readFileSync, writeSync } from 'node:fs';
import { InroError } from '../model/error.js';
import { replaceFile } from '../system/files.js';
import { openArena, type Arena } from './arena.js';
import type { Plaintext } from './plaintext.js';
import { boxTag, openBox, sealBox } from './secretbox.js';

export const wrappingKeyBytes = 32;
/** A key with its certificates. */
const maxFileBytes = 128 * 1024;

export interface Wrapping {
  key: Plaintext;
  /** What files may still be wrapped by. */
  former?: Plaintext;
  arena: Arena;
  /** What an operator knows the key by: `the credential x`. */
  name: string;
  /** Files that are wrapped become plain again. */
  unwraps: boolean;
}

let wrapping: Wrapping | undefined;

/** Room for the key and for one file at a time. */
export function openWrappingArena(): Arena {
  return openArena(2 * maxFileBytes);
}

/** From now on; undefined: none. */
export function wrapWith(next: Wrapping | undefined): void {
  wrapping = next;
}

/** The file's text, or undefined when there is none. @throws state_unusable. */
export function readPrivateFile(path: string): string | undefined {
  const bytes = readBytes(path);
  if (bytes === undefined || !isBox(bytes)) return bytes?.toString('utf8');
  const content = unwrapped(path, bytes);
  try {
    return Buffer.from(content.expose()).toString('utf8');
  } finally {
    content.wipe();
  }
}

/** The file's bytes, straight into the arena; undefined when there is none. The caller wipes. @throws state_unusable. */
export function readPrivateBytes(path: string, arena: Arena): Plaintext | undefined {
  const bytes = readBytes(path);
  if (bytes === undefined) return undefined;
  const found = isBox(bytes) ? unwrapped(path, bytes) : undefined;
  const content = arena.take(found?.size ?? bytes.length);
  content.expose().set(found?.expose() ?? bytes);
  found?.wipe();
  bytes.fill(0);
  return content;
}

/** As writePrivateFile. */
export function writePrivateBytes(path: string, content: Plaintext): void {
  if (wrapping === undefined || wrapping.unwraps) return replaceFile(path, content.expose(), 0o600);
  const own = wrapping.arena.take(content.size);
  try {
    own.expose().set(content.expose());
    writeWrapped(path, own);
  } finally {
    own.wipe();
  }
}

/** Old content or new, on disk before it returns. @throws state_unusable. */
export function writePrivateFile(path: string, text: string): void {
  if (wrapping === undefined || wrapping.unwraps) return replaceFile(path, text, 0o600);
  const content = wrapping.arena.take(Buffer.byteLength(text));
  try {
    content.expose().set(Buffer.from(text));
    writeWrapped(path, content);
  } finally {
    content.wipe();
  }
}

/** As the file is to be stored: a box under the wrapping key, or undefined where there is none and it is stored as it is. */
export function wrapped(content: Plaintext): Uint8Array | undefined {
  return wrapping === undefined || wrapping.unwraps
    ? undefined
    : sealBox(boxTag.keyFile, content, wrapping.key);
}

/** @param box what lies there. @throws state_unusable when there is no wrapping key, or another one. */
export function unwrapped(path: string, box: Uint8Array): Plaintext {
  if (wrapping === undefined) {
    throw new InroError('state_unusable', `${path} is wrapped by a key that was not given`, {
      remedy:
        'start it where the unit brings that key: --key-credential NAME (docs/configuration.md), or restore a copy in clear',
    });
  }
  const { key, former, arena, name } = wrapping;
  const content = tryToOpen(box, key, arena) ?? (former && tryToOpen(box, former, arena));
  if (content !== undefined) return content;
  throw new InroError('state_unusable', `${path} does not open with ${name}`, {
    remedy:
      'it was wrapped by another key, or is damaged: give the key that it was wrapped by, or restore the file',
  });
}

/** Undefined when it was sealed by another key, or is damaged. */
function tryToOpen(box: Uint8Array, key: Plaintext, arena: Arena): Plaintext | undefined {
  try {
    return openBox(boxTag.keyFile, box, key, arena);
  } catch (error) {
    if (error instanceof InroError && error.code === 'envelope') return undefined;
    throw error;
  }
}

export function isBox(bytes: Uint8Array): boolean {
  return bytes[0] === boxTag.keyFile;
}

/** Undefined when it is not there. @throws state_unusable. */
export function isWrapped(path: string): boolean | undefined {
  const bytes = readBytes(path);
  return bytes === undefined ? undefined : isBox(bytes);
}

/**
 * Brings files that are there into the form that is wanted. What lay there in clear is overwritten in its place, which a disk that
 * writes elsewhere, or has snapshots, may keep all the same.
 * @returns the paths of those that were changed. @throws state_unusable.
 */
export function settlePrivateFiles(paths: readonly string[]): string[] {
  const present = wrapping;
  if (present === undefined) return [];
  return paths.filter((path) => {
    const bytes = readBytes(path);
    if (bytes === undefined) return false;
    if (!isBox(bytes)) return !present.unwraps && wrapFile(path, bytes);
    if (present.unwraps) return unwrapFile(path, bytes);
    return present.former !== undefined && wrapAnew(path, bytes, present);
  });
}

function unwrapFile(path: string, box: Uint8Array): true {
  const content = unwrapped(path, box);
  try {
    replaceFile(path, content.expose(), 0o600);
    return true;
  } finally {
    content.wipe();
  }
}

function wrapFile(path: string, bytes: Uint8Array): true {
  const content = (wrapping as Wrapping).arena.take(bytes.length);
  try {
    content.expose().set(bytes);
    bytes.fill(0);
    overwriting(path, () => writeWrapped(path, content));
    return true;
  } finally {
    content.wipe();
  }
}

/** @returns false when it was under the present key already. */
function wrapAnew(path: string, box: Uint8Array, { key, arena }: Wrapping): boolean {
  const present = tryToOpen(box, key, arena);
  present?.wipe();
  if (present !== undefined) return false;
  const content = unwrapped(path, box);
  try {
    overwriting(path, () => writeWrapped(path, content));
    return true;
  } finally {
    content.wipe();
  }
}

/** Replaces or removes a file, and then overwrites what it was in its place. */
export function overwriting(path: string, replace: () => void): void {
  const old = openSync(path, 'r+');
  try {
    replace();
    writeSync(old, new Uint8Array(fstatSync(old).size), 0, undefined, 0);
    fsyncSync(old);
  } finally {
    closeSync(old);
  }
}

function writeWrapped(path: string, content: Plaintext): void {
  replaceFile(path, wrapped(content) as Uint8Array, 0o600);
}

function readBytes(path: string): Buffer | undefined {
  try {
    return readFileSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new InroError('state_unusable', `${path} cannot be read: ${(error as Error).message}`, {
      remedy: 'run as the user it belongs to',
      cause: error,
    });
  }
}
