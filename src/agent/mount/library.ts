/**
 * fuse-native without any Debian package: its addon wants libfuse.so.2 from the system, but the npm package
 * carries one. Loading that first, for everybody (RTLD_GLOBAL) and for good (RTLD_NODELETE: Node closes what
 * did not register as an addon), satisfies the addon by its soname (docs/fuse.md).
 */
import { closeSync, existsSync, openSync, readdirSync, readlinkSync } from 'node:fs';
import { createRequire } from 'node:module';
import { constants } from 'node:os';
import { dirname, join } from 'node:path';
import { InroError } from '../../model/error.js';
import { addon } from '../../system/addon.js';

/** dlfcn.h; node:os does not name it. */
const RTLD_NODELETE = 0x1000;

export interface Stat {
  mode: number;
  uid: number;
  gid: number;
  nlink: number;
  size: number;
  ino: number;
  blksize: number;
  blocks: number;
  /** ms since 1970. */
  atime: number;
  mtime: number;
  ctime: number;
}

export interface Statfs {
  bsize: number;
  frsize: number;
  blocks: number;
  namemax: number;
}

/** Called exactly once by each operation, with 0 (read: the number of bytes) or a negative errno first. */
export type Done<Results extends unknown[]> = (error: number, ...results: Partial<Results>) => void;

/** What this program implements of fuse-native's operations. The rest answers ENOSYS, which the kernel remembers. */
export interface Operations {
  /** By path, or by an open handle where the kernel named one. */
  getattr(file: string | number, done: Done<[stat: Stat]>): void;
  readdir(path: string, done: Done<[names: string[], stats: Stat[]]>): void;
  readlink(path: string, done: Done<[target: string]>): void;
  access(path: string, mode: number, done: Done<[]>): void;
  statfs(path: string, done: Done<[statfs: Statfs]>): void;
  open(path: string, flags: number, done: Done<[handle: number]>): void;
  /** @param buffer is libfuse's own memory, `length` bytes; it may not be touched after `done`. */
  read(
    path: string,
    handle: number,
    buffer: Uint8Array,
    length: number,
    offset: number,
    done: Done<[]>,
  ): void;
  release(path: string, handle: number, done: Done<[]>): void;
}

/** An operation whose arguments do not matter; the last one is its `Done`. */
export type AnyOperation = (...args: never[]) => void;

export interface Fuse {
  /** Mounts and resolves when the kernel and libfuse have agreed (INIT). */
  mount(): Promise<void>;
  /**
   * Call it after the unmount, or after a mount that failed: it no longer keeps the event loop alive. Its memory stays, because
   * libfuse's threads may still be in it (fuse-native never joins them).
   */
  release(): void;
}

export type FuseFactory = (
  path: string,
  operations: Operations & Record<string, AnyOperation>,
  options: Record<string, unknown>,
) => Fuse;

/** What decides whether libfuse can be used at all. */
export interface Host {
  platform: string;
  arch: string;
  /** Opens and closes /dev/fuse; throws as open(2) does. */
  openDevice(): void;
}

const thisHost: Host = {
  platform: process.platform,
  arch: process.arch,
  openDevice: () => closeSync(openSync('/dev/fuse', 'r+')),
};

/**
 * @throws not_supported where the package has no library for this machine or is not installed, no_fuse where
 * the kernel's FUSE device cannot be opened.
 */
export function loadFuseNative(host: Host = thisHost): FuseFactory {
  checkMachine(host);
  checkDevice(host);
  loaded ??= load();
  const { Fuse, binding } = loaded;
  return (path, operations, options) => {
    const fuse = new Fuse(path, operations, options);
    // fuse-native passes fgetattr's path on and forgets its handle, and with it which version is meant.
    fuse._op_fgetattr = (signal, _path, handle) => fuse._op_getattr(signal, handle);
    return {
      mount: () =>
        new Promise((resolve, reject) => fuse.mount((error) => (error ? reject(error) : resolve()))),
      release: () => {
        if (fuse._thread !== null) binding.fuse_native_unmount(path, fuse._thread);
      },
    };
  };
}

