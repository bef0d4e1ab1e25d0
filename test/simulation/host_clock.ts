/** A host's clock in a simulation: a little too fast or too slow, and its wall clock may jump. */
import type { Clock } from '../../src/model/clock.js';
import type { Process, World } from './world.js';

const epochMs = Date.UTC(2026, 0, 2, 3, 4, 5);

export class HostClock {
  readonly #world: World;
  readonly #rate: number;
  readonly #bootedMs: number;
  /** How far the wall clock is off, ms. */
  wallOffMs = 0;

  /** @param rate its seconds for a true one. */
  constructor(world: World, rate: number) {
    this.#world = world;
    this.#rate = rate;
    this.#bootedMs = world.nowMs - 1_000;
  }

  boottimeMs(): number {
    return (this.#world.nowMs - this.#bootedMs) * this.#rate;
  }

  wallMs(): number {
    return Math.floor(epochMs + this.#world.nowMs + this.wallOffMs);
  }

  /** As one process sees it: its alarms go off while it lives. */
  for(process: Process): Clock {
    const alarm = (ms: number, ring: () => void) =>
      // As setTimeout: no alarm goes off at once.
      this.#world.in(Math.max(1, ms) / this.#rate, () => process.deliver(ring));
    return {
      now: () => this.wallMs(),
      boottimeMs: () => this.boottimeMs(),
      monotonicUs: () => this.boottimeMs() * 1_000,
      sleep: (ms, signal) =>
        new Promise((resolve) => {
          if (signal?.aborted === true) return resolve();
          const done = (): void => {
            planned.cancel();
            signal?.removeEventListener('abort', done);
            resolve();
          };
          const planned = alarm(ms, done);
          signal?.addEventListener('abort', done, { once: true });
        }),
      timer: (ms, callback) => alarm(ms, callback),
      soon: (callback) => process.soon(callback),
    };
  }
}
