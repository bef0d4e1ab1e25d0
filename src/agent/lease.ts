/**
 * How long this node may serve without hearing from a manager: a deadline on CLOCK_BOOTTIME, counted from
 * when the answered heartbeat was sent, so that the node never believes in it longer than the manager.
 */
import type { Clock } from '../model/clock.js';

export class Lease {
  readonly #clock: Clock;
  readonly #onChange: (deadlineMs: number) => void;
  #deadlineMs = -Infinity;

  /** @param onChange is told each new deadline, ms of CLOCK_BOOTTIME: who answers reads holds to it, whatever happens here. */
  constructor(clock: Clock, onChange: (deadlineMs: number) => void) {
    this.#clock = clock;
    this.#onChange = onChange;
  }

  /** @param sentMs boot-time ms at which the message that was answered had been sent. */
  extend(sentMs: number, leaseMs: number): void {
    this.#deadlineMs = Math.max(this.#deadlineMs, sentMs + leaseMs);
    this.#onChange(this.#deadlineMs);
  }

  /** The deadline that a predecessor had. */
  inherit(deadlineMs: number): void {
    this.#deadlineMs = Math.max(this.#deadlineMs, deadlineMs);
    this.#onChange(this.#deadlineMs);
  }

  /** The manager's order to serve nothing any more. */
  end(): void {
    this.#deadlineMs = -Infinity;
    this.#onChange(this.#deadlineMs);
  }

  /** ms of CLOCK_BOOTTIME; -Infinity: nothing may be served. */
  get deadlineMs(): number {
    return this.#deadlineMs;
  }

  leftMs(): number {
    return Math.max(0, this.#deadlineMs - this.#clock.boottimeMs());
  }

  holds(): boolean {
    return this.#clock.boottimeMs() < this.#deadlineMs;
  }
}
