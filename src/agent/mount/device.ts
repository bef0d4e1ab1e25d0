/** Mounting and unmounting as this user can: by the system calls themselves, or through fusermount3. */
import { execFile } from 'node:child_process';
import { constants } from 'node:os';
import { getSystemErrorName } from 'node:util';
import { InroError } from '../../model/error.js';
import { addon, type NativeServedArena, type NativeServer } from '../../system/addon.js';
import type { Detach } from './mountpoint.js';
import { allowsOthers, mountsDirectly, whyHelperCannotMount } from './permission.js';

/** How long fusermount3 may take to unmount. */
const helperMs = 10_000;

interface Refusal {
  errno: number;
  /** What was tried. */
  step: string;
  /** By fusermount3. */
  said: string;
}

/**
 * @returns the server, and whether users other than this one can read its mount, by owner, group and mode.
 * @throws no_fuse, mount_failed.
 */
export async function mountDevice(
  native: NativeServedArena,
  path: string,
  workers: number,
  newestMinor: number,
): Promise<{ server: NativeServer; others: boolean }> {
  const direct = mountsDirectly();
  const others = direct || allowsOthers();
  const how = direct ? 'direct' : others ? 'helper, others' : 'helper';
  try {
    return { server: await native.mount(path, how, workers, newestMinor), others };
  } catch (error) {
    throw inWords(path, error as Refusal);
  }
}

/** Mounts with mount(2), for a server in another process. @returns the descriptor. @throws no_fuse, mount_failed. */
export function mountForOther(path: string): number {
  try {
    return addon().mountDevice(path);
  } catch (error) {
    throw inWords(path, error as Refusal);
  }
}

/**
 * umount2(2), and where this user may not, fusermount3, which does it for whoever mounted. Neither asks the mounted file
 * system; fusermount3 is waited for without blocking, because a mount may be served by this very thread.
 */
export const detach: Detach = async (path) => {
  const errno = addon().unmount(path);
  if (errno === 0) return '';
  if (errno !== constants.errno.EPERM) return getSystemErrorName(-errno);
  return new Promise((resolve) => {
    const options = { timeout: helperMs, env: { ...process.env, LC_ALL: 'C' } };
    execFile('fusermount3', ['-u', '-z', '--', path], options, (error, _, said) => {
      resolve(error === null ? '' : said.trim() || `fusermount3: ${error.code ?? error.message}`);
    });
  });
};

function inWords(path: string, { errno, step, said }: Refusal): InroError {
  const name = getSystemErrorName(-errno);
  if (step === 'open /dev/fuse') {
    const isThere = name === 'EACCES' || name === 'EPERM';
    return new InroError('no_fuse', `/dev/fuse cannot be opened: ${name}`, {
      remedy: isThere
        ? 'a container needs --device /dev/fuse and --cap-add SYS_ADMIN'
        : 'load the kernel module: modprobe fuse',
    });
  }
  if (step === 'mount' && name === 'EINVAL') {
    return new InroError('mount_failed', `cannot mount ${path}: /dev/fuse is no FUSE device`, {
      remedy: 'make it: mknod /dev/fuse c 10 229',
    });
  }
  if (step === 'fusermount3') return refusedByHelper(path, said || `cannot be started: ${name}`);
  if (step === 'INIT') return new InroError('mount_failed', `the kernel does not serve ${path}: ${said}`);
  return new InroError('mount_failed', `cannot mount ${path}: ${step}: ${name}`, {
    remedy:
      'run as root; a container also needs --cap-add SYS_ADMIN and an AppArmor profile that allows mount',
  });
}

/** @param said as it comes from fusermount3 3.14; other versions may word it otherwise, and are quoted. */
function refusedByHelper(path: string, said: string): InroError {
  const words = said.replace(/^fusermount3: /, '');
  if (words.startsWith('mount failed: Operation not permitted')) {
    const why = whyHelperCannotMount();
    return new InroError('mount_failed', `cannot mount ${path}: ${why.words}`, { remedy: why.remedy });
  }
  if (/^(failed to open \/dev\/fuse|fuse device not found)/.test(words)) {
    return new InroError('no_fuse', `cannot mount ${path}: ${words}`, {
      remedy: 'as root: modprobe fuse, and chmod 666 /dev/fuse',
    });
  }
  if (words.startsWith('could not determine username')) {
    return new InroError(
      'mount_failed',
      `cannot mount ${path}: fusermount3 wants this user (uid ${process.getuid?.()}) to have a name`,
      { remedy: 'add the user to /etc/passwd' },
    );
  }
  return new InroError('mount_failed', `cannot mount ${path}: fusermount3: ${words}`);
}
