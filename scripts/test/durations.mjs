/**
 * How long each test file took, and how much of a processor: ava loads this into each file's process (ava.config.js),
 * which notes it when it ends; scripts/test.mjs says the longest ones.
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
  process.on('exit', () => {
    const [seconds, cpuSeconds] = [performance.now() / 1000, cpu()];
    appendFileSync(join(directory, name), `${JSON.stringify({ file, seconds, cpuSeconds })}\n`);
  });
}

/** @returns a line for each of the `count` longest, the longest first. */
export function longest(directory, count) {
  return notes(directory)
    .sort((a, b) => b.seconds - a.seconds)
    .slice(0, count)
    .map(
      ({ file, seconds, cpuSeconds }) =>
        `${seconds.toFixed(0).padStart(5)} s, ${cpuSeconds.toFixed(0).padStart(4)} s of a processor: ${file}`,
    );
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
