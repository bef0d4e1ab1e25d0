/** Durations as operators write them: `90d`, `2160h`, `12h`, `1h30m` (Docker's form, and days). */
import { InroError } from './error.js';
import { quoted } from './name.js';

const unitsMs = { d: 86_400_000, h: 3_600_000, m: 60_000, s: 1_000 } as const;
type Unit = keyof typeof unitsMs;

/** @returns ms. @throws bad_input for anything but whole numbers with units, the largest unit first. */
export function parseDuration(text: string): number {
  const parts = /^(?=.)(?:([0-9]{1,9})d)?(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s)?$/.exec(text);
  if (parts === null)
    throw new InroError('bad_input', `${quoted(text)} is not a duration`, {
      remedy: 'write whole numbers with the units d, h, m and s: 90d, 2160h, 12h, 1h30m',
    });
  const units = Object.keys(unitsMs) as Unit[];
  return units.reduce((sum, unit, n) => sum + Number(parts[n + 1] ?? 0) * unitsMs[unit], 0);
}

/** `90 days`, `12 h`, `1 h 30 min`: what is left below a second is dropped. */
export function durationText(ms: number): string {
  const names: Record<Unit, string> = { d: 'days', h: 'h', m: 'min', s: 's' };
  let left = ms;
  const parts = (Object.keys(unitsMs) as Unit[]).flatMap((unit) => {
    const count = Math.floor(left / unitsMs[unit]);
    left -= count * unitsMs[unit];
    return count === 0 ? [] : [`${count} ${unit === 'd' && count === 1 ? 'day' : names[unit]}`];
  });
  return parts.join(' ') || '0 s';
}
