/**
 * Mount and arena in the service manager's descriptor store, so that they outlive this process however it ends. The arena
 * is stored before the mount: a mount that is found alone was never served.
 */
import { closeSync } from 'node:fs';
import type { Logger } from 'pino';
import type { ServiceManager, StoredDescriptor } from '../../system/service_manager.js';
import type { MountDriver } from '../mount/driver.js';
import type { Left } from '../serving.js';

const arenaName = 'inro-arena';
/** The helper that mounts for the agent stores it under this name (src/cli/commands/agent_mount.ts). */
export const deviceName = 'inro-mount';
export const keeperName = "systemd's descriptor store";

/** What the store handed to this process. What cannot be used is closed. */
export function takeLeft(stored: readonly StoredDescriptor[]): Left | undefined {
  const last = (name: string) => stored.findLast((one) => one.name === name)?.fd;
  const arena = last(arenaName);
  const device = last(deviceName);
  for (const { fd } of stored) if (fd !== device && (fd !== arena || device === undefined)) closeSync(fd);
  if (device === undefined) return undefined;
  return arena === undefined ? { device } : { device, arena };
}

/**
 * What came out of the store stays in it: there is no moment at which it is not kept.
 * @returns whether a successor will find both.
 */
export function keep(
  manager: ServiceManager | undefined,
  driver: MountDriver,
  left: Left | undefined,
  log: Logger,
): boolean {
  if (manager === undefined || !manager.stores) return false;
  const { arena, device } = driver.facts().handover ? (driver.handover?.descriptors() ?? {}) : {};
  if (arena === undefined || device === undefined) {
    forget(manager);
    return false;
  }
  if (left?.arena !== undefined) return true;
  if (left === undefined) forget(manager);
  const failure =
    manager.store(arenaName, arena) || (left === undefined ? manager.store(deviceName, device) : '');
  if (failure === '') return true;
  log.error({ why: failure }, 'the mount is not kept for a successor');
  forget(manager);
  return false;
}

export function forget(manager: ServiceManager | undefined): void {
  manager?.remove(arenaName);
  manager?.remove(deviceName);
}
