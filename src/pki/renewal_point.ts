/**
 * When a certificate is renewed: at a random point in 50-80 % of its life (swarmkit ca/renewer.go), so that nodes that
 * joined together do not come back together.
 */
import type { Clock, Random } from '../model/clock.js';
import type { Certificate } from './certificate.js';
import { limits } from './limits.js';

type Validity = Pick<Certificate, 'notBeforeMs' | 'notAfterMs'>;

interface Surroundings {
  clock: Pick<Clock, 'now' | 'boottimeMs'>;
  random: Random;
}

/** ms since 1970: without the hour that is put before it, half of which would be gone when a short life begins. */
export function issuedMs({ notBeforeMs, notAfterMs }: Validity): number {
  const issued = notBeforeMs + limits.backdateMs;
  return issued < notAfterMs ? issued : notBeforeMs;
}

export class RenewalPoint {
  /** By the wall clock, ms since 1970. */
  readonly dueMs: number;
  readonly #clock: Surroundings['clock'];
  readonly #dueBootMs: number;
  readonly #notBeforeBootMs: number;

  /**
   * @param isFresh it was issued just now. Where this clock is ahead of the issuer's, its life begins now, not in the past:
   *   it would be due at once, and so would each that comes after it.
   */
  constructor(certificate: Validity, isFresh: boolean, { clock, random }: Surroundings) {
    const now = clock.now();
    const fromMs = isFresh ? Math.max(issuedMs(certificate), now) : issuedMs(certificate);
    const drawn = Buffer.from(random(4)).readUInt32BE() / 2 ** 32;
    const part = limits.renewFrom + drawn * (limits.renewTo - limits.renewFrom);
    this.dueMs = Math.round(fromMs + (certificate.notAfterMs - fromMs) * part);
    this.#clock = clock;
    this.#dueBootMs = clock.boottimeMs() + (this.dueMs - now);
    this.#notBeforeBootMs = isFresh ? clock.boottimeMs() + limits.renewalGapMs : -Infinity;
  }

  /** ms until it is renewed, at the earliest by either clock: one that is set back does not make it late. */
  leftMs(): number {
    const boottimeMs = this.#clock.boottimeMs();
    const leftMs = Math.min(this.dueMs - this.#clock.now(), this.#dueBootMs - boottimeMs);
    return Math.max(leftMs, this.#notBeforeBootMs - boottimeMs, 0);
  }

  isOver(): boolean {
    return this.leftMs() === 0;
  }
}
