/**
 * The mount driver of our own: the kernel's FUSE protocol, answered by native threads out of the arena (native/core).
 * JavaScript says what is to be seen, step by step, and is never asked: a busy event loop delays no read, and lets no
 * lease outlive its deadline.
 */
import { join } from 'node:path';
import type { ServedArena } from '../../crypto/arena.js';
import type { Clock } from '../../model/clock.js';
import { InroError } from '../../model/error.js';
import { addon, rootNode, type NativeServedArena, type NativeServer } from '../../system/addon.js';
import { detach, mountDevice } from './device.js';
import type { DriverFacts, MountDriver } from './driver.js';
import { detachInroMounts, prepareMountpoint, type Mountpoint } from './mountpoint.js';
import { nativeStep } from './native_step.js';
import { Tree, type TreeSink } from './tree.js';

export interface KernelDriverOptions {
  arena: ServedArena;
  clock: Pick<Clock, 'now' | 'boottimeMs'>;
  /** Threads that answer. */
  workers?: number;
  /** Of the FUSE protocol, for tests: the server behaves as on a kernel that knows no newer one. */
  newestMinor?: number;
}

/** Two: one reader that is slow to wake up does not keep all others waiting. More gain nothing (bench read). */
const defaultWorkers = 2;
const newestMinor = 45;

interface Mounted {
  server: NativeServer;
  point: Mountpoint;
  /** Users other than this one can read it. */
  others: boolean;
}

export function createKernelDriver(options: KernelDriverOptions): MountDriver {
  const { arena, clock, workers = defaultWorkers } = options;
  const native = arena.served;
  const owner = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };
  const tree = new Tree({
    owner,
    now: () => clock.now(),
    boottimeMs: () => clock.boottimeMs(),
    sink: nativeSink(native),
    rootIno: rootNode,
  });
  let mounted: Mounted | undefined;
  let untilMs = 0;
  /** Why pages cannot be kept out of the page cache here; '' when they are. */
  let notStrict = '';

  return {
    facts: () => facts(mounted, notStrict),
    serveUntil: (boottimeMs) => {
      untilMs = boottimeMs;
      native.serveUntil(boottimeMs);
    },
    openService: (serviceId, serviceName) => tree.openService(serviceId, serviceName),
    withdraw: (taskId) => tree.withdraw(taskId),

    publish(generation) {
      const refused = notStrict === '' ? undefined : generation.files.find((file) => !file.mmap);
      if (refused !== undefined) {
        throw new InroError(
          'not_supported',
          `${refused.target} cannot be served: this kernel would keep copies of it in its page cache (${notStrict})`,
          { remedy: 'add mmap to the reference if copies are acceptable until the wipe' },
        );
      }
      tree.publish(generation);
    },

    async mount({ path }) {
      if (mounted !== undefined) {
        throw new InroError('mount_failed', `this driver is already mounted at ${mounted.point.path}`);
      }
      const point = await prepareMountpoint(path, detach);
      try {
        const { server, others } = await mountDevice(
          native,
          point.path,
          workers,
          options.newestMinor ?? newestMinor,
        );
        mounted = { server, point, others };
        native.serveUntil(Number.MAX_SAFE_INTEGER);
        notStrict = await testStrictness(tree, arena, point.path);
        native.serveUntil(untilMs);
      } catch (error) {
        mounted?.server.stop();
        mounted = undefined;
        await detachInroMounts(point.path, detach);
        await point.remove();
        throw error;
      }
    },

    async unmount() {
      if (mounted === undefined) return;
      const { server, point } = mounted;
      mounted = undefined;
      // First: a descriptor or a bind mount elsewhere outlives the unmount, and must not be served any more.
      server.stop();
      await detachInroMounts(point.path, detach);
      await point.remove();
    },
  };
}

/** Steps go to the native tree; ids that no step came to use go back. */
function nativeSink(native: NativeServedArena): TreeSink {
  let unused: number[] = [];
  return {
    newIno() {
      const id = native.reserveNode();
      if (id === null) {
        for (const one of unused) native.giveBackNode(one);
        unused = [];
        throw new InroError('arena_full', 'the mount has no room for more files', {
          remedy: 'remove references this node does not need',
        });
      }
      unused.push(id);
      return id;
    },
    commit(step) {
      const made = new Set(step.made.map(({ ino }) => ino));
      for (const id of unused) if (!made.has(id)) native.giveBackNode(id);
      unused = [];
      const refusal = native.commit(nativeStep(step));
      if (refusal === '') return;
      throw new InroError('arena_full', `the files cannot be shown: ${refusal}`, {
        remedy: 'remove references this node does not need, or give the agent a larger arena',
      });
    },
  };
}

/**
 * That the page cache is not filled is how kernels behave, not what they promise: so it is tried, on a file of the mount
 * that is there for this moment alone.
 * @returns what happened instead, or ''.
 */
async function testStrictness(tree: Tree, arena: ServedArena, path: string): Promise<string> {
  const content = 'not a secret: a file to try the kernel with';
  const target = '.self-test';
  const value = arena.take(content.length);
  value.expose().set(Buffer.from(content));
  const owner = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };
  const end = tree.showProbe({
    target,
    source: target,
    mode: 0o400,
    modifiedMs: 0,
    mmap: false,
    value,
    ...owner,
  });
  try {
    return await addon().strictSelfTest(join(path, target), content);
  } finally {
    end();
    value.wipe();
  }
}

function facts(mounted: Mounted | undefined, notStrict: string): DriverFacts {
  const server = mounted?.server.facts();
  const notes = ['the mount ends with the agent: what has bind-mounted it must then mount it again'];
  if (notStrict !== '') notes.push(`this kernel fills its page cache: ${notStrict}`);
  if (mounted !== undefined && !mounted.others)
    notes.push(
      'only this user can read the mount, not even root: /etc/fuse.conf does not say user_allow_other',
    );
  if (server !== undefined && !server.buffersLocked)
    notes.push('replies pass through memory that may be swapped out: this user may not lock more');
  const notServed = server === undefined || server.connected ? '' : server.ended || 'it was unmounted';
  if (notServed !== '') notes.push(`the mount is not served: ${notServed}`);
  if (server !== undefined && server.pendingScrubs > 0)
    notes.push(`${server.pendingScrubs} wiped files are still in the kernel's page cache`);
  return {
    name: 'kernel',
    directIo: true,
    strict: mounted !== undefined && notStrict === '',
    callerIdentity: false,
    handover: false,
    notServed,
    notes,
  };
}
