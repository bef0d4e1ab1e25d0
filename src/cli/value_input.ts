/**
 * Reading a value from a file or standard input straight into the arena. Streams, Buffers and readFileSync
 * would each leave a copy behind.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import type { Arena } from '../crypto/arena.js';
import { checkValueSize } from '../crypto/envelope.js';
import type { Plaintext } from '../crypto/plaintext.js';
import { InroError } from '../model/error.js';
import { limits } from '../model/limits.js';

const retryMs = 5;

/**
 * @param file a path, or `-` for standard input.
 * @throws bad_input (empty, unreadable), too_large. The caller wipes.
 */
export function readValue(file: string, arena: Arena): Plaintext {
  const whole = arena.take(limits.maxSecretBytes + 1);
  try {
    const length = checkValueSize(fill(whole.expose(), file));
    const value = arena.take(length);
    value.expose().set(whole.expose().subarray(0, length));
    return value;
  } finally {
    whole.wipe();
  }
}

function fill(target: Uint8Array, file: string): number {
  const descriptor = file === '-' ? 0 : open(file);
  try {
    let length = 0;
    while (length < target.length) {
      const read = readSome(descriptor, target.subarray(length), file);
      if (read === 0) break;
      length += read;
    }
    return length;
  } finally {
    if (descriptor !== 0) closeSync(descriptor);
  }
}

function open(file: string): number {
  try {
    return openSync(file, 'r');
  } catch (error) {
    throw unreadable(file, error);
  }
}

function readSome(descriptor: number, target: Uint8Array, file: string): number {
  for (;;) {
    try {
      return readSync(descriptor, target);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'EOF') return 0;
      if (code !== 'EAGAIN') throw unreadable(file, error);
      // Standard input was made non-blocking by whoever shares it.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, retryMs);
    }
  }
}

function unreadable(file: string, error: unknown): InroError {
  const from = file === '-' ? 'standard input' : file;
  return new InroError('bad_input', `the value cannot be read from ${from}: ${(error as Error).message}`, {
    cause: error,
  });
}
