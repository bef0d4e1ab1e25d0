/** The Debian package of this checkout, built into a folder. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { run } from './inro.js';

const repository = fileURLToPath(new URL('../../../', import.meta.url));

export const { version } = JSON.parse(readFileSync(join(repository, 'package.json'), 'utf8')) as {
  version: string;
};

/** @param release if not the checkout's own. @returns the file's name. */
export async function buildPackage(folder: string, release?: string): Promise<string> {
  const options = release === undefined ? [] : ['--version', release];
  const made = await run(['node', 'scripts/package.mjs', '--out', folder, ...options], {
    cwd: repository,
    timeoutMs: 5 * 60_000,
  });
  if (made.code !== 0) throw new Error(made.stderr);
  return `inro_${release ?? version}_amd64.deb`;
}
