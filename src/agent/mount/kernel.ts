/**
 * The mount driver of our own: the kernel's FUSE protocol, answered by native threads out of the arena (native/core).
 * JavaScript says what is to be seen, step by step, and is never asked: a busy event loop delays no read, and lets no
 * lease outlive its deadline.
 */
import { closeSync } from 'node:fs';
import { join } from 'node:path';
import type { ServedArena } from '../../crypto/arena.js';
import type { Clock } from '../../model/clock.js';
import { InroError } from '../../model/error.js';
import { addon, rootNode, type NativeServedArena, type NativeServer } from '../../system/addon.js';
import { detach, mountDevice } from './device.js';
import { AccessedFiles } from './accesses.js';
import type { DriverFacts, MountDriver, MountedDevice } from './driver.js';
import { noInheritance, readInheritance } from './inheritance.js';
import { detachInroMounts, givenMountpoint, prepareMountpoint, type Mountpoint } from './mountpoint.js';
import { nativeStep } from './native_step.js';
import type { Owner } from './notes.js';
import { Tree } from './tree.js';
import type { TreeSink } from './tree_nodes.js';

export interface KernelDriverOptions {
  arena: ServedArena;
  clock: Pick<Clock, 'now' | 'boottimeMs'>;
  /** Whose mount it is; what another node left is not taken over. */
  of?: Owner;
  /** The arena was filled by a predecessor. */
  isInherited?: boolean;
  /** Threads that answer. */
  workers?: number;
  /** Of the FUSE protocol, for tests: the server behaves as on a kernel that knows no newer one. */
  newestMinor?: number;
}

/** Two: one reader that is slow to wake up does not keep all others waiting. More gain nothing (bench read). */
const defaultWorkers = 2;
const newestMinor = 45;
/** Of the FUSE protocol: the kernel repeats what a killed server had not answered (Linux 6.9). */
const resendMinor = 40;

interface Mounted {
  server: NativeServer;
  point: Mountpoint;
  /** Users other than this one can read it. */
  others: boolean;
}

/** @throws foreign_cluster, mount_failed when what a predecessor left in the arena is not to be taken over. */
export function createKernelDriver(options: KernelDriverOptions): MountDriver {
  const { arena, clock, workers = defaultWorkers } = options;
  const native = arena.served;
  const owner = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };
  const left = options.isInherited === true ? readInheritance(arena, options.of) : undefined;
  const accessed = new AccessedFiles();
  for (const { id, kind, note } of left === undefined ? [] : native.nodes())
    if (kind === 'file') accessed.add(id, note);
  const tree = new Tree({
    ...(left === undefined ? {} : { inherited: left.tree }),
    ...(options.of === undefined ? {} : { of: options.of }),
    owner,
    now: () => clock.now(),
    boottimeMs: () => clock.boottimeMs(),
    sink: nativeSink(native, accessed),
    rootIno: rootNode,
  });
  let mounted: Mounted | undefined;
  /** Why pages cannot be kept out of the page cache here; '' when they are. */
  let notStrict = '';

  return {
    facts: () => facts(mounted, notStrict, native.descriptor() >= 0),
    serveUntil: (boottimeMs) => native.serveUntil(boottimeMs),
    openService: (serviceId, serviceName) => tree.openService(serviceId, serviceName),
    withdraw: (taskId) => tree.withdraw(taskId),
    admit: (taskId, gate) => tree.admit(taskId, gate),
    nodeOf: (taskId, target) => tree.nodeOf(taskId, target),
    collectAccesses: () => accessed.resolve(native.collectAccesses()),

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

    async mount({ path, device }) {
      if (mounted !== undefined) {
        throw new InroError('mount_failed', `this driver is already mounted at ${mounted.point.path}`);
      }
      const given = device === undefined ? undefined : await givenFor(path, device);
      const point = given ?? (await prepareMountpoint(path, detach));
      try {
        const served = await serve(point.path, device);
        mounted = { ...served, point, others: given?.allowsOthers ?? served.others };
        notStrict = await testStrictness(tree, arena, point.path);
      } catch (error) {
        mounted?.server.stop();
        mounted = undefined;
        if (device === undefined) await detachInroMounts(point.path, detach);
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
      if (!point.isGiven) await detachInroMounts(point.path, detach);
      // Who mounted it takes it away; it is dead by now.
      else await detachInroMounts(point.path, detach).catch(() => undefined);
      await point.remove();
    },

    handover: {
      inheritance: left?.inheritance ?? noInheritance,
      descriptors() {
        if (mounted === undefined) throw new InroError('mount_failed', 'nothing is mounted');
        return { arena: native.descriptor(), device: mounted.server.device };
      },
      letGo() {
        mounted?.server.stop();
        mounted = undefined;
        native.letGo();
      },
    },
  };

  async function serve(path: string, device: MountedDevice | undefined) {
    const minor = options.newestMinor ?? newestMinor;
    if (device === undefined) return mountDevice(native, path, workers, minor);
    return { server: await native.serve(device.fd, device.isNew, workers, minor), others: true };
  }
}

/** The descriptor is taken in any case. */
async function givenFor(path: string, device: MountedDevice): ReturnType<typeof givenMountpoint> {
  try {
    return await givenMountpoint(path);
  } catch (error) {
    closeSync(device.fd);
    throw error;
  }
}

/** Steps go to the native tree; ids that no step came to use go back. */
function nativeSink(native: NativeServedArena, accessed: AccessedFiles): TreeSink {
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
      if (refusal === '') {
        for (const { ino, kind, note } of step.made) if (kind === 'file') accessed.add(ino, note);
        accessed.gone(step.gone.map(({ ino }) => ino));
        return;
      }
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

function facts(mounted: Mounted | undefined, notStrict: string, hasDescriptor: boolean): DriverFacts {
  const server = mounted?.server.facts();
  const canHandOver = hasDescriptor && (server?.minor ?? 0) >= resendMinor;
  const notes: string[] = [];
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
    callerIdentity: true,
    handover: canHandOver,
    notServed,
    notes,
  };
}
