/** The real clock and the real chance. */
import { randomBytes } from 'node:crypto';
import type { Clock, Random } from '../model/clock.js';
import { addon } from './addon.js';

export const systemClock: Clock = {
  now: () => Date.now(),
  boottimeMs: () => addon().boottimeMs(),
  monotonicUs: () => Number(process.hrtime.bigint()) / 1_000,
  sleep: (ms, signal) =>
    new Promise((resolve) => {
      if (signal?.aborted === true) return resolve();
      const done = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', done);
        resolve();
      };
      const timer = setTimeout(done, ms);
      signal?.addEventListener('abort', done, { once: true });
    }),
  timer: (ms, callback) => {
    const timer = setTimeout(callback, ms).unref();
    return { cancel: () => clearTimeout(timer) };
  },
  soon: (callback) => {
    const turn = setImmediate(callback);
    return { cancel: () => clearImmediate(turn) };
  },
};

export const systemRandom: Random = (n) => randomBytes(n);

/** The moment at which an answer comes too late, as gRPC wants it. */
export function deadlineIn(ms: number): Date {
  return new Date(Date.now() + ms);
}
