/**
 * In place of X25519, for a simulation, which would spend most of its time there. To be imported before anything that uses
 * tweetnacl. Two sides agree on a key exactly when each has the public half that belongs to the other's secret; all else about
 * envelopes, bindings and signatures is the real thing. test/simulation/exchange_stand_in.test.ts holds it to what counts.
 */
import { createHash } from 'node:crypto';
import nacl from 'tweetnacl';

interface Lowlevel {
  crypto_scalarmult_base(q: Uint8Array, n: Uint8Array): number;
  crypto_box_beforenm(k: Uint8Array, publicKey: Uint8Array, secretKey: Uint8Array): number;
}
const { lowlevel } = nacl as unknown as { lowlevel: Lowlevel };

const digest = (...parts: Uint8Array[]): Uint8Array => {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return hash.digest();
};
const publicOf = (secret: Uint8Array): Uint8Array => digest(Buffer.from('public half'), secret.slice(0, 32));

lowlevel.crypto_scalarmult_base = (q, n) => {
  q.set(publicOf(n));
  return 0;
};
lowlevel.crypto_box_beforenm = (k, publicKey, secretKey) => {
  const both = [publicKey, publicOf(secretKey)].toSorted((a, b) => Buffer.compare(a, b));
  k.set(digest(Buffer.from('shared'), ...both));
  return 0;
};

/** It does so from when this module was loaded. */
export function standsIn(): void {
  if (lowlevel.crypto_box_beforenm.length !== 3) throw new Error('it does not');
}