type Signal = (error: number, ...results: unknown[]) => void;

/** fuse-native's class with the inner parts used here (version 2.2.6, exact in package.json). */
interface FuseNative {
  mount(done: (error: Error | null) => void): void;
  _op_getattr(signal: Signal, file: string | number): void;
  _op_fgetattr: (signal: Signal, path: string, handle: number) => void;
  /** null until it was tried to mount. */
  readonly _thread: Uint8Array | null;
}

interface Loaded {
  Fuse: new (path: string, operations: object, options: object) => FuseNative;
  binding: {
    fuse_native_mount(...args: unknown[]): void;
    /** Despite its name this unmounts nothing: it lets go of the event loop. */
    fuse_native_unmount(path: string, thread: Uint8Array): void;
  };
}

let loaded: Loaded | undefined;

function checkMachine({ platform, arch }: Host): void {
  if (platform === 'linux' && arch === 'x64') return;
  throw new InroError(
    'not_supported',
    `fuse-native brings no library that works on ${platform} ${arch}, only linux x64`,
    { remedy: 'run the agent on linux x64' },
  );
}

function checkDevice({ openDevice }: Host): void {
  try {
    openDevice();
  } catch (cause) {
    const { code = 'unknown error' } = cause as NodeJS.ErrnoException;
    const remedy =
      code === 'EACCES' || code === 'EPERM'
        ? 'run as root; a container also needs --device /dev/fuse and --cap-add SYS_ADMIN'
        : 'load the kernel module: modprobe fuse';
    throw new InroError('no_fuse', `/dev/fuse cannot be opened: ${code}`, { cause, remedy });
  }
}

function load(): Loaded {
  const require = createRequire(import.meta.url);
  let main: string;
  try {
    main = require.resolve('fuse-native');
  } catch (cause) {
    throw new InroError('not_supported', 'the package fuse-native is not installed', {
      cause,
      remedy: 'install it: npm install --ignore-scripts fuse-native@2.2.6',
    });
  }
  const folder = dirname(main);
  preload(join(folder, 'prebuilds/linux-x64/libfuse.so'));
  try {
    const Fuse = require(main) as Loaded['Fuse'];
    const findBinding = createRequire(main)('node-gyp-build') as (folder: string) => Loaded['binding'];
    const binding = findBinding(folder);
    const mount = binding.fuse_native_mount;
    binding.fuse_native_mount = (...args) => {
      mount(...args);
      keepDeviceFromChildren();
    };
    return { Fuse, binding };
  } catch (cause) {
    throw new InroError('not_supported', `fuse-native does not load: ${(cause as Error).message}`, {
      cause,
      remedy: 'install it anew: npm install --ignore-scripts fuse-native@2.2.6',
    });
  }
}

/**
 * libfuse 2.9 opens /dev/fuse without O_CLOEXEC. A child process that has it keeps the mount alive when this
 * process is killed: readers then hang instead of failing, and one that is such a child can never be ended.
 * Called in the same turn of the event loop as the mount, before any child can be started.
 */
function keepDeviceFromChildren(): void {
  for (const fd of readdirSync('/proc/self/fd')) {
    if (linkOf(`/proc/self/fd/${fd}`) === '/dev/fuse') addon().closeOnExec(Number(fd));
  }
}

/** undefined for the descriptor that listed the directory, which is closed by now. */
function linkOf(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}

function preload(libfuse: string): void {
  if (!existsSync(libfuse)) return;
  const { RTLD_NOW, RTLD_GLOBAL } = constants.dlopen;
  try {
    process.dlopen({ exports: {} }, libfuse, RTLD_NOW | RTLD_GLOBAL | RTLD_NODELETE);
  } catch {
    // Always "did not self-register": it is a library, no addon. Whether it is there shows in the next step.
  }
}
