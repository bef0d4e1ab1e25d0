/**
 * What this user needs to mount: mount(2) and umount2(2) are for who has CAP_SYS_ADMIN, which is root mostly; everybody
 * else asks fusermount3, a setuid program. What is missing is said before anything is begun.
 */
import { accessSync, constants, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { InroError } from '../../model/error.js';
import type { DriverName } from './drivers.js';

/** capabilities(7) */
const capSysAdmin = 21n;

/** True for root, whatever it may: what it lacks in a container is then said in those words. */
export function mountsDirectly(): boolean {
  return process.getuid?.() === 0 || (BigInt(`0x${ownStatus('CapEff') || '0'}`) >> capSysAdmin) % 2n === 1n;
}

/** @throws no_fuse, not_permitted. */
export function checkMayMount(driver: DriverName): void {
  if (process.platform !== 'linux' || mountsDirectly()) return;
  if (driver === 'fuse-native') {
    throw new InroError('not_permitted', 'the driver fuse-native mounts for root alone', {
      remedy: 'leave --driver out: the kernel driver mounts for every user, through fusermount3',
    });
  }
  const program = helperPath();
  if (program === undefined) {
    throw new InroError('no_fuse', 'fusermount3 is not installed: without it only root can mount', {
      remedy: 'install the package fuse3, or run as root',
    });
  }
  checkAccess(program, constants.X_OK, 'run', 'a group of yours may have to be the one that it belongs to');
  checkAccess(
    '/dev/fuse',
    constants.R_OK | constants.W_OK,
    'open',
    'let it, as root: chmod 666 /dev/fuse; in a container, give it --device /dev/fuse',
  );
}

/** Why the kernel refused what fusermount3 asked it for. */
export function whyHelperCannotMount(): { words: string; remedy: string } {
  const program = helperPath() ?? 'fusermount3';
  if (ownStatus('NoNewPrivs') === '1') {
    return {
      words: `${program} may not become root here (no_new_privs)`,
      remedy: 'a unit needs NoNewPrivileges=no, a container must not have --security-opt no-new-privileges',
    };
  }
  const { mode, uid } = statSync(program, { throwIfNoEntry: false }) ?? { mode: 0, uid: -1 };
  if ((mode & 0o4000) !== 0 && uid === 0) {
    return {
      words: `${program} is setuid root, but gets no right to mount`,
      remedy: 'its file system must not be mounted nosuid; a container also needs --cap-add SYS_ADMIN',
    };
  }
  return {
    words: `${program} is not setuid root`,
    remedy: `install the package fuse3 anew, or as root: chown root ${program} && chmod u+s ${program}`,
  };
}

/** fuse.conf(5): without this line fusermount3 refuses allow_other. */
export function allowsOthers(): boolean {
  try {
    return /^\s*user_allow_other\s*$/m.test(readFileSync('/etc/fuse.conf', 'utf8'));
  } catch {
    return false;
  }
}

function checkAccess(path: string, access: number, verb: string, remedy: string): void {
  try {
    accessSync(path, access);
  } catch (cause) {
    const isThere = (cause as NodeJS.ErrnoException).code !== 'ENOENT';
    throw new InroError(
      'no_fuse',
      isThere ? `${path} is there, but this user may not ${verb} it` : `${path} is not there`,
      { cause, remedy: isThere ? remedy : 'load the kernel module: modprobe fuse' },
    );
  }
}

/** Where execvp(3) finds it. */
function helperPath(): string | undefined {
  const folders = (process.env['PATH'] ?? '/bin:/usr/bin').split(':').filter((folder) => folder !== '');
  return folders.map((folder) => join(folder, 'fusermount3')).find(isFile);
}

function isFile(path: string): boolean {
  try {
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

/** A field of proc(5) status; '' where there is none. */
function ownStatus(field: string): string {
  try {
    const text = readFileSync('/proc/self/status', 'utf8');
    return new RegExp(`^${field}:\\s*(\\S*)`, 'm').exec(text)?.[1] ?? '';
  } catch {
    return '';
  }
}
