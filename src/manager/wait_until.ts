/** Waiting on the manager's side of a call: until something is so, time is up, or the caller has gone. */
import type { Clock } from '../model/clock.js';
import { managerLimits } from './limits.js';

/** @param listen calls `look` whenever it may have become so; gives how to stop. */
export async function waitUntil(
  isSo: () => boolean,
  listen: (look: () => void) => () => void,
  { clock, timeoutMs, signal }: { clock: Clock; timeoutMs: number; signal: AbortSignal },
): Promise<void> {
  const over = new AbortController();
  const stop = (): void => over.abort();
  const look = (): void => {
    if (isSo()) stop();
  };
  signal.addEventListener('abort', stop, { once: true });
  const stopListening = listen(look);
  look();
  await clock.sleep(Math.min(timeoutMs, managerLimits.maxWaitMs), over.signal);
  stopListening();
  signal.removeEventListener('abort', stop);
}
