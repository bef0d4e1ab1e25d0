/** Tests on machines of their own, and those machines. */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import test, { type ExecutionContext } from 'ava';

export { Host, type Manager } from './machine.js';

/** Why no such machine can be made here; undefined when it can. */
const missing = whatIsMissing();

/** A test that needs hosts: one at a time in its file, with time for what it starts, skipped with the reason. */
export function scenario(
  title: string,
  body: (t: ExecutionContext) => Promise<void>,
  { timeoutMs = 120_000 }: { timeoutMs?: number } = {},
): void {
  if (missing !== undefined) test.skip(`${title} (skipped: ${missing})`, () => undefined);
  else
    test.serial(title, async (t) => {
      t.timeout(timeoutMs);
      await body(t);
    });
}

function whatIsMissing(): string | undefined {
  if (process.platform !== 'linux') return 'needs Linux';
  if (process.getuid?.() !== 0) return 'needs root';
  if (!existsSync('/dev/fuse')) return 'needs /dev/fuse';
  try {
    execFileSync('unshare', ['-m', '-u', '-n', 'setpriv', '--pdeathsig', 'KILL', 'ip', 'link'], {
      stdio: 'ignore',
    });
    execFileSync('nsenter', ['--version'], { stdio: 'ignore' });
    return undefined;
  } catch {
    return 'needs ip, unshare, nsenter and setpriv, and the right to use them';
  }
}
