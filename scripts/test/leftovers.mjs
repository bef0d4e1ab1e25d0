/** Mounts, network namespaces and links that tests made: how to find them and how to be rid of them. */
import { spawnSync } from 'node:child_process';
import { readFileSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';

const namespaceDirectory = '/run/netns';
const commandLimitMs = 10_000;

/** The newest first, the order in which they can be detached: {path, type}. */
export function mountsBelow(directory) {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const fields = line.split(' ');
      return { path: unescape(fields[4]), type: fields[fields.indexOf('-') + 1] };
    })
    .filter(({ path }) => path === directory || path.startsWith(`${directory}/`))
    .reverse();
}

/** Lazily, so that open files do not matter; -f also ends a FUSE connection whose readers would hang for ever. */
export function detach({ path, type }) {
  const force = type.startsWith('fuse') ? ['-f'] : [];
  if (succeeds('umount', ['-l', ...force, path])) return;
  // An ordinary user's mount.
  if (!succeeds('fusermount3', ['-u', '-z', path])) succeeds('fusermount', ['-u', '-z', path]);
}

export function namespacesOf(id) {
  return named(namespaceDirectory, id);
}

export function namespacePath(name) {
  return join(namespaceDirectory, name);
}

export function deleteNamespace(name) {
  if (succeeds('ip', ['netns', 'delete', name])) return;
  // `ip` may be missing: it is a mount on a file, no more.
  succeeds('umount', ['-l', namespacePath(name)]);
  rmSync(namespacePath(name), { force: true });
}

export function linksOf(id) {
  return named('/sys/class/net', id);
}

/** A link whose other end went with its namespace is gone already. */
export function deleteLink(name) {
  succeeds('ip', ['link', 'delete', name]);
}

function named(directory, id) {
  try {
    return readdirSync(directory).filter((name) => name.startsWith(`inro-${id}-`));
  } catch {
    return [];
  }
}

function succeeds(program, args) {
  return spawnSync(program, args, { stdio: 'ignore', timeout: commandLimitMs }).status === 0;
}

/** mountinfo writes space, tab, newline and backslash in octal (proc(5)). */
function unescape(path) {
  return path.replace(/\\([0-7]{3})/g, (_, octal) => String.fromCharCode(parseInt(octal, 8)));
}
