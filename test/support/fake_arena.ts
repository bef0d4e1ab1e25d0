/** An arena of ordinary memory: the same Plaintext, wiped and detached as the real one does it. */
import { Plaintext } from '../../src/crypto/plaintext.js';

export function fakeArena(): { take(payloadBytes: number): Plaintext } {
  return {
    take: (payloadBytes) =>
      new Plaintext(new ArrayBuffer(payloadBytes), 0, (buffer) => {
        new Uint8Array(buffer).fill(0);
        structuredClone(buffer, { transfer: [buffer] });
      }),
  };
}

/** A plaintext of these bytes (a text as UTF-8). */
export function fakePlaintext(value: string | Uint8Array): Plaintext {
  const bytes = typeof value === 'string' ? new TextEncoder().encode(value) : value;
  const plaintext = fakeArena().take(bytes.length);
  plaintext.expose().set(bytes);
  return plaintext;
}
