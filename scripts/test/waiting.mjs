/**
 * What a process, and all below it, wait for: `node waiting.mjs PID`. A program of its own: to read of a process that hangs
 * may hang as well.
 */
import { readFileSync, readdirSync } from 'node:fs';
import { alive, commandLine, descendants, read } from '../processes.mjs';

const shownCommandChars = 120;
const shownFrames = 12;

const pid = Number(process.argv[2]);
for (const one of [read(pid), ...descendants(pid)]) {
  if (one === undefined || !alive(one)) continue;
  const name = text(`/proc/${one.pid}/comm`).trim();
  print(`  ${one.pid} (of ${one.ppid}) ${one.state} ${text(`/proc/${one.pid}/wchan`)} ${name}`);
  for (const thread of names(`/proc/${one.pid}/task`)) describe(one.pid, thread);
  print(`    ${commandLine(one.pid).slice(0, shownCommandChars)}`);
}

/** A thread that no signal ends, with its way through the kernel where that may be seen. */
function describe(owner, thread) {
  const stat = text(`/proc/${owner}/task/${thread}/stat`);
  if (stat.slice(stat.lastIndexOf(')') + 2)[0] !== 'D') return;
  print(`    thread ${thread} is uninterruptible`);
  const frames = text(`/proc/${owner}/task/${thread}/stack`).trim().split('\n').slice(0, shownFrames);
  for (const frame of frames) print(`      ${frame}`);
}

function print(line) {
  process.stdout.write(`${line}\n`);
}

function names(directory) {
  try {
    return readdirSync(directory);
  } catch {
    return []; // it is gone
  }
}

function text(path) {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return ''; // it is gone, or another user's
  }
}
