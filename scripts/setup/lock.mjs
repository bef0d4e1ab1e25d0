/**
 * One set-up at a time in a checkout. The lock is flock(2) on the checkout's own directory, held by a child that ends
 * with us, so the kernel takes it back whatever happens and no stale lock file can be left.
 */
import { spawn } from 'node:child_process';

const waitLimitMs = 20 * 60_000;
/** A free lock is had well before this. */
const sayAfterMs = 500;

/**
 * @param root the checkout
 * @param say prints a line
 * @returns a function that gives the lock back, or undefined when the time was up (which it said)
 */
export function lock(root, say) {
  return new Promise((resolve) => {
    const holder = spawn('flock', [root, 'sh', '-c', 'echo locked; exec cat'], {
      stdio: ['pipe', 'pipe', 'ignore'],
    });
    const notice = setTimeout(() => say('another set-up works in this checkout, waiting for it'), sayAfterMs);
    const limit = setTimeout(() => {
      holder.kill();
      say(`another set-up has held this checkout for ${waitLimitMs / 60_000} min; giving up`);
      settle(undefined);
    }, waitLimitMs);
    const settle = (unlock) => {
      clearTimeout(notice);
      clearTimeout(limit);
      resolve(unlock);
    };
    const without = (reason) => {
      say(`the checkout cannot be locked (${reason}): run only one set-up at a time`);
      settle(() => {});
    };
    holder.stdin.on('error', () => {});
    holder.on('error', (error) => without(error.message));
    holder.on('exit', (code) => without(`flock: exit code ${code}`));
    holder.stdout.once('data', () => {
      holder.removeAllListeners('exit');
      settle(() => holder.stdin.end());
    });
  });
}
