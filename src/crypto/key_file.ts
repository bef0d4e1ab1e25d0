/** Symmetric and exchange keys on disk: one format byte, then 32 bytes. Format 1 is in clear, mode 0600; it may be wrapped (at_rest.ts). */
import { closeSync, openSync, readSync } from 'node:fs';
import { InroError } from '../model/error.js';
import { replaceFile } from '../system/files.js';
import type { Arena } from './arena.js';
import { isBox, unwrapped, wrapped } from './at_rest.js';
import { keyBytes } from './exchange.js';
import type { Plaintext } from './plaintext.js';
import { boxOverheadBytes } from './secretbox.js';

const formatClear = 1;

/** Replaces the file in one step and durably, straight out of the arena. @throws state_unusable. */
export function writeKeyFile(path: string, key: Plaintext, arena: Arena): void {
  const content = arena.take(1 + keyBytes);
  try {
    content.expose()[0] = formatClear;
    content.expose().set(key.expose(), 1);
    replaceFile(path, wrapped(content) ?? content.expose(), 0o600);
  } finally {
    content.wipe();
  }
}

/** Reads straight into the arena. @throws state_unusable when the file is missing, cut, or of a later format. */
export function readKeyFile(path: string, arena: Arena): Plaintext {
  const file = arena.take(1 + keyBytes + boxOverheadBytes + 1);
  let content = file;
  try {
    let length = read(path, file);
    if (isBox(file.expose().subarray(0, length))) {
      content = unwrapped(path, file.expose().slice(0, length));
      length = content.size;
    }
    if (length !== 1 + keyBytes || content.expose()[0] !== formatClear) {
      throw new InroError('state_unusable', `${path} is not a key file that this version understands`, {
        remedy: 'restore it from a backup, or upgrade inro if a later version wrote it',
      });
    }
    const key = arena.take(keyBytes);
    key.expose().set(content.expose().subarray(1, 1 + keyBytes));
    return key;
  } finally {
    content.wipe();
    file.wipe();
  }
}

function read(path: string, into: Plaintext): number {
  try {
    const descriptor = openSync(path, 'r');
    try {
      return readSync(descriptor, into.expose());
    } finally {
      closeSync(descriptor);
    }
  } catch (error) {
    throw new InroError('state_unusable', `the key ${path} cannot be read: ${(error as Error).message}`, {
      remedy: 'restore it from a backup',
      cause: error,
    });
  }
}
