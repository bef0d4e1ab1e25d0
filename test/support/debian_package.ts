/** The Debian package of this checkout. */
import { copyFileSync, mkdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { run } from './inro.js';

const repository = fileURLToPath(new URL('../../../', import.meta.url));

export const { version } = JSON.parse(readFileSync(join(repository, 'package.json'), 'utf8')) as {
  version: string;
};

/** $1 the file, the others the command that makes it. Others wait for the lock. */
const once = '[ -e "$1" ] || { shift && exec "$@"; }';

/**
 * Puts it into the folder. A run makes each version once: the same checkout gives the same bytes (test/scripts/package.test.ts).
 * @param release if not the checkout's own. @returns the file's name.
 */
export async function buildPackage(folder: string, release: string = version): Promise<string> {
  const name = `inro_${release}_amd64.deb`;
  const shared = process.env['INRO_TEST_RUN'] === undefined ? folder : join(tmpdir(), 'packages');
  mkdirSync(shared, { recursive: true });
  const file = join(shared, name);
  const make = ['node', 'scripts/package.mjs', '--out', shared, '--version', release];
  const made = await run(['flock', `${file}.lock`, 'sh', '-c', once, 'once', file, ...make], {
    cwd: repository,
    timeoutMs: 5 * 60_000,
  });
  if (made.code !== 0) throw new Error(made.stderr);
  if (shared !== folder) copyFileSync(file, join(folder, name));
  return name;
}
