/** Whether this user can mount: the device, and who asks the kernel. */
import { accessSync, closeSync, constants, fstatSync, openSync, statSync, type Stats } from 'node:fs';
import { join } from 'node:path';
import { fail, ok, type Finding } from './finding.js';

const device = '/dev/fuse';
/** Linux's admin-guide/devices.txt: 10 char, 229. */
const deviceNumber = (10 << 8) | 229;
/** capabilities(7): CAP_SYS_ADMIN */
const capSysAdmin = 21n;

/** Opening it begins nothing; it is closed again. */
export function fuseDevice(path = device): Finding {
  const name = device;
  let descriptor: number;
  try {
    descriptor = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') {
      return fail(name, 'is not there', 'modprobe fuse; a container needs --device /dev/fuse');
    }
    if (code === 'EACCES' || code === 'EPERM') {
      return fail(
        name,
        `this user may not open it (${code})`,
        'let it, as root: chmod 666 /dev/fuse; a container needs --device /dev/fuse',
      );
    }
    return fail(name, `cannot be opened (${code})`, 'load the kernel module: modprobe fuse');
  }
  const found = fstatSync(descriptor);
  closeSync(descriptor);
  if (found.isCharacterDevice() && found.rdev === deviceNumber) return ok(name, 'can be opened');
  return fail(name, 'is not the FUSE device', 'as root: rm /dev/fuse; mknod -m 666 /dev/fuse c 10 229');
}

export interface Mounter {
  isRoot: boolean;
  /** May use mount(2) itself. */
  direct: boolean;
  /** fusermount3 as PATH finds it. */
  helper?: { path: string; runs: boolean; isSetuidRoot: boolean };
  noNewPrivileges: boolean;
}

/** @param status /proc/self/status. */
export function mounterHere(status: string): Mounter {
  const isRoot = process.getuid?.() === 0;
  const field = (name: string): string => new RegExp(`^${name}:\\s*(\\S*)`, 'm').exec(status)?.[1] ?? '';
  const capable = (BigInt(`0x${field('CapEff') || '0'}`) >> capSysAdmin) % 2n === 1n;
  const helper = findHelper();
  return {
    isRoot,
    direct: capable,
    ...(helper === undefined ? {} : { helper }),
    noNewPrivileges: field('NoNewPrivs') === '1',
  };
}

export function mayMount({ isRoot, direct, helper, noNewPrivileges }: Mounter): Finding {
  const name = 'right to mount';
  if (direct) return ok(name, isRoot ? 'root' : 'CAP_SYS_ADMIN');
  if (isRoot) {
    return fail(
      name,
      'this is root without CAP_SYS_ADMIN',
      'a container needs --cap-add SYS_ADMIN, and no profile that forbids mount(2)',
    );
  }
  if (helper === undefined)
    return fail(name, 'fusermount3 is not installed', 'install the package fuse3, or run the agent as root');
  const { path, runs, isSetuidRoot } = helper;
  if (!runs) return fail(name, `this user may not run ${path}`, `as root: chmod o+x ${path}`);
  if (!isSetuidRoot) {
    return fail(
      name,
      `${path} is not setuid root`,
      `install the package fuse3 anew, or as root: chown root ${path} && chmod u+s ${path}`,
    );
  }
  if (noNewPrivileges) {
    return fail(
      name,
      `${path} may not become root here (no_new_privs)`,
      'a unit needs NoNewPrivileges=no, a container must not have --security-opt no-new-privileges',
    );
  }
  return ok(name, `through ${path}`);
}

function findHelper(): Mounter['helper'] {
  for (const folder of (process.env['PATH'] ?? '/bin:/usr/bin').split(':')) {
    const path = join(folder, 'fusermount3');
    const found = folder === '' ? undefined : look(path);
    if (found?.isFile() === true)
      return { path, runs: mayRun(path), isSetuidRoot: found.uid === 0 && (found.mode & 0o4000) !== 0 };
  }
  return undefined;
}

/** PATH may name folders that this user may not enter. */
function look(path: string): Stats | undefined {
  try {
    return statSync(path);
  } catch {
    return undefined;
  }
}

function mayRun(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
