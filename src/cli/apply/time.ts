/** A length of time in a file: `10s`, `5m`, or a number of seconds. */
import { parseDuration } from '../../model/duration.js';

/** @returns ms. @throws bad_input */
export function timeMs(time: string | number): number {
  if (typeof time === 'number') return Math.round(time * 1000);
  return /^0s?$/.test(time) ? 0 : parseDuration(time);
}
