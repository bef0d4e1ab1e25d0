/**
 * Puts the addon that the set-up has built where a package brings it: native/prebuilds/<platform>-<arch>/inro.node.
 * Runs before npm pack. What other machines have put there for their platforms is packed too.
 */
import { mkdirSync, renameSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { strip } from './setup/addon.mjs';

const native = join(dirname(dirname(fileURLToPath(import.meta.url))), 'native');
const folder = join(native, 'prebuilds', `${process.platform}-${process.arch}`);
const target = join(folder, 'inro.node');

mkdirSync(folder, { recursive: true });
// What loads the addon just now keeps the old file.
strip(join(native, 'build/Release/inro.node'), `${target}.new`);
renameSync(`${target}.new`, target);
