/** A mount on the real /dev/fuse by either driver, taken away after the test. */
import { existsSync } from 'node:fs';
import type { ExecutionContext } from 'ava';
import { driverNames, type DriverName } from '../../src/agent/mount/drivers.js';
import { createFuseNativeDriver } from '../../src/agent/mount/fuse_native.js';
import { createKernelDriver } from '../../src/agent/mount/kernel.js';
import { openServedArena, type ServedArena } from '../../src/crypto/arena.js';
import { systemClock } from '../../src/system/clock.js';
import { guardMounts } from './mount_guard.js';
import { MountReader } from './mount_reader.js';
import type { ConformanceContext } from './posix_conformance.js';

export { driverNames };

export const canMount = existsSync('/dev/fuse') && process.getuid?.() === 0;

export interface Mounted extends ConformanceContext {
  mountPoint: string;
  arena: ServedArena;
  /** What a driver's handlers threw. */
  errors: unknown[];
  reader: () => MountReader;
}

export interface MountedOptions {
  boottimeMs?: () => number;
  onError?: (error: unknown) => void;
  maxOpenHandles?: number;
  newestMinor?: number;
  workers?: number;
  /** Of the kernel driver: whose mount it is. */
  of?: { clusterId: string; nodeId: string };
}

export function newDriver(
  name: DriverName,
  { boottimeMs = () => systemClock.boottimeMs(), onError = () => undefined, ...more }: MountedOptions = {},
) {
  const arena = openServedArena(16 << 20, 4096);
  const clock = { now: () => Date.now(), boottimeMs };
  const driver =
    name === 'kernel'
      ? createKernelDriver({ arena, clock, ...more })
      : createFuseNativeDriver({ clock, onError, ...more });
  return { arena, driver };
}

export async function mounted(
  t: ExecutionContext,
  name: DriverName,
  options: MountedOptions = {},
): Promise<Mounted> {
  const { mountPoint, scratch, cleanUp } = await guardMounts();
  t.teardown(cleanUp);
  const errors: unknown[] = [];
  const { arena, driver } = newDriver(name, { onError: (error) => errors.push(error), ...options });
  await driver.mount({ path: mountPoint });
  driver.serveUntil(Number.MAX_SAFE_INTEGER);
  t.teardown(() => driver.unmount());
  const reader = (): MountReader => {
    const one = new MountReader();
    t.teardown(() => one.close());
    return one;
  };
  return { driver, arena, take: (bytes) => arena.take(bytes), scratch, mountPoint, errors, reader };
}

/** Publishes `text` as the file `key` of the service `web`. */
export function publishKey(
  { driver, take }: ConformanceContext,
  text = 'value',
  { number = 1, mmap = false, graceMs = 10_000 } = {},
) {
  const value = take(text.length);
  value.expose().set(Buffer.from(text));
  const files = [{ target: 'key', source: 'key', uid: 0, gid: 0, mode: 0o444, modifiedMs: 0, mmap, value }];
  driver.publish({ taskId: 't1', serviceId: 's', serviceName: 'web', number, graceMs, files });
  return value;
}
