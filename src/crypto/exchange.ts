/** X25519 keys whose secret halves live in the arena, and the shared keys between two of them. */
import { randomFillSync } from 'node:crypto';
import nacl from 'tweetnacl';
import { InroError } from '../model/error.js';
import type { Arena } from './arena.js';
import type { Plaintext } from './plaintext.js';

interface Lowlevel {
  crypto_scalarmult_base(q: Uint8Array, n: Uint8Array): number;
  crypto_box_beforenm(k: Uint8Array, publicKey: Uint8Array, secretKey: Uint8Array): number;
}
const { crypto_scalarmult_base, crypto_box_beforenm } = (nacl as unknown as { lowlevel: Lowlevel }).lowlevel;

export const keyBytes = 32;

export interface ExchangeKey {
  readonly publicKey: Uint8Array;
  readonly secret: Plaintext;
}

/** 32 random bytes, drawn where they stay. */
export function drawKey(arena: Arena): Plaintext {
  const key = arena.take(keyBytes);
  randomFillSync(key.expose());
  return key;
}

export function drawExchangeKey(arena: Arena): ExchangeKey {
  return exchangeKeyOf(drawKey(arena));
}

/** The pair that belongs to a secret half, for example one read from disk into the arena. */
export function exchangeKeyOf(secret: Plaintext): ExchangeKey {
  const publicKey = new Uint8Array(keyBytes);
  crypto_scalarmult_base(publicKey, secret.expose());
  return { publicKey, secret };
}

/**
 * The key that both sides of an exchange share (nacl.box.before). The caller wipes it.
 * @throws envelope when the other side's public key is not 32 bytes or is one of X25519's low-order points,
 *   with which anybody could compute the shared key.
 */
export function sharedKey(publicKey: Uint8Array, secret: Plaintext, arena: Arena): Plaintext {
  if (publicKey.length !== keyBytes) {
    throw new InroError('envelope', `an X25519 public key has ${keyBytes} bytes, not ${publicKey.length}`);
  }
  if (lowOrder.has(Buffer.from(publicKey).toString('hex'))) {
    throw new InroError('envelope', 'an X25519 public key of low order is refused');
  }
  const shared = arena.take(keyBytes);
  crypto_box_beforenm(shared.expose(), publicKey, secret.expose());
  return shared;
}

// RFC 7748 section 6.1 asks to abort on an all-zero result; these are the encodings that give it
// (libsodium's blocklist, x25519_ref10.c), with and without the top bit that X25519 ignores.
const lowOrder = new Set(
  [
    '0000000000000000000000000000000000000000000000000000000000000000',
    '0100000000000000000000000000000000000000000000000000000000000000',
    'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800',
    '5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157',
    'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
    'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
    'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  ].flatMap((hex) => {
    const bytes = Buffer.from(hex, 'hex');
    bytes[31] = (bytes[31] as number) ^ 0x80;
    return [hex, bytes.toString('hex')];
  }),
);
