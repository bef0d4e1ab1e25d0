/**
 * Puts the addon that the set-up has built where a package brings it: native/prebuilds/<platform>-<arch>/inro.node.
 * Runs before npm pack. What other machines have put there for their platforms is packed too.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, renameSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const native = join(dirname(dirname(fileURLToPath(import.meta.url))), 'native');
const folder = join(native, 'prebuilds', `${process.platform}-${process.arch}`);
const target = join(folder, 'inro.node');

mkdirSync(folder, { recursive: true });
// strip comes with g++. What loads the addon just now keeps the old file.
execFileSync('strip', ['--strip-unneeded', '-o', `${target}.new`, join(native, 'build/Release/inro.node')]);
renameSync(`${target}.new`, target);
