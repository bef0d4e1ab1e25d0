/** The openssl program, which checks our certificates as a stranger would. */
import { spawnSync } from 'node:child_process';

/** @returns its version line, or undefined when this host has none: tests that need it are skipped with words. */
export function findOpenssl(): string | undefined {
  const { status, stdout } = spawnSync('openssl', ['version'], { encoding: 'utf8' });
  return status === 0 ? stdout.trim() : undefined;
}
