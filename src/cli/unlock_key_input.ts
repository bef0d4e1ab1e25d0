/** An unlock key from where no process list shows it, straight into the arena. */
import { closeSync, openSync, readSync } from 'node:fs';
import type { Arena } from '../crypto/arena.js';
import type { Plaintext } from '../crypto/plaintext.js';
import { readUnlockKey, unlockKeyPrefix } from '../crypto/unlock_key.js';
import { InroError } from '../model/error.js';
import { credentialPath } from './credential_path.js';

/** It stands on one line; what is longer than a page is none. */
const pageBytes = 4096;
const retryMs = 20;
const key = { interrupt: 3, end: 4, backspace: 8, newLine: 10, return: 13, delete: 127 } as const;

/** @param source `-` for standard input, a path, or `@NAME` for a credential (systemd.exec(5)). @throws bad_input */
export function unlockKeyFrom(source: string, arena: Arena, env: NodeJS.ProcessEnv = process.env): Plaintext {
  if (source.startsWith(unlockKeyPrefix))
    throw new InroError('bad_input', 'an unlock key on the command line stands in the process list', {
      remedy:
        "give '-' for standard input, a file, or @NAME for a credential of the unit; and rotate this one: inro manager unlock-key --rotate",
    });
  if (source === '-') return read(0, 'standard input', arena);
  const path = source.startsWith('@') ? credentialPath(source.slice(1), env, howToBring) : source;
  let descriptor: number;
  try {
    descriptor = openSync(path, 'r');
  } catch (error) {
    throw unreadable(path, error);
  }
  try {
    return read(descriptor, path, arena);
  } finally {
    closeSync(descriptor);
  }
}

const howToBring =
  'write LoadCredentialEncrypted=inro.unlock-key:PATH into the unit, and --unlock-key @inro.unlock-key';

/** Typed or pasted at a terminal, and not shown there. @throws bad_input */
export function askForUnlockKey(arena: Arena): Plaintext {
  // In this order: what is typed, or pasted, as soon as it is asked for is not shown either.
  process.stdin.setRawMode(true);
  process.stderr.write('Unlock key: ');
  const page = arena.take(pageBytes);
  try {
    const bytes = page.expose();
    let length = 0;
    const one = arena.take(1);
    try {
      for (;;) {
        if (readSome(0, one.expose(), 'the terminal') === 0) break;
        const byte = one.expose()[0] as number;
        if (byte === key.interrupt) throw new InroError('bad_input', 'interrupted');
        if (byte === key.newLine || byte === key.return || byte === key.end) break;
        if (byte === key.backspace || byte === key.delete) length = Math.max(0, length - 1);
        else if (length < bytes.length) bytes[length++] = byte;
      }
    } finally {
      one.wipe();
    }
    return readUnlockKey(bytes.subarray(0, length), arena);
  } finally {
    page.wipe();
    process.stdin.setRawMode(false);
    process.stderr.write('\n');
  }
}

function read(descriptor: number, from: string, arena: Arena): Plaintext {
  const page = arena.take(pageBytes);
  try {
    const bytes = page.expose();
    let length = 0;
    for (let some = -1; some !== 0 && length < bytes.length; length += some)
      some = readSome(descriptor, bytes.subarray(length), from);
    return readUnlockKey(bytes.subarray(0, length), arena);
  } finally {
    page.wipe();
  }
}

function readSome(descriptor: number, into: Uint8Array, from: string): number {
  for (;;) {
    try {
      return readSync(descriptor, into);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'EOF') return 0;
      if (code !== 'EAGAIN') throw unreadable(from, error);
      // It was made non-blocking by whoever shares it.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, retryMs);
    }
  }
}

function unreadable(from: string, error: unknown): InroError {
  return new InroError(
    'bad_input',
    `the unlock key cannot be read from ${from}: ${(error as Error).message}`,
    { cause: error },
  );
}
