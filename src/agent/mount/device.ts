/** How this user can mount: root by mount(2) itself, everybody else through fusermount3. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { getSystemErrorName } from 'node:util';
import { InroError } from '../../model/error.js';
import { addon, type NativeServedArena, type NativeServer } from '../../system/addon.js';
import type { Detach } from './mountpoint.js';

export interface How {
  /** Users other than this one can read it, by owner, group and mode. */
  others: boolean;
  detach: Detach;
}

interface Refusal {
  errno: number;
  /** What was tried. */
  step: string;
  /** By fusermount3. */
  said: string;
}

/** @throws no_fuse, mount_failed. */
export async function mountDevice(
  native: NativeServedArena,
  path: string,
  workers: number,
  newestMinor: number,
): Promise<{ server: NativeServer; how: How }> {
  const isRoot = process.getuid?.() === 0;
  const others = isRoot || allowsOthers();
  const how = isRoot ? 'direct' : others ? 'helper, others' : 'helper';
  try {
    const server = await native.mount(path, how, workers, newestMinor);
    return { server, how: { others, detach: isRoot ? (at) => addon().unmount(at) : detachByHelper } };
  } catch (error) {
    throw inWords(path, error as Refusal);
  }
}

/** umount2 is root's; fusermount3 does it for whoever mounted. */
const detachByHelper: Detach = (path) => {
  try {
    execFileSync('fusermount3', ['-u', '-z', '--', path], { stdio: ['ignore', 'ignore', 'pipe'] });
    return 0;
  } catch {
    return constants.errno.EPERM;
  }
};

/** fuse.conf(5): without this line fusermount3 refuses allow_other. */
function allowsOthers(): boolean {
  try {
    return /^\s*user_allow_other\s*$/m.test(readFileSync('/etc/fuse.conf', 'utf8'));
  } catch {
    return false;
  }
}

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
  if (step === 'fusermount3' && name === 'ENOENT') {
    return new InroError(
      'mount_failed',
      `fusermount3 is not installed: only root can mount ${path} without it`,
      {
        remedy: 'install the package fuse3, or run as root',
      },
    );
  }
  if (step === 'fusermount3')
    return new InroError('mount_failed', `fusermount3 refused ${path}: ${said || name}`);
  if (step === 'INIT') return new InroError('mount_failed', `the kernel does not serve ${path}: ${said}`);
  return new InroError('mount_failed', `cannot mount ${path}: ${step}: ${name}`, {
    remedy:
      'run as root; a container also needs --cap-add SYS_ADMIN and an AppArmor profile that allows mount',
  });
}
