/**
 * The type of every byte that must not leak: values, content keys, private keys of the envelope. It is a
 * piece of an arena, so its bytes are in locked memory and nowhere else; it prints as a placeholder, refuses
 * to become a string or a number, and is gone for good after `wipe`.
 */
import { inspect } from 'node:util';

export class Plaintext {
  #buffer: ArrayBuffer;
  readonly #giveBack: (buffer: ArrayBuffer) => boolean;
  readonly #offset: number;
  readonly #size: number;

  /**
   * @param buffer the whole piece; `offset` bytes before the payload are room for the cipher's zero padding.
   * @param giveBack zeroes the piece and returns it to its arena; false when the kernel still holds mapped pages of it.
   */
  constructor(buffer: ArrayBuffer, offset: number, giveBack: (buffer: ArrayBuffer) => boolean) {
    this.#buffer = buffer;
    this.#offset = offset;
    this.#size = buffer.byteLength - offset;
    this.#giveBack = giveBack;
  }

  /** Payload length in bytes; known after the wipe, too. */
  get size(): number {
    return this.#size;
  }

  get wiped(): boolean {
    return this.#buffer.byteLength === 0;
  }

  /**
   * The payload in place. Never copy it into a typed array of your own. A TypeError once it is wiped: an empty
   * array would be a key of zeros to tweetnacl, which reads what lies beyond an array as zero.
   */
  expose(): Uint8Array {
    return new Uint8Array(this.#buffer, this.#offset);
  }

  /** The whole piece, for the mount that serves it; and how many bytes of it come before the payload. */
  piece(): { buffer: ArrayBuffer; skip: number } {
    return { buffer: this.#buffer, skip: this.#offset };
  }

  /** Payload and the padding before it, for ciphers that want their zero bytes in front. A TypeError once wiped. */
  exposePadded(): Uint8Array {
    return new Uint8Array(this.#buffer);
  }

  /**
   * Zeroes the bytes; may be called again. False when a mount's readers may still see them through a mapping, because the
   * kernel has not let go of its pages in time.
   */
  wipe(): boolean {
    return this.wiped || this.#giveBack(this.#buffer);
  }

  toJSON(): string {
    return `[plaintext, ${this.#size} bytes]`;
  }

  [inspect.custom](): string {
    return this.toJSON();
  }

  [Symbol.toPrimitive](): never {
    throw new TypeError('a plaintext cannot be turned into a string or a number');
  }
}
