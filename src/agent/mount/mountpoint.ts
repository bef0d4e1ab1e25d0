/**
 * The directory a mount stands on. What is mounted where comes from /proc/self/mountinfo ONLY: a stat(2) of a
 * dead FUSE mount fails, and one of our own would wait for this very process.
 */
import { execFile } from 'node:child_process';
import { chmod, lstat, mkdir, readFile, readdir, realpath, rmdir } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { InroError } from '../../model/error.js';

/** The device name and, behind `fuse.`, the type that every inro mount carries in mountinfo. */
export const mountSource = 'inro';

/** How long a mount may take to say that it lives. */
const probeMs = 3_000;

/** A run that was killed leaves one dead mount; more mean that something else is wrong. */
const maxStackedMounts = 16;

/** One line of mountinfo, proc(5): what a mount point check needs of it. */
export interface MountEntry {
  id: number;
  parentId: number;
  mountPoint: string;
  /** Of this mount: `ro`, `nosuid`, ... */
  options: readonly string[];
  fsType: string;
  source: string;
  /** Who mounted it, if it is a FUSE mount. */
  userId?: number;
  /** Others than that user may look at a FUSE mount. */
  allowsOthers: boolean;
}

export interface Mountpoint {
  /** The mount was there before, made by somebody who may have more rights. */
  isGiven: boolean;
  /** Canonical: no link in it. */
  path: string;
  /** Removes the directory if preparing made it; call it when nothing is mounted there any more. */
  remove(): Promise<void>;
}

/** Unmounts lazily and never asks the mounted file system: '' or why it was not possible. */
export type Detach = (path: string) => Promise<string>;

/** @param text of /proc/self/mountinfo; lines that are not understood are left out. */
export function parseMountinfo(text: string): MountEntry[] {
  return text.split('\n').flatMap((line) => {
    // id parent major:minor root mount-point options [optional ...] - type source super-options
    const fields = line.split(' ');
    const dash = fields.indexOf('-', 6);
    const [id, parentId, , , mountPoint, options] = fields;
    const [fsType, source, own = ''] = dash < 0 ? [] : fields.slice(dash + 1);
    if (mountPoint === undefined || options === undefined || fsType === undefined || source === undefined)
      return [];
    const names = { mountPoint: unescaped(mountPoint), fsType: unescaped(fsType), source: unescaped(source) };
    const [, userId] = /(?:^|,)user_id=([0-9]+)/.exec(own) ?? [];
    const owner = userId === undefined ? {} : { userId: Number(userId) };
    const allowsOthers = own.split(',').includes('allow_other');
    return [
      {
        id: Number(id),
        parentId: Number(parentId),
        options: options.split(','),
        allowsOthers,
        ...names,
        ...owner,
      },
    ];
  });
}

export async function readMounts(): Promise<MountEntry[]> {
  return parseMountinfo(await readFile('/proc/self/mountinfo', 'utf8'));
}

/** What a path lookup would reach at this mount point: of mounts on top of each other, the last. */
export function topMountAt(mounts: readonly MountEntry[], path: string): MountEntry | undefined {
  const here = mounts.filter((mount) => mount.mountPoint === path);
  return here.find((mount) => !here.some((other) => other.parentId === mount.id && other.id !== mount.id));
}

/** True for a mount of inro, by either driver, living or dead. */
export function isInroMount(mount: MountEntry): boolean {
  return mount.fsType === `fuse.${mountSource}` || (mount.fsType === 'fuse' && mount.source === mountSource);
}

/**
 * Makes a path ready to be mounted on: detaches what a killed run left there, creates the directory (0700;
 * missing parents 0755) or finds it empty.
 * @throws mount_failed on a link, a foreign mount, something that is no directory, or one that is not empty.
 */
export async function prepareMountpoint(path: string, detach: Detach): Promise<Mountpoint> {
  const given = resolve(path);
  await makeParents(dirname(given));
  const canonical = join(await realpath(dirname(given)).catch(refuse(given)), basename(given));
  await refuseLiveMount(canonical);
  await detachInroMounts(canonical, detach);
  const made = await mkdir(canonical, 0o700).then(
    () => true,
    (error: NodeJS.ErrnoException) => (error.code === 'EEXIST' ? false : refuse(canonical)(error)),
  );
  if (made) await chmod(canonical, 0o700);
  else await checkEmptyDirectory(canonical);
  return {
    path: canonical,
    isGiven: false,
    remove: async () => {
      if (made) await rmdir(canonical).catch(unless('ENOENT', 'EBUSY', 'ENOTEMPTY'));
    },
  };
}

/**
 * A mount that is there already and is going to be served. It is not touched: nobody answers yet.
 * @throws mount_failed when there is no inro mount.
 */
export async function givenMountpoint(path: string): Promise<Mountpoint & { allowsOthers: boolean }> {
  const given = resolve(path);
  const canonical = join(await realpath(dirname(given)).catch(refuse(given)), basename(given));
  const top = topMountAt(await readMounts(), canonical);
  if (top === undefined || !isInroMount(top))
    throw new InroError('mount_failed', `the mount that was handed over is not at ${canonical}`);
  const { allowsOthers } = top;
  return { path: canonical, isGiven: true, allowsOthers, remove: () => Promise.resolve() };
}

