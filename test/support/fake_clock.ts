/**
 * A clock that stands still until a test moves it. Wall time and boot time are apart, because only the first
 * may jump; sleeps and timers follow boot time.
 */
import type { Clock } from '../../src/model/clock.js';

interface Alarm {
  atMs: number;
  ring: () => void;
}

export class FakeClock implements Clock {
  #wallMs: number;
  #bootMs: number;
  readonly #alarms = new Set<Alarm>();

  /** @param bootMs the host's own where the native core compares with it: a lease that ends is one that ended for it, too. */
  constructor(wallMs: number = Date.UTC(2026, 0, 2, 3, 4, 5), bootMs = 1_000) {
    this.#wallMs = wallMs;
    this.#bootMs = bootMs;
  }

  /** Whole ms, as Date.now(). */
  now(): number {
    return Math.floor(this.#wallMs);
  }

  boottimeMs(): number {
    return this.#bootMs;
  }

  monotonicUs(): number {
    return this.#bootMs * 1_000;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (signal?.aborted === true) return resolve();
      const alarm = this.#alarm(ms, done);
      const clock = this.#alarms;
      function done(): void {
        clock.delete(alarm);
        signal?.removeEventListener('abort', done);
        resolve();
      }
      signal?.addEventListener('abort', done, { once: true });
    });
  }

  timer(ms: number, callback: () => void): { cancel(): void } {
    const alarm = this.#alarm(ms, callback);
    return { cancel: () => void this.#alarms.delete(alarm) };
  }

  soon(callback: () => void): { cancel(): void } {
    const turn = setImmediate(callback);
    return { cancel: () => clearImmediate(turn) };
  }

  /** Sleeps and timers that have not ended: an actor that has stopped leaves none. */
  get pending(): number {
    return this.#alarms.size;
  }

  /** Both times move; what falls due on the way happens at its own time, one thing after the other. */
  async advance(ms: number): Promise<void> {
    const endMs = this.#bootMs + ms;
    await settle();
    for (;;) {
      const next = [...this.#alarms].sort((a, b) => a.atMs - b.atMs)[0];
      if (next === undefined || next.atMs > endMs) break;
      this.#alarms.delete(next);
      this.#moveTo(Math.max(next.atMs, this.#bootMs));
      next.ring();
      await settle();
    }
    this.#moveTo(endMs);
    await settle();
  }

  /** As after a suspend: the time is another, and what fell due meanwhile happens now, once. */
  async jump(ms: number): Promise<void> {
    this.#moveTo(this.#bootMs + ms);
    const due = [...this.#alarms].filter(({ atMs }) => atMs <= this.#bootMs).sort((a, b) => a.atMs - b.atMs);
    for (const alarm of due) {
      if (this.#alarms.delete(alarm)) alarm.ring();
    }
    await settle();
  }

  /** As an operator, NTP or a dead battery does it; boot time does not notice. */
  setWall(ms: number): void {
    this.#wallMs = ms;
  }

  #alarm(ms: number, ring: () => void): Alarm {
    const alarm = { atMs: this.#bootMs + ms, ring };
    this.#alarms.add(alarm);
    return alarm;
  }

  #moveTo(bootMs: number): void {
    this.#wallMs += bootMs - this.#bootMs;
    this.#bootMs = bootMs;
  }
}

/** Lets everything that can go on without time or input go on. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
}
