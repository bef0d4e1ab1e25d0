/** What a host must have before a set-up begins. Each function gives back one line that says what is wrong, or nothing. */
import { accessSync, constants, existsSync, statSync } from 'node:fs';
import { delimiter, join } from 'node:path';

const neededNode = [20, 19];
/** Programs that compiling the addon takes, and the Debian package of each. */
const tools = [
  { program: 'g++', package: 'g++' },
  { program: 'make', package: 'make' },
  { program: 'python3', package: 'python3' },
];

export function oldNode(version = process.versions.node) {
  const [major, minor] = version.split('.').map(Number);
  if (major > neededNode[0] || (major === neededNode[0] && minor >= neededNode[1])) return undefined;
  return `Node ${version} is too old, ${neededNode.join('.')} or newer is needed (Debian 13: ${asRoot()}apt-get install nodejs npm)`;
}

export function missingTools(path = process.env.PATH ?? '') {
  const missing = tools.filter(({ program }) => !onPath(program, path));
  if (missing.length === 0) return undefined;
  const names = missing.map((tool) => tool.program).join(', ');
  return `${names} missing; install with: ${asRoot()}apt-get install -y ${missing.map((tool) => tool.package).join(' ')}`;
}

/** An ordinary user in root's clone. */
export function unwritable(root) {
  const places = ['.', 'node_modules', 'dist', 'native', 'native/build', 'src/proto', 'src/proto/gen'];
  const closed = places
    .map((place) => join(root, place))
    .find((place) => existsSync(place) && !may(place, constants.W_OK));
  if (closed === undefined) return undefined;
  const owner = statSync(closed).uid;
  return `${closed} belongs to uid ${owner} and is not writable for uid ${process.getuid()}: use a clone of your own`;
}

function onPath(program, path) {
  return path
    .split(delimiter)
    .some((directory) => directory !== '' && may(join(directory, program), constants.X_OK));
}

function may(path, mode) {
  try {
    accessSync(path, mode);
    return true;
  } catch {
    return false;
  }
}

function asRoot() {
  return process.getuid() === 0 ? '' : 'sudo ';
}
