/**
 * A configuration file's text. Who may write it decides where secrets are shown and which managers are asked, so it is
 * taken only from a file that nobody else can have written.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { InroError } from '../model/error.js';
import { sizeText } from '../model/size.js';

export const maxConfigBytes = 64 * 1024;

/** @returns undefined when nothing is there. @throws bad_config when it cannot be read, or must not be believed. */
export function readConfigText(path: string): string | undefined {
  let descriptor: number;
  try {
    // Without O_NONBLOCK a pipe would keep us waiting for its writer.
    descriptor = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  } catch (cause) {
    const { code = '', message } = cause as NodeJS.ErrnoException;
    if (code === 'ENOENT') return undefined;
    if (code === 'EACCES') throw refused(path, 'may not be read by this user', readable(path), cause);
    throw refused(
      path,
      `cannot be opened: ${message}`,
      'name a file that can be read with --config FILE',
      cause,
    );
  }
  try {
    checkFile(path, descriptor);
    return decoded(path, readBounded(path, descriptor));
  } finally {
    closeSync(descriptor);
  }
}

/** Asked of the open file, not of its path, which may lead elsewhere a moment later. */
function checkFile(path: string, descriptor: number): void {
  const found = fstatSync(descriptor);
  if (found.isDirectory())
    throw refused(path, 'is a folder, not a file', 'name the file in it with --config FILE');
  if (!found.isFile()) throw refused(path, 'is no regular file', 'name a regular file with --config FILE');
  const user = process.geteuid?.() ?? 0;
  if (found.uid !== 0 && found.uid !== user) {
    throw refused(
      path,
      `belongs to another user (uid ${found.uid}), who could change it`,
      `read it, and if it is right: chown ${user} ${path}`,
    );
  }
  if ((found.mode & 0o002) !== 0) {
    throw refused(path, 'can be written by every user', `read it, and if it is right: chmod o-w ${path}`);
  }
  if (found.size > maxConfigBytes) throw tooLarge(path);
}

/** What a file says of its size need not be true by the time it is read. */
function readBounded(path: string, descriptor: number): Uint8Array {
  const bytes = new Uint8Array(maxConfigBytes + 1);
  let length = 0;
  try {
    for (let read = -1; read !== 0 && length < bytes.length; length += read)
      read = readSync(descriptor, bytes, length, bytes.length - length, null);
  } catch (cause) {
    throw refused(path, `cannot be read: ${(cause as Error).message}`, readable(path), cause);
  }
  if (length > maxConfigBytes) throw tooLarge(path);
  return bytes.subarray(0, length);
}

function decoded(path: string, bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw refused(path, 'is not UTF-8 text', 'write it anew as plain text', cause);
  }
}

function tooLarge(path: string): InroError {
  return refused(
    path,
    `is larger than ${sizeText(maxConfigBytes)}`,
    'a few lines are enough: is it the right file?',
  );
}

function readable(path: string): string {
  return `let this user read it (chown, chmod u+r ${path}), or run as the user it belongs to`;
}

function refused(path: string, why: string, remedy: string, cause?: unknown): InroError {
  return new InroError('bad_config', `${path} ${why}`, { remedy, cause });
}
