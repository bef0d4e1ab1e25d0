/** What commands print: JSON as documented in docs/json.md, or tables for people. Results go to stdout alone. */
import { createRequire } from 'node:module';
import type Dayjs from 'dayjs';
import type RelativeTime from 'dayjs/plugin/relativeTime.js';
import type Table from 'cli-table3';

// Both take as long to load as all else that many a command does: only who prints a table or a relative time waits for them.
const load = createRequire(import.meta.url);
let dayjs: typeof Dayjs | undefined;

export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, undefined, 2)}\n`);
}

export function printLine(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** What an operator should know though the command goes on. */
export function warn(text: string): void {
  process.stderr.write(`inro: ${text}\n`);
}

/** Columns without lines, as Docker's users know them. */
export function printTable(head: readonly string[], rows: readonly (readonly string[])[]): void {
  process.stdout.write(formatTable([head, ...rows]));
}

export function formatTable(rows: readonly (readonly string[])[]): string {
  const table = new (load('cli-table3') as typeof Table)({
    chars: noLines,
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 3 },
  });
  table.push(...rows.map((row) => row.map(String)));
  return `${table
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n')}\n`;
}

/** `key: value` lines, one block a thing. */
export function printFacts(facts: readonly (readonly [string, string])[]): void {
  process.stdout.write(formatTable(facts.map(([name, value]) => [`${name}:`, value])));
}

export function ago(ms: bigint | number): string {
  return Number(ms) === 0 ? '-' : relative()(Number(ms)).fromNow();
}

function relative(): typeof Dayjs {
  if (dayjs === undefined) {
    dayjs = load('dayjs') as typeof Dayjs;
    dayjs.extend(load('dayjs/plugin/relativeTime.js') as typeof RelativeTime);
  }
  return dayjs;
}

export function iso(ms: bigint | number): string {
  return new Date(Number(ms)).toISOString();
}

/** A time in JSON: ISO 8601, or null when it never happened. */
export function isoOrNull(ms: bigint | number): string | null {
  return Number(ms) === 0 ? null : iso(ms);
}

export function labelText(labels: Record<string, string>): string {
  const entries = Object.entries(labels);
  return entries.length === 0 ? '-' : entries.map(([key, value]) => `${key}=${value}`).join(',');
}

export function octal(mode: number): string {
  return mode.toString(8).padStart(4, '0');
}

// Every border of cli-table3, as nothing.
const noLines = {
  top: '',
  'top-mid': '',
  'top-left': '',
  'top-right': '',
  bottom: '',
  'bottom-mid': '',
  'bottom-left': '',
  'bottom-right': '',
  left: '',
  'left-mid': '',
  mid: '',
  'mid-mid': '',
  right: '',
  'right-mid': '',
  middle: '',
};

/** A row of a table that is printed line by line. @param widths of its columns; the last is as wide as it is. */
export function padded(row: readonly string[], widths: readonly number[]): string {
  return row
    .map((text, at) => text.padEnd(widths[at] ?? 0))
    .join(' ')
    .trimEnd();
}
