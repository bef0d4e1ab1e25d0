/** How long, as operators write it: `90s`, `10m`, `24h`, `7d`. */
import { InroError } from './error.js';
import { quoted } from './name.js';

const unitMs = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;
type Unit = keyof typeof unitMs;
const largestFirst = ['d', 'h', 'm', 's'] as const;

/** @returns ms. @throws bad_input */
export function parseDuration(text: string): number {
  const match = /^([0-9]{1,6})([smhd])$/.exec(text);
  if (match === null || Number(match[1]) === 0) {
    throw new InroError('bad_input', `${quoted(text)} is not a length of time`, {
      remedy: 'write a number and s, m, h or d: 90s, 10m, 24h, 7d',
    });
  }
  return Number(match[1]) * unitMs[match[2] as keyof typeof unitMs];
}

/** `90 days`, `12 h`, `1 h 30 min`: what is left below a second is dropped. */
export function durationText(ms: number): string {
  const names: Record<Unit, string> = { d: 'days', h: 'h', m: 'min', s: 's' };
  let left = ms;
  const parts = largestFirst.flatMap((unit) => {
    const count = Math.floor(left / unitMs[unit]);
    left -= count * unitMs[unit];
    return count === 0 ? [] : [`${count} ${unit === 'd' && count === 1 ? 'day' : names[unit]}`];
  });
  return parts.join(' ') || '0 s';
}
