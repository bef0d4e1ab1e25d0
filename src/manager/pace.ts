/** How much one node may ask of the manager: so much at once, and so much in each second after that. */
import type { Clock } from '../model/clock.js';

export interface Allowance {
  atOnce: number;
  perSecond: number;
}

export class Pace {
  readonly #clock: Clock;
  readonly #allowance: Allowance;
  /** Boot-time ms at which all that was taken is made up for. */
  #evenAtMs = -Infinity;

  constructor(clock: Clock, allowance: Allowance) {
    this.#clock = clock;
    this.#allowance = allowance;
  }

  /** Takes it, whatever there is left. @returns ms to wait before it is done. */
  take(amount: number): number {
    const { atOnce, perSecond } = this.#allowance;
    const nowMs = this.#clock.boottimeMs();
    this.#evenAtMs = Math.max(this.#evenAtMs, nowMs) + (amount / perSecond) * 1_000;
    return Math.max(0, this.#evenAtMs - nowMs - (atOnce / perSecond) * 1_000);
  }

  /** Takes it if it need not be waited for. */
  has(amount: number): boolean {
    const beforeMs = this.#evenAtMs;
    if (this.take(amount) === 0) return true;
    this.#evenAtMs = beforeMs;
    return false;
  }
}
