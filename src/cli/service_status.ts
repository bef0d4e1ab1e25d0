/** Telling the service manager how a long-running command is. */
import { systemClock } from '../system/clock.js';
import type { ServiceManager } from '../system/service_manager.js';

/** How often it is told at least, if something has changed. */
const statusMs = 5_000;

export interface Summary {
  /** One line. */
  text: string;
  /** It does what it is for: without that there is no sign of life. */
  isServed: boolean;
}

/** Readiness, then status lines and signs of life, until the signal aborts. */
export async function tellServiceManager(
  manager: ServiceManager | undefined,
  look: () => Summary,
  signal: AbortSignal,
): Promise<void> {
  if (manager === undefined) return;
  let told = look().text;
  manager.ready(told);
  const periodMs = Math.min(statusMs, (manager.watchdogMs ?? Infinity) / 3);
  while (!signal.aborted) {
    const { text, isServed } = look();
    if (text !== told) manager.status(text);
    told = text;
    if (isServed) manager.alive();
    await systemClock.sleep(periodMs, signal);
  }
}
