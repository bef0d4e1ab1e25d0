/** What dpkg reads of the package: DEBIAN/control, md5sums, and the scripts that run when it comes and goes. */
import { createHash } from 'node:crypto';
import { chmodSync, copyFileSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { libraryPackages } from './libraries.mjs';
import { allBelow, settings } from './tree.mjs';

const scripts = ['postinst', 'prerm', 'postrm'];

/** @param tree the laid out files */
export function writeControl(tree, { version, architecture }) {
  const files = allBelow(tree, 'files');
  const folder = join(tree, 'DEBIAN');
  mkdirSync(folder);
  const fields = {
    Package: 'inro',
    Version: version,
    Architecture: architecture,
    Maintainer: 'inro maintainers <maintainers@inro.invalid>',
    Section: 'admin',
    Priority: 'optional',
    'Installed-Size': String(Math.ceil(files.reduce((sum, path) => sum + statSync(path).size, 0) / 1024)),
    Depends: libraryPackages(programsOf(files)).join(', '),
    // For users other than root alone: they mount with fusermount3.
    Recommends: 'fuse3',
    Description: `secrets agent for hosts, and its manager
 Secrets reach only the nodes whose tasks need them, are read through a FUSE
 mount backed by locked memory, and are wiped when the task goes.
 .
 It brings the Node.js that it runs on.`,
  };
  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\n`);
  write(join(folder, 'control'), lines.join(''), 0o644);
  const sums = files.map(
    (path) => `${createHash('md5').update(readFileSync(path)).digest('hex')}  ${relative(tree, path)}\n`,
  );
  write(join(folder, 'md5sums'), sums.join(''), 0o644);
  // What an administrator has changed, an upgrade does not.
  write(join(folder, 'conffiles'), settings.map((name) => `/etc/inro/${name}\n`).join(''), 0o644);
  for (const name of scripts) {
    copyFileSync(new URL(name, import.meta.url), join(folder, name));
    chmodSync(join(folder, name), 0o755);
  }
}

/** What the loader loads at any start. fuse-native is loaded only when asked for, and brings its libfuse. */
function programsOf(files) {
  return files.filter(
    (path) => path.endsWith('/bin/node') || (path.endsWith('.node') && !path.includes('/fuse-native/')),
  );
}

function write(path, content, mode) {
  writeFileSync(path, content);
  chmodSync(path, mode);
}
