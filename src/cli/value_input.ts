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
import { quoted } from '../model/name.js';
import { sizeText } from '../model/size.js';

const retryMs = 5;

/** Stays free in an arena that the value is read into: content key, ephemeral key, what is wrapped. */
const keysBytes = 4 * 1024;
/** Around a piece: padding, and what is missing to a whole granule. */
const aroundBytes = 128;
/** Of a file of which nobody has said how long it is. */
const firstBytes = 16 * 1024;

/**
 * @param file a path, or `-` for standard input.
 * @param larger an arena for a value that does not fit this one; asked for only then.
 * @throws bad_input (empty, unreadable), too_large. The caller wipes.
 */
export function readValue(file: string, arena: Arena, larger: () => Arena): Plaintext {
  const most = limits.maxSecretBytes + 1;
  // Twice: as it is read, and as it is kept.
  const room = Math.floor((arena.facts().largestBytes - keysBytes) / 2) - aroundBytes;
  const failed: Failed = (error) => unreadable(`the value cannot be read from ${nameOf(file, file)}`, error);
  const descriptor = file === '-' ? 0 : open(file, failed);
  let home = arena;
  let whole = home.take(Math.min(most, room));
  try {
    let length = fill(whole.expose(), descriptor, failed);
    if (length === whole.size && length < most) {
      home = larger();
      const small = whole;
      whole = home.take(most);
      whole.expose().set(small.expose());
      small.wipe();
      length += fill(whole.expose().subarray(length), descriptor, failed);
    }
    const value = home.take(checkValueSize(length));
    value.expose().set(whole.expose().subarray(0, length));
    return value;
  } finally {
    whole.wipe();
    if (descriptor !== 0) closeSync(descriptor);
  }
}

/**
 * All of a file that has values in it, and the arena that it lies in.
 * @param path a path, or `-` for standard input.
 * @throws bad_input (unreadable, larger than `most` bytes). The caller wipes.
 */
export function readInput(
  path: string,
  arena: Arena,
  larger: () => Arena,
  most: number,
): { value: Plaintext; home: Arena } {
  const failed: Failed = (error) => unreadable(`${nameOf(path, quoted(path))}: cannot be read`, error);
  const descriptor = path === '-' ? 0 : open(path, failed);
  let home = arena;
  let whole = take(firstBytes);
  let length = 0;
  try {
    for (;;) {
      length += fill(whole.expose().subarray(length), descriptor, failed);
      if (length < whole.size) break;
      if (whole.size > most)
        throw new InroError('bad_input', `${quoted(path)}: is larger than ${sizeText(most)}`);
      const small = whole;
      whole = take(Math.min(2 * small.size, most + 1));
      whole.expose().set(small.expose());
      small.wipe();
    }
    const value = take(length);
    value.expose().set(whole.expose().subarray(0, length));
    return { value, home };
  } finally {
    whole.wipe();
    if (descriptor !== 0) closeSync(descriptor);
  }

  function take(bytes: number): Plaintext {
    try {
      return home.take(bytes);
    } catch (error) {
      if (!(error instanceof InroError) || error.code !== 'arena_full' || home !== arena) throw error;
      home = larger();
      return home.take(bytes);
    }
  }
}

type Failed = (error: unknown) => InroError;

/** Bytes that were read: fewer than there is room for only at the end of the input. */
function fill(target: Uint8Array, descriptor: number, failed: Failed): number {
  let length = 0;
  while (length < target.length) {
    const read = readSome(descriptor, target.subarray(length), failed);
    if (read === 0) break;
    length += read;
  }
  return length;
}

function open(file: string, failed: Failed): number {
  try {
    return openSync(file, 'r');
  } catch (error) {
    throw failed(error);
  }
}

function readSome(descriptor: number, target: Uint8Array, failed: Failed): number {
  for (;;) {
    try {
      return readSync(descriptor, target);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'EOF') return 0;
      if (code !== 'EAGAIN') throw failed(error);
      // Standard input was made non-blocking by whoever shares it.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, retryMs);
    }
  }
}

function nameOf(file: string, shown: string): string {
  return file === '-' ? 'standard input' : shown;
}

function unreadable(what: string, error: unknown): InroError {
  return new InroError('bad_input', `${what}: ${(error as Error).message}`, { cause: error });
}
