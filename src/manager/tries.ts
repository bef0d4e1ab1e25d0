/** Something that somebody may do so often within a time: how often each has, by what he is known by. Lives as long as the process. */
import type { Clock } from '../model/clock.js';
import { managerLimits } from './limits.js';

interface Count {
  count: number;
  sinceMs: number;
}

export class Tries {
  readonly #clock: Pick<Clock, 'boottimeMs'>;
  readonly #windowMs: number;
  /** Those that were counted least recently first. */
  readonly #counts = new Map<string, Count>();

  constructor(clock: Pick<Clock, 'boottimeMs'>, windowMs: number) {
    this.#clock = clock;
    this.#windowMs = windowMs;
  }

  /** Within the time that has begun with the first. */
  count(who: string): number {
    return this.#current(who)?.count ?? 0;
  }

  /** Until that time is over. */
  leftMs(who: string): number {
    const counted = this.#current(who);
    return counted === undefined ? 0 : counted.sinceMs + this.#windowMs - this.#clock.boottimeMs();
  }

  note(who: string): void {
    const counted = this.#current(who) ?? { count: 0, sinceMs: this.#clock.boottimeMs() };
    this.#counts.delete(who);
    this.#counts.set(who, { ...counted, count: counted.count + 1 });
    const [oldest] = this.#counts.keys();
    if (this.#counts.size > managerLimits.maxWatchedAddresses && oldest !== undefined)
      this.#counts.delete(oldest);
  }

  #current(who: string): Count | undefined {
    const counted = this.#counts.get(who);
    if (counted === undefined || this.#clock.boottimeMs() - counted.sinceMs < this.#windowMs) return counted;
    this.#counts.delete(who);
    return undefined;
  }
}
