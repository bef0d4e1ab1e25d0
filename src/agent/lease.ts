/**
 * How long this node may serve without hearing from a manager: a deadline on CLOCK_BOOTTIME, counted from
 * when the answered heartbeat was sent, so that the node never believes in it longer than the manager.
 */
import type { Clock } from '../model/clock.js';

export class Lease {
  readonly #clock: Clock;
  #deadlineMs = -Infinity;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** @param sentMs boot-time ms at which the message that was answered had been sent. */
  extend(sentMs: number, leaseMs: number): void {
    this.#deadlineMs = Math.max(this.#deadlineMs, sentMs + leaseMs);
  }

  /** The manager's order to serve nothing any more. */
  end(): void {
    this.#deadlineMs = -Infinity;
  }

  leftMs(): number {
    return Math.max(0, this.#deadlineMs - this.#clock.boottimeMs());
  }

  /** Asked at each open and read. */
  holds(): boolean {
    return this.#clock.boottimeMs() < this.#deadlineMs;
  }
}
