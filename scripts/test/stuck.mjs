/** Test files that do not end: what their processes wait for is said, and they are ended, so that the others go on. */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { descendants, end, read } from '../processes.mjs';
import { running } from './durations.mjs';

const program = fileURLToPath(new URL('waiting.mjs', import.meta.url));
const lookMs = 10_000;
const describeMs = 10_000;
const endGraceMs = 3_000;

/**
 * Until the run ends.
 * @param directory of the run. @param limitMs how long a file may take.
 */
export function endStuckFiles(directory, say, limitMs) {
  const seen = new Set();
  const look = () => {
    for (const one of running(directory)) {
      if (Date.now() - one.beganMs < limitMs || seen.has(one.pid)) continue;
      seen.add(one.pid);
      void endFile(one, say, limitMs);
    }
  };
  setInterval(look, Math.min(lookMs, limitMs)).unref();
}

/** What the files wait for that are under way. */
export async function sayRunning(directory, say) {
  for (const { file, pid } of running(directory)) say(`under way: ${file}\n${await waitingOf(pid)}`);
}

async function endFile({ file, pid }, say, limitMs) {
  const worker = read(pid);
  if (worker === undefined) return;
  say(`${file} is not done after ${limitMs / 1000} s: ended\n${await waitingOf(pid)}`);
  for (const one of await end([...descendants(pid), worker], endGraceMs))
    say(`process ${one.pid} cannot be ended:\n${await waitingOf(one.pid)}`);
}

/** As much of it as can be known in time. */
function waitingOf(pid) {
  return new Promise((resolve) => {
    const options = { timeout: describeMs, killSignal: 'SIGKILL' };
    const child = execFile(process.execPath, [program, String(pid)], options, (error, stdout) =>
      resolve(stdout.trimEnd() + (error === null ? '' : `\n  ${error.message}`)),
    );
    // One that cannot be killed would be waited for.
    setTimeout(() => child.stdout.destroy(), 2 * describeMs).unref();
  });
}
