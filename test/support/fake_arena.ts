/** A Plaintext in ordinary memory, wiped and detached as a real arena does it. */
import { Plaintext } from '../../src/crypto/plaintext.js';

/** A plaintext of these bytes (a text as UTF-8). */
export function fakePlaintext(value: string | Uint8Array): Plaintext {
  const bytes = typeof value === 'string' ? new TextEncoder().encode(value) : value;
  const plaintext = new Plaintext(new ArrayBuffer(bytes.length), 0, (buffer) => {
    new Uint8Array(buffer).fill(0);
    structuredClone(buffer, { transfer: [buffer] });
    return true;
  });
  plaintext.expose().set(bytes);
  return plaintext;
}
