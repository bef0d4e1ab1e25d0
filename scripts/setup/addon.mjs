/** How the native addon is built, in a checkout and where a package is installed. */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** What node-gyp is told to build what lies in `directory`. */
export function buildArguments(directory) {
  const headers = dirname(dirname(process.execPath));
  return [
    'rebuild',
    '-C',
    directory,
    '--jobs=max',
    '--loglevel=warn',
    // Node's own headers when they are installed beside it: no network.
    ...(existsSync(join(headers, 'include/node/node.h')) ? [`--nodedir=${headers}`] : []),
  ];
}

/** Copies an addon without the symbols that only debuggers read. strip comes with g++. */
export function strip(addon, target) {
  execFileSync('strip', ['--strip-unneeded', '-o', target, addon]);
}
