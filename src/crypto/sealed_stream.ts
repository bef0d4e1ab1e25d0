/**
 * Bytes of any length under one key, in boxes of a bounded size. Each box has its number and whether it is the last one, so none can be
 * left out, moved, or cut off at the end.
 */
import { InroError } from '../model/error.js';
import type { Arena } from './arena.js';
import type { Plaintext } from './plaintext.js';
import { boxOverheadBytes, boxTag, openBox, sealBox } from './secretbox.js';

/** number (8 bytes, big endian) | last (1) | content. */
const headBytes = 9;
const contentBytes = 64 * 1024;
export const maxSealedBoxBytes = boxOverheadBytes + headBytes + contentBytes;

export class SealedWriter {
  readonly #key: Plaintext;
  readonly #arena: Arena;
  readonly #piece: Plaintext;
  #number = 0n;
  #filled = 0;

  /** @param key is the caller's to wipe, after `wipe`. */
  constructor(key: Plaintext, arena: Arena) {
    this.#key = key;
    this.#arena = arena;
    this.#piece = arena.take(headBytes + contentBytes);
  }

  /** @returns the boxes that are full by it. */
  *write(bytes: Uint8Array): Generator<Uint8Array> {
    for (let from = 0; from < bytes.length;) {
      const some = bytes.subarray(from, from + contentBytes - this.#filled);
      this.#piece.expose().set(some, headBytes + this.#filled);
      this.#filled += some.length;
      from += some.length;
      if (this.#filled === contentBytes) yield this.#box(false);
    }
  }

  /** @returns the last box. */
  end(): Uint8Array {
    return this.#box(true);
  }

  wipe(): void {
    this.#piece.wipe();
  }

  #box(isLast: boolean): Uint8Array {
    const bytes = this.#piece.expose();
    new DataView(bytes.buffer, bytes.byteOffset).setBigUint64(0, this.#number++);
    bytes[8] = isLast ? 1 : 0;
    const box = this.#sealed(headBytes + this.#filled);
    this.#filled = 0;
    return box;
  }

  #sealed(length: number): Uint8Array {
    if (length === this.#piece.size) return sealBox(boxTag.backup, this.#piece, this.#key);
    const short = this.#arena.take(length);
    try {
      short.expose().set(this.#piece.expose().subarray(0, length));
      return sealBox(boxTag.backup, short, this.#key);
    } finally {
      short.wipe();
    }
  }
}

export class SealedReader {
  readonly #key: Plaintext;
  readonly #arena: Arena;
  #number = 0n;
  #isOver = false;

  constructor(key: Plaintext, arena: Arena) {
    this.#key = key;
    this.#arena = arena;
  }

  /** Whether the last box was read. */
  get isOver(): boolean {
    return this.#isOver;
  }

  /** @returns a copy of its content, which is not secret by itself. @throws envelope for a box that is not the next one. */
  read(box: Uint8Array): Uint8Array {
    const plaintext = openBox(boxTag.backup, box, this.#key, this.#arena);
    try {
      const bytes = plaintext.expose();
      const number = new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0);
      if (this.#isOver || number !== this.#number)
        throw new InroError('envelope', `box ${number} stands where box ${this.#number} has to be`);
      this.#number++;
      this.#isOver = bytes[8] === 1;
      return bytes.slice(headBytes);
    } finally {
      plaintext.wipe();
    }
  }
}
