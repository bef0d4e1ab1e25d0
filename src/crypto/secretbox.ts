/**
 * XSalsa20-Poly1305 between an arena and public bytes. nacl.secretbox keeps a padded copy of the plaintext
 * that nobody wipes; the lowlevel calls here read and write the arena's own memory, so no copy is ever made.
 *
 * A box is: tag (1 byte, says what the box is for) | nonce (24) | authenticator (16) | ciphertext.
 */
import nacl from 'tweetnacl';
import { InroError } from '../model/error.js';
import type { Arena } from './arena.js';
import { randomBytes } from 'node:crypto';
import type { Plaintext } from './plaintext.js';

// @types for `lowlevel` are not complete in the package; these are its two calls (nacl-fast.js).
interface Lowlevel {
  crypto_secretbox(c: Uint8Array, m: Uint8Array, d: number, n: Uint8Array, k: Uint8Array): number;
  crypto_secretbox_open(m: Uint8Array, c: Uint8Array, d: number, n: Uint8Array, k: Uint8Array): number;
}
const { crypto_secretbox, crypto_secretbox_open } = (nacl as unknown as { lowlevel: Lowlevel }).lowlevel;

/** What a box is for; the first byte of it. For ever: boxes are stored. */
export const boxTag = {
  value: 1,
  atRest: 2,
  submitted: 3,
  delivered: 4,
  text: 5,
  keyFile: 6,
  wrappingKeys: 7,
  unlockKey: 8,
  backup: 9,
  backupKey: 10,
  record: 11,
  managerKey: 12,
} as const;
export type BoxTag = (typeof boxTag)[keyof typeof boxTag];

const nonceBytes = 24;
const authenticatorBytes = 16;
export const boxOverheadBytes = 1 + nonceBytes + authenticatorBytes;

/** @param key 32 bytes. @returns a fresh buffer of `plaintext.size + boxOverheadBytes` bytes. */
export function sealBox(tag: BoxTag, plaintext: Plaintext, key: Plaintext): Uint8Array<ArrayBuffer> {
  const padded = plaintext.exposePadded();
  const nonce = randomBytes(nonceBytes);
  const box = new Uint8Array(new ArrayBuffer(boxOverheadBytes + plaintext.size));
  // The cipher writes 16 zero bytes before the authenticator: they fall on the header, which is written after.
  const at = 1 + nonceBytes - authenticatorBytes;
  crypto_secretbox(box.subarray(at), padded, padded.length, nonce, key.expose());
  box[0] = tag;
  box.set(nonce, 1);
  return box;
}

/**
 * Decrypts straight into the arena; the caller wipes.
 * @throws envelope when the box is malformed, for another purpose, altered, or under another key.
 * @throws arena_full
 */
export function openBox(tag: BoxTag, box: Uint8Array, key: Plaintext, arena: Arena): Plaintext {
  if (box.length < boxOverheadBytes || box[0] !== tag) {
    throw new InroError(
      'envelope',
      `a box of ${box.length} bytes with tag ${box[0] ?? 'none'} is not one with tag ${tag}`,
    );
  }
  const nonce = box.slice(1, 1 + nonceBytes);
  const padded = new Uint8Array(new ArrayBuffer(authenticatorBytes + box.length - 1 - nonceBytes));
  padded.set(box.subarray(1 + nonceBytes), authenticatorBytes);
  const plaintext = arena.take(box.length - boxOverheadBytes);
  if (crypto_secretbox_open(plaintext.exposePadded(), padded, padded.length, nonce, key.expose()) !== 0) {
    plaintext.wipe();
    throw new InroError('envelope', 'a box does not open: it was altered, or sealed for another key');
  }
  return plaintext;
}
