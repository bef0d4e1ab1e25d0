/**
 * Records for a store that is not trusted: sealed as they are, so that it neither reads nor changes nor makes one. They are no secrets of
 * their own (those are sealed before), so they need no arena; the key does. A box is as in secretbox.ts.
 */
import { createHmac, randomBytes } from 'node:crypto';
import nacl from 'tweetnacl';
import { InroError } from '../model/error.js';
import type { Plaintext } from './plaintext.js';
import { boxOverheadBytes, boxTag } from './secretbox.js';

export interface Sealer {
  seal(bytes: Uint8Array): Buffer;
  /** @throws envelope when it was altered, or sealed under another key. */
  open(box: Uint8Array): Buffer;
  /** The same for the same text, and for who has the key alone: what stands in a name's place. */
  hide(text: string): string;
}

/** @param key 32 bytes; the caller's to wipe, after the last use. */
export function recordSealer(key: Plaintext): Sealer {
  return {
    seal(bytes) {
      const nonce = randomBytes(nacl.secretbox.nonceLength);
      return Buffer.concat([Buffer.of(boxTag.record), nonce, nacl.secretbox(bytes, nonce, key.expose())]);
    },
    hide: (text) => createHmac('sha256', key.expose()).update(text).digest('base64url'),
    open(box) {
      const at = 1 + nacl.secretbox.nonceLength;
      const isOurs = box.length >= boxOverheadBytes && box[0] === boxTag.record;
      const bytes = isOurs ? nacl.secretbox.open(box.slice(at), box.slice(1, at), key.expose()) : null;
      if (bytes === null)
        throw new InroError(
          'envelope',
          'a record does not open: it was altered, or sealed under another key',
        );
      return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    },
  };
}
