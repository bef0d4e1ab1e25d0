/**
 * Arena and mount: a predecessor's where it left them and they are sound, new ones otherwise. What is refused is refused
 * as a whole: its connection ends, so that its readers get an error and do not wait for ever.
 */
import { closeSync } from 'node:fs';
import type { Logger } from 'pino';
import { adoptServedArena, openServedArena, type ServedArena } from '../crypto/arena.js';
import type { Clock } from '../model/clock.js';
import { asInroError, InroError } from '../model/error.js';
import { addon } from '../system/addon.js';
import { arenaSize } from './arena_size.js';
import type { MountDriver } from './mount/driver.js';
import { createDriver, type DriverName } from './mount/drivers.js';
import type { Owner } from './mount/notes.js';

/** Descriptors of a mount that is there already; without `arena` nobody has served it yet. */
export interface Left {
  device: number;
  arena?: number;
  /** The socket on which units ask for credentials. */
  credentials?: number;
}

export interface ServingOptions {
  driver: DriverName;
  mountPath: string;
  of: Owner;
  left: Left | undefined;
  /** What was left is not used: nobody is to keep it any more. */
  onRefused: () => void;
  clock: Clock;
  log: Logger;
}

export interface Serving {
  arena: ServedArena;
  driver: MountDriver;
  /** RLIMIT_MEMLOCK, where the arena is smaller because of it. */
  lockLimitBytes: number | undefined;
  /** Of what was left, what is served now. */
  used: Left | undefined;
}

/** Mounted; a predecessor's files are served when it resolves. @throws mount_failed, no_fuse, not_permitted. */
export async function openServing(options: ServingOptions): Promise<Serving> {
  const { left, onRefused, log } = options;
  if (left === undefined) return openNew(options, undefined);
  if (left.arena === undefined) {
    try {
      return await openNew(options, left.device);
    } catch (error) {
      // Somebody has served it and is gone, perhaps: it must not come again.
      onRefused();
      throw error;
    }
  }
  try {
    return await takeOver(options, left.device, left.arena);
  } catch (thrown) {
    const error = asInroError(thrown);
    log.error({ err: error }, 'what a former agent left is refused: its mount ends, a new one begins');
    onRefused();
    return openNew(options, undefined);
  }
}

async function takeOver(options: ServingOptions, device: number, descriptor: number): Promise<Serving> {
  if (options.driver !== 'kernel') {
    closeSync(device);
    closeSync(descriptor);
    throw new InroError('not_supported', `the driver ${options.driver} cannot go on with a mount`);
  }
  let arena: ServedArena | undefined;
  let driver: MountDriver;
  try {
    arena = adoptServedArena(descriptor);
    driver = createFor(options, arena, true);
  } catch (error) {
    arena?.served.wipe();
    closeSync(device);
    throw error;
  }
  try {
    await driver.mount({ path: options.mountPath, device: { fd: device, isNew: false } });
    return { arena, driver, lockLimitBytes: undefined, used: options.left };
  } catch (error) {
    arena.served.wipe();
    throw error;
  }
}

async function openNew(options: ServingOptions, device: number | undefined): Promise<Serving> {
  const { heapBytes, nodes, limitBytes } = arenaSize((bytes) => addon().lockable(bytes));
  const arena = openServedArena(heapBytes, nodes);
  const driver = createFor(options, arena, false);
  const given = device === undefined ? {} : { device: { fd: device, isNew: true } };
  await driver.mount({ path: options.mountPath, ...given });
  return { arena, driver, lockLimitBytes: limitBytes, used: device === undefined ? undefined : { device } };
}

function createFor({ driver, clock, of, log }: ServingOptions, arena: ServedArena, isInherited: boolean) {
  return createDriver(driver, {
    arena,
    clock,
    of,
    isInherited,
    onError: (error, operation) => log.error({ err: error, operation }, 'a file system request failed'),
  });
}
