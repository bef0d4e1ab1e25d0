/**
 * The portable mount driver: libfuse through fuse-native, answered by JavaScript. It serves where the kernel
 * driver cannot; `facts()` says what it cannot promise.
 *
 * Nothing in this process may ever look at a path below its own mount point: the answer would have to come
 * from the thread that waits for it, and even SIGKILL does not end that (docs/fuse.md).
 */
import { constants, open } from 'node:fs';
import { promisify } from 'node:util';
import type { Clock } from '../../model/clock.js';
import { InroError } from '../../model/error.js';
import { addon } from '../../system/addon.js';
import { keepsSmallBlocks } from '../../system/heap.js';
import { detach } from './device.js';
import { openGate, type DriverFacts, type MountDriver } from './driver.js';
import { loadFuseNative, type Fuse } from './library.js';
import {
  detachInroMounts,
  isInroMount,
  mountSource,
  prepareMountpoint,
  readMounts,
  topMountAt,
  type Mountpoint,
} from './mountpoint.js';
import { answerRequests } from './requests.js';
import { Tree } from './tree.js';

export const mountLimits = {
  /** Open descriptors of all readers together; an open beyond them fails with ENFILE. */
  maxOpenHandles: 65_536,
} as const;

export interface FuseNativeOptions {
  /** Told of whatever a request's handler threw; its reader gets EIO. */
  onError: (error: unknown, operation: string) => void;
  clock: Pick<Clock, 'now' | 'boottimeMs'>;
  maxOpenHandles?: number;
}

const required = ['ro', 'nosuid', 'nodev', 'noexec'];

// fuse-native has no option for most of these, so they ride in on fsname (docs/fuse.md). direct_io:
// each read asks us, and none of its bytes stay in the page cache. use_ino: stat(2) shows the tree's inodes.
const libfuseOptions = {
  fsname: [mountSource, 'direct_io', 'use_ino', ...required].join(),
  subtype: mountSource,
  allowOther: true,
  defaultPermissions: true,
  // Strings, because the package drops a numeric 0: a name or a size that the kernel remembers is a stale one.
  entryTimeout: '0',
  attrTimeout: '0',
  // Every handler answers before it returns; the package's own timers would be one more for each request.
  timeout: false,
};

export function createFuseNativeDriver(options: FuseNativeOptions): MountDriver {
  const owner = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };
  const { clock } = options;
  const boottimeMs = () => clock.boottimeMs();
  // Whatever is asked is looked up in the tree itself: there is nothing to carry out elsewhere.
  let lastIno = 1;
  const sink = { newIno: () => ++lastIno, commit: () => undefined };
  const tree = new Tree({ owner, now: () => clock.now(), boottimeMs, sink, rootIno: 1 });
  let untilMs = -Infinity;
  let heapOverwritten = true;
  let mounted: { fuse: Fuse; point: Mountpoint; close: () => void } | undefined;

  return {
    facts: () => ({ ...facts, notes: [...facts.notes, ...heapNotes(heapOverwritten)] }),
    openService: (serviceId, serviceName) => tree.openService(serviceId, serviceName),
    publish(generation) {
      if ((generation.gate ?? openGate).readers !== 'any')
        throw new InroError('not_supported', 'driver fuse-native cannot tell who reads', {
          remedy: 'run the agent with the kernel driver, or the service with --readers any',
        });
      tree.publish(generation);
    },
    withdraw: (taskId) => tree.withdraw(taskId),

    serveUntil: (boottime) => {
      untilMs = boottime;
    },

    async mount({ path }) {
      if (mounted !== undefined) {
        throw new InroError('mount_failed', `this driver is already mounted at ${mounted.point.path}`);
      }
      const newFuse = loadFuseNative();
      // libfuse frees the buffer of each reply as it is; this overwrites it, see `heapNotes`.
      heapOverwritten = addon().overwriteFreedHeap();
      const point = await prepareMountpoint(path, detach);
      const { maxOpenHandles = mountLimits.maxOpenHandles, onError } = options;
      const requests = answerRequests({
        tree,
        serveUntilMs: () => untilMs,
        boottimeMs,
        onError,
        maxOpenHandles,
      });
      const fuse = newFuse(point.path, requests.operations, libfuseOptions);
      try {
        await fuse.mount();
        await holdMount(point.path);
        await checkMount(point.path);
      } catch (cause) {
        requests.close();
        await detachInroMounts(point.path, detach);
        fuse.release();
        await point.remove();
        if (cause instanceof InroError) throw cause;
        throw new InroError('mount_failed', `libfuse cannot mount ${point.path}`, {
          cause,
          remedy: 'run as root; libfuse has said more on standard error',
        });
      }
      mounted = { fuse, point, close: requests.close };
    },

    async unmount() {
      if (mounted === undefined) return;
      const { fuse, point, close } = mounted;
      // First: a descriptor or a bind mount elsewhere outlives the unmount, and must not be served any more.
      close();
      await detachInroMounts(point.path, detach);
      fuse.release();
      mounted = undefined;
      await point.remove();
    },
  };
}

const facts: DriverFacts = {
  name: 'fuse-native',
  directIo: true,
  strict: false,
  callerIdentity: false,
  handover: false,
  notes: [
    'a reader waits while the agent is busy, and fails when the agent ends',
    'mmap, splice and sendfile leave copies in the page cache',
    'fstat of a descriptor that was open before a rotation shows the new version’s size and times',
    'a service made anew under an old name appears in old bind mounts of that name',
  ],
};

/**
 * libfuse copies each reply into a block of its own heap and frees it. Overwriting freed blocks leaves no copy,
 * except in glibc's cache of small blocks, which only a tunable at the start of the process turns off (measured
 * over 1,000 reads: 10 copies without overwriting; with it 10 of replies of up to 1,032 bytes, or 0 without the cache).
 */
function heapNotes(overwritten: boolean): string[] {
  if (!overwritten) return ['freed copies of replies stay in libfuse’s memory, readable to root'];
  return keepsSmallBlocks()
    ? [
        'freed copies of small replies stay in libfuse’s memory, readable to root: this C library keeps its cache of small blocks',
      ]
    : [];
}

/** open(2): a descriptor that only names a place. Node does not list it; it is the same on all Linux machines. */
const O_PATH = 0o10000000;

/**
 * Keeps the mount's FUSE connection alive for the life of this process, also after the unmount. Where it ends
 * earlier, fuse-native's thread frees libfuse's channel in fuse_unmount and then uses it in
 * fuse_session_remove_chan: SIGSEGV each time, if freed memory is overwritten. The descriptor asks the mount
 * nothing, and it makes a plain umount(8) by hand say "busy" instead of killing the agent.
 */
async function holdMount(path: string): Promise<void> {
  await promisify(open)(path, O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW);
}

/** The options rode in on a name: believe the kernel, not libfuse, that they are in force. */
async function checkMount(path: string): Promise<void> {
  const mount = topMountAt(await readMounts(), path);
  const missing =
    mount === undefined ? required : required.filter((option) => !mount.options.includes(option));
  if (mount === undefined || !isInroMount(mount) || missing.length > 0) {
    throw new InroError(
      'mount_failed',
      `${path} is not mounted as asked for (missing: ${missing.join(', ') || 'everything'})`,
    );
  }
}
