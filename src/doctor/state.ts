/** The agent's state folder: whose it is, who may look, and how much room its disk has. */
import { lstatSync, type Stats } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { isWrapped } from '../crypto/at_rest.js';
import { sizeText } from '../model/size.js';
import { fail, note, ok, warn, type Finding } from './finding.js';

/** The identity has a few KiB, written anew beside the old. */
const neededBytes = 1024 * 1024;
const comfortableBytes = 16 * neededBytes;

export function stateFolder(path: string, user = process.geteuid?.() ?? 0): Finding {
  const name = 'state folder';
  const found = look(path);
  if (typeof found === 'string') {
    return found === 'ENOENT'
      ? note(name, `${path} is not there yet: 'inro agent join' makes it`)
      : fail(name, `${path} cannot be looked at (${found})`, 'run this as the user who runs the agent');
  }
  if (found.isSymbolicLink())
    return note(name, `${path} is a symbolic link`, 'name the folder itself with --state DIR');
  if (!found.isDirectory()) return fail(name, `${path} is no folder`, 'choose another with --state DIR');
  if (found.uid !== user) {
    return fail(
      name,
      `${path} belongs to another user (uid ${found.uid})`,
      'run this as the user who runs the agent, or give the folder to this user with chown',
    );
  }
  if ((found.mode & 0o077) !== 0) {
    return fail(
      name,
      `${path} is open to other users (mode ${octal(found.mode)})`,
      `see that nobody has read the key, then: chmod 700 ${path}`,
    );
  }
  return ok(name, `${path}, closed to others`);
}

export function nodeKey(folder: string, user = process.geteuid?.() ?? 0): Finding {
  const name = 'node key';
  const path = join(folder, 'node.key');
  const found = look(path);
  if (typeof found === 'string') {
    return found === 'ENOENT'
      ? note(name, "there is none yet: 'inro agent join' makes it")
      : fail(name, `${path} cannot be looked at (${found})`, 'run this as the user who runs the agent');
  }
  if (!found.isFile()) return fail(name, `${path} is no file`, 'restore the folder, or join again');
  if (found.uid !== user)
    return fail(name, `${path} belongs to another user (uid ${found.uid})`, `chown ${user} ${path}`);
  if ((found.mode & 0o077) !== 0) {
    return fail(
      name,
      `${path} can be read or written by other users (mode ${octal(found.mode)})`,
      `chmod 600 ${path}; if somebody may have read it, join this host anew`,
    );
  }
  const how = isWrapped(path) === true ? 'wrapped: a copy of this disk is not this node' : 'in clear';
  return ok(name, `${path}, mode ${octal(found.mode)}, ${how}`);
}

/** Of the folder, or of what is nearest above it. */
export async function diskSpace(folder: string): Promise<Finding> {
  const name = 'disk space';
  for (let path = resolve(folder); ; path = dirname(path)) {
    try {
      const { bavail, bsize } = await statfs(path);
      return spaceLeft(bavail * bsize, path);
    } catch (error) {
      const { code = '' } = error as NodeJS.ErrnoException;
      if (code !== 'ENOENT' || path === dirname(path))
        return note(name, `cannot be told for ${path} (${code})`);
    }
  }
}

export function spaceLeft(bytes: number, path: string): Finding {
  const detail = `${sizeText(bytes)} free for ${path}`;
  const remedy = 'free some space: a certificate or an address that is new cannot be kept';
  if (bytes < neededBytes) return fail('disk space', detail, remedy);
  return bytes < comfortableBytes ? warn('disk space', detail, remedy) : ok('disk space', detail);
}

/** @returns a code of errno(3) when it cannot be looked at. */
function look(path: string): Stats | string {
  try {
    return lstatSync(path);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? 'unknown';
  }
}

function octal(mode: number): string {
  return (mode & 0o7777).toString(8).padStart(4, '0');
}
