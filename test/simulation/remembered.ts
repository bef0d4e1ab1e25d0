/**
 * Certificates that have been read, and what came of verifying them, are remembered: a simulation looks at the same few again and
 * again. To be imported before anything that uses node:crypto.
 */
import crypto, { type KeyObject, type X509Certificate } from 'node:crypto';
import { syncBuiltinESMExports } from 'node:module';

const Real = crypto.X509Certificate;
const read = new Map<string, X509Certificate>();

class Remembered extends Real {
  readonly #verified = new WeakMap<KeyObject, boolean>();

  constructor(text: Buffer | string) {
    const key = Buffer.isBuffer(text) || typeof text !== 'string' ? Buffer.from(text).toString('hex') : text;
    const known = read.get(key);
    // The one that was read before.
    if (known !== undefined) return known as Remembered;
    super(text);
    read.set(key, this);
  }

  override verify(publicKey: KeyObject): boolean {
    const known = this.#verified.get(publicKey) ?? super.verify(publicKey);
    this.#verified.set(publicKey, known);
    return known;
  }
}

crypto.X509Certificate = Remembered;
syncBuiltinESMExports();

/** They are so from when this module was loaded. */
export function remembers(): void {
  if (crypto.X509Certificate !== Remembered) throw new Error('they are not');
}
