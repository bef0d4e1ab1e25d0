/** How long a node may serve a value without hearing from a manager. */
import { durationText, parseDuration } from './duration.js';
import { InroError } from './error.js';

export const defaultLeaseMs = 24 * 60 * 60 * 1000;
/** As stored and sent: as long as the agent runs. */
export const neverMs = -1;
const minLeaseMs = 10_000;
const maxLeaseMs = 365 * 24 * 60 * 60 * 1000;

/** `never`, or a length of time. @returns ms. @throws bad_input */
export function parseLease(text: string): number {
  return text === 'never' ? neverMs : checkLease(parseDuration(text));
}

/** @throws bad_input */
export function checkLease(leaseMs: number): number {
  if (leaseMs === neverMs || (leaseMs >= minLeaseMs && leaseMs <= maxLeaseMs)) return leaseMs;
  throw new InroError('bad_input', `a lease of ${durationText(Math.max(0, leaseMs))} is not possible`, {
    remedy: 'write 10s to 365d, or never',
  });
}

export function leaseText(leaseMs: number): string {
  return leaseMs === neverMs ? 'never' : durationText(leaseMs);
}
