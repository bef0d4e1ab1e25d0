/** Test files that do not end: what their processes wait for is said, and they are ended, so that the others go on. */
import { readFileSync, readdirSync } from 'node:fs';
import { alive, commandLine, descendants, end, read } from '../processes.mjs';
import { running } from './durations.mjs';

const lookMs = 10_000;
const endGraceMs = 3_000;
const shownCommandChars = 120;
const shownFrames = 12;

/**
 * Until the run ends.
 * @param directory of the run. @param limitMs how long a file may take.
 */
export function endStuckFiles(directory, say, limitMs) {
  const ended = new Set();
  setInterval(
    () => {
      for (const { file, pid, beganMs } of running(directory)) {
        if (Date.now() - beganMs < limitMs || ended.has(pid)) continue;
        ended.add(pid);
        const worker = read(pid);
        if (worker === undefined) continue;
        say(`${file} is not done after ${limitMs / 1000} s: ended\n${waitingOf(pid).join('\n')}`);
        void end([...descendants(pid), worker], endGraceMs).then((left) => {
          for (const one of left)
            say(`process ${one.pid} cannot be ended:\n${waitingOf(one.pid).join('\n')}`);
        });
      }
    },
    Math.min(lookMs, limitMs),
  ).unref();
}

/** What the files wait for that are under way. */
export function sayRunning(directory, say) {
  for (const { file, pid } of running(directory)) say(`under way: ${file}\n${waitingOf(pid).join('\n')}`);
}

/** A line for each process from this one down: its state, where in the kernel it waits, its command. */
function waitingOf(pid) {
  const all = [read(pid), ...descendants(pid)].filter((one) => one !== undefined && alive(one));
  return all.flatMap((one) => [
    `  ${one.pid} (of ${one.ppid}) ${one.state} ${text(`/proc/${one.pid}/wchan`)} ${commandLine(one.pid).slice(0, shownCommandChars)}`,
    ...uninterruptible(one.pid),
  ]);
}

/** Threads that no signal ends, with their way through the kernel where that may be seen. */
function uninterruptible(pid) {
  return names(`/proc/${pid}/task`).flatMap((thread) => {
    const stat = text(`/proc/${pid}/task/${thread}/stat`);
    if (stat.slice(stat.lastIndexOf(')') + 2)[0] !== 'D') return [];
    const frames = text(`/proc/${pid}/task/${thread}/stack`).trim().split('\n').slice(0, shownFrames);
    return [`    thread ${thread} is uninterruptible`, ...frames.map((frame) => `      ${frame}`)];
  });
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