/**
 * An inro mount that still answers belongs to an agent that lives. Another process asks it: should it be this
 * process's own, or one whose server hangs, whoever asks may wait for ever.
 * @throws already_running when it answers, mount_failed when it neither answers nor is dead.
 */
async function refuseLiveMount(path: string): Promise<void> {
  const top = topMountAt(await readMounts(), path);
  if (top === undefined || !isInroMount(top)) return;
  // Whether it lives, its own user alone may be told; and it is not ours to take away.
  if (top.userId !== undefined && top.userId !== process.getuid?.())
    throw foreign(path, 'is a mount of inro', top.userId);
  const asked = await new Promise<{ said: string; failed: boolean }>((done) => {
    const options = {
      timeout: probeMs,
      killSignal: 'SIGKILL' as const,
      env: { ...process.env, LC_ALL: 'C' },
    };
    // statfs(2): what stat(2) says, the kernel may remember of a dead mount for a while.
    execFile('stat', ['-f', '--', path], options, (error, _, said) => done({ said, failed: error !== null }));
  });
  if (!asked.failed) {
    throw new InroError('already_running', `${path} is the mount of an agent that is running`, {
      remedy: 'stop that agent first, or give this one another mount point with --mount DIR',
    });
  }
  if (/not connected|connection abort/.test(asked.said)) return; // ENOTCONN, ECONNABORTED: its agent is gone
  throw new InroError('mount_failed', `${path} is a mount of inro whose agent does not answer`, {
    remedy: `end that agent, or detach the mount: ${unmountCommand(path)}`,
  });
}

/**
 * Detaches every inro mount that a path lookup would reach there, without touching its files.
 * @throws mount_failed when the mount on top is a foreign one or the kernel refuses.
 */
export async function detachInroMounts(path: string, detach: Detach): Promise<void> {
  for (let detached = 0; ; detached++) {
    const top = topMountAt(await readMounts(), path);
    if (top === undefined) return;
    if (!isInroMount(top)) {
      throw new InroError('mount_failed', `${path} already has a mount (${top.fsType} from ${top.source})`, {
        remedy: `unmount it, or give another mount point`,
      });
    }
    if (detached === maxStackedMounts) {
      throw new InroError(
        'mount_failed',
        `${path} has more than ${maxStackedMounts} inro mounts on top of each other`,
        {
          remedy: `look at /proc/self/mountinfo for what mounts there again and again`,
        },
      );
    }
    const refusal = await detach(path);
    if (refusal !== '') {
      throw new InroError('mount_failed', `cannot unmount ${path}: ${refusal}`, {
        remedy: `unmount it as root: umount -l ${path}`,
      });
    }
  }
}

async function makeParents(path: string): Promise<void> {
  const made = await mkdir(path).then(
    () => true,
    async (error: NodeJS.ErrnoException) => {
      if (error.code === 'EEXIST') return false;
      if (error.code !== 'ENOENT' || path === dirname(path)) return refuse(path)(error);
      await makeParents(dirname(path));
      await mkdir(path).catch(refuse(path));
      return true;
    },
  );
  // mkdir's own mode is subject to the umask, which an agent keeps narrow for its sockets.
  if (made) await chmod(path, 0o755);
}

async function checkEmptyDirectory(path: string): Promise<void> {
  const found = await lstat(path).catch(refuse(path));
  if (found.isSymbolicLink())
    throw new InroError('mount_failed', `${path} is a symbolic link`, {
      remedy: 'give the directory itself',
    });
  if (!found.isDirectory()) throw new InroError('mount_failed', `${path} is not a directory`);
  // Root may mount wherever it likes; others on what is theirs, and fusermount3 has it so too.
  const uid = process.getuid?.();
  if (uid !== 0 && found.uid !== uid) throw foreign(path, 'is a directory', found.uid);
  if ((await readdir(path).catch(refuse(path))).length > 0) {
    throw new InroError('mount_failed', `${path} is not empty`, {
      remedy: 'give an empty directory, or one that does not exist',
    });
  }
}

function foreign(path: string, what: string, owner: number): InroError {
  return new InroError('mount_failed', `${path} ${what} that belongs to another user (uid ${owner})`, {
    remedy: 'give a directory of your own with --mount DIR',
  });
}

/** Ends the connection of a mount whose server hangs, too, if root types it. */
function unmountCommand(path: string): string {
  return process.getuid?.() === 0 ? `umount -f ${path}` : `fusermount3 -u -z ${path}`;
}

/** mountinfo writes space, tab, newline and backslash as \ooo. */
function unescaped(field: string): string {
  return field.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}

function refuse(path: string): (cause: NodeJS.ErrnoException) => never {
  return (cause) => {
    throw new InroError(
      'mount_failed',
      `cannot use ${path} as a mount point: ${cause.code ?? cause.message}`,
      {
        cause,
        ...(cause.code === 'EACCES' ? { remedy: 'give a directory of your own with --mount DIR' } : {}),
      },
    );
  };
}

function unless(...codes: string[]): (error: NodeJS.ErrnoException) => void {
  return (error) => {
    if (!codes.includes(error.code ?? '')) throw error;
  };
}
