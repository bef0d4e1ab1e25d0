/**
 * When each test file began, how long it took, and how much of a processor: ava loads this into each file's process
 * (ava.config.js), which notes it; scripts/test.mjs says the longest ones, and ends those that do not end.
 */
import { appendFileSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const name = '.durations';
/** Of /proc/PID/stat, as Linux shows them to programs (proc(5)). */
const ticksPerSecond = 100;

/** For ava's `require`. Outside a run of scripts/test.mjs nothing is noted. */
export default async function noteAtEnd() {
  const { INRO_TEST_RUN: run, TMPDIR: directory } = process.env;
  if (run === undefined || directory === undefined) return;
  // Only there can it be loaded.
  const { default: test } = await import('ava');
  const file = relative(process.cwd(), fileURLToPath(test.meta.file));
  const { pid } = process;
  const note = (facts) =>
    appendFileSync(join(directory, name), `${JSON.stringify({ file, pid, ...facts })}\n`);
  note({ beganMs: Date.now() });
  process.on('exit', () => note({ seconds: performance.now() / 1000, cpuSeconds: cpu() }));
}

/** @returns a line for each of the `count` longest, the longest first. */
export function longest(directory, count) {
  return notes(directory)
    .filter(({ seconds }) => seconds !== undefined)
    .sort((a, b) => b.seconds - a.seconds)
    .slice(0, count)
    .map(
      ({ file, seconds, cpuSeconds }) =>
        `${seconds.toFixed(0).padStart(5)} s, ${cpuSeconds.toFixed(0).padStart(4)} s of a processor: ${file}`,
    );
}

/** @returns {file, pid, beganMs} of each that has begun and not ended. */
export function running(directory) {
  const all = notes(directory);
  const ended = new Set(all.filter(({ seconds }) => seconds !== undefined).map(({ pid }) => pid));
  return all.filter(({ pid, beganMs }) => beganMs !== undefined && !ended.has(pid));
}

function notes(directory) {
  try {
    const lines = readFileSync(join(directory, name), 'utf8').trimEnd().split('\n');
    return lines.map((line) => JSON.parse(line));
  } catch {
    return []; // no file was run
  }
}

/** This process and all that it has waited for. */
function cpu() {
  const stat = readFileSync('/proc/self/stat', 'utf8');
  // utime, stime, cutime, cstime; the name before may have spaces and parentheses.
  const ticks = stat
    .slice(stat.lastIndexOf(')') + 2)
    .split(' ')
    .slice(11, 15);
  return ticks.reduce((sum, each) => sum + Number(each), 0) / ticksPerSecond;
}
