/** The mount drivers by name, and which of them a host gets. */
import type { ServedArena } from '../../crypto/arena.js';
import type { Clock } from '../../model/clock.js';
import type { MountDriver } from './driver.js';
import { createFuseNativeDriver } from './fuse_native.js';
import { createKernelDriver } from './kernel.js';
import type { Owner } from './notes.js';

export const driverNames = ['kernel', 'fuse-native'] as const;
export type DriverName = (typeof driverNames)[number];

interface DriverParts {
  arena: ServedArena;
  clock: Clock;
  of: Owner;
  /** The arena was filled by a predecessor. */
  isInherited: boolean;
  /** Told of whatever a request's handler threw; only the driver that is answered by JavaScript has such. */
  onError: (error: unknown, operation: string) => void;
}

/** The kernel driver where there is a Linux kernel, the portable one elsewhere. */
export function driverHere(): DriverName {
  return process.platform === 'linux' ? 'kernel' : 'fuse-native';
}

export function createDriver(name: DriverName, parts: DriverParts): MountDriver {
  return name === 'kernel' ? createKernelDriver(parts) : createFuseNativeDriver(parts);
}
