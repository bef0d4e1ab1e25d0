/** The files of the package as they will lie on a host. */
import {
  chmodSync,
  copyFileSync,
  existsSync,
  lutimesSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { strip } from '../setup/addon.mjs';

const units = ['inro-agent.service', 'inro-manager.service'];
export const settings = ['agent.yaml', 'manager.yaml'];

/** Of production packages: declarations, headers, and what other systems load. */
const needlessPackages = [
  /^@types\//,
  /^undici-types$/,
  /^node-addon-api$/,
  /^fuse-shared-library-(darwin|linux-arm)$/,
];
const needlessFiles = /\.d\.[cm]?ts$|\.map$|\.musl\.node$|\/prebuilds\/(?!linux-x64)|\/example\//;

const launcher = `#!/bin/sh
exec /usr/lib/inro/bin/node /usr/lib/inro/dist/src/cli/main.js "$@"
`;

/** @param version what `inro --version` says */
export async function layOut(root, tree, version) {
  const from = (...path) => join(root, ...path);
  const lib = (...path) => join(tree, 'usr/lib/inro', ...path);
  const doc = (...path) => join(tree, 'usr/share/doc/inro', ...path);

  copy(from('dist/src'), lib('dist/src'), (path) => path.endsWith('.js'));
  copyPackages(root, lib());
  mkdirSync(lib(`native/prebuilds/linux-${process.arch}`), { recursive: true });
  strip(from('native/build/Release/inro.node'), lib(`native/prebuilds/linux-${process.arch}/inro.node`));
  copy(process.execPath, lib('bin/node'));
  const { name, description, license, type } = JSON.parse(readFileSync(from('package.json'), 'utf8'));
  write(lib('package.json'), `${JSON.stringify({ name, version, description, license, type }, null, 2)}\n`);
  write(join(tree, 'usr/bin/inro'), launcher);

  for (const unit of units) copy(from('systemd', unit), join(tree, 'usr/lib/systemd/system', unit));
  copy(from('systemd/inro.sysusers'), join(tree, 'usr/lib/sysusers.d/inro.conf'));
  copy(from('systemd/inro.tmpfiles'), join(tree, 'usr/lib/tmpfiles.d/inro.conf'));

  const { hookFile } = await import(from('dist/src/agent/docker/oci_hook.js'));
  write(
    join(tree, 'usr/share/containers/oci/hooks.d/inro.json'),
    `${JSON.stringify(hookFile(['/usr/bin/inro', 'agent', 'oci-hook']), null, 2)}\n`,
  );

  for (const name of settings) copy(from('systemd', name), join(tree, 'etc/inro', name));

  copy(from('README.md'), doc('README.md'));
  copy(from('docs'), doc('docs'));
  copy(from('LICENSE'), doc('copyright'));
  copy(nodeLicense(), doc('copyright.nodejs'));

  const executable = new Set([lib('bin/node'), join(tree, 'usr/bin/inro')]);
  for (const path of allBelow(tree, 'folders')) chmodSync(path, 0o755);
  for (const path of allBelow(tree, 'files')) chmodSync(path, executable.has(path) ? 0o755 : 0o644);
}

/** Sets the times of all that is there, in seconds: archives keep them. */
export function ageAll(tree, seconds) {
  for (const path of [...allBelow(tree, 'files'), ...allBelow(tree, 'folders')])
    lutimesSync(path, seconds, seconds);
}

/** In the order of their names. */
export function allBelow(tree, kind) {
  const found = readdirSync(tree, { recursive: true, withFileTypes: true });
  const wanted = found.filter((entry) => (kind === 'folders' ? entry.isDirectory() : entry.isFile()));
  const paths = wanted.map((entry) => join(entry.parentPath, entry.name)).sort();
  return kind === 'folders' ? [tree, ...paths] : paths;
}

/** Those that npm installs without the development ones: the lock file that it writes into node_modules knows. */
function copyPackages(root, target) {
  const lock = JSON.parse(readFileSync(join(root, 'node_modules/.package-lock.json'), 'utf8'));
  for (const [path, { dev, link }] of Object.entries(lock.packages)) {
    const name = path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length);
    if (dev || link || needlessPackages.some((one) => one.test(name))) continue;
    const source = join(root, path);
    // Packages of its own have lines of their own.
    const own = (file) => !relative(source, file).split('/').includes('node_modules');
    copy(source, join(target, path), (file) => own(file) && !needlessFiles.test(file));
  }
}

/** A distribution of Node has it beside bin/, Debian's packages where all copyrights are. */
function nodeLicense() {
  const places = [join(dirname(dirname(process.execPath)), 'LICENSE'), '/usr/share/doc/nodejs/copyright'];
  const found = places.find((path) => existsSync(path));
  if (found === undefined) throw new Error(`no licence of Node at ${places.join(' or ')}`);
  return found;
}

/** A file, or the files of a folder that are wanted; links are not taken. */
function copy(source, target, wanted = () => true) {
  if (statSync(source).isFile()) return copyFile(source, target);
  for (const path of allBelow(source, 'files'))
    if (wanted(path)) copyFile(path, join(target, relative(source, path)));
}

function copyFile(source, target) {
  mkdirSync(dirname(target), { recursive: true });
  copyFileSync(source, target);
}

function write(path, content) {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content);
}
