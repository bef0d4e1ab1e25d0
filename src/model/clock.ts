/** Time and chance come in from outside, so that tests (and a simulation) can drive them. */
export interface Clock {
  /** Wall-clock time in ms since 1970: for showing and for certificates. It may jump. */
  now(): number;
  /** CLOCK_BOOTTIME in ms: never jumps, counts suspend. For deadlines. */
  boottimeMs(): number;
  /** Monotonic time in us, with a fraction, from no particular moment: for measuring how long something short took. */
  monotonicUs(): number;
  /** Resolves after ms; at once, without an error, when the signal aborts. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
  /** Calls back once after ms unless cancelled; does not keep the process alive. */
  timer(ms: number, callback: () => void): { cancel(): void };
  /** Calls back in another turn, after all that can go on by itself now. */
  soon(callback: () => void): { cancel(): void };
}

/** n random bytes that may be seen by others (ids, nonces, jitter). Never for keys: those are drawn into locked memory. */
export type Random = (n: number) => Uint8Array;
