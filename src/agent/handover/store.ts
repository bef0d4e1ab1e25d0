/**
 * Mount, arena and the socket for credentials in the service manager's descriptor store, so that they outlive this process however
 * it ends. The arena is stored before the mount: a mount that is found alone was never served.
 */
import { closeSync } from 'node:fs';
import type { Logger } from 'pino';
import type { ServiceManager, StoredDescriptor } from '../../system/service_manager.js';
import type { MountDriver } from '../mount/driver.js';
import type { Left } from '../serving.js';

const arenaName = 'inro-arena';
const credentialsName = 'inro-credentials';
/** The helper that mounts for the agent stores it under this name (src/cli/commands/agent_mount.ts). */
export const deviceName = 'inro-mount';
export const keeperName = "systemd's descriptor store";

/** What the store handed to this process. What cannot be used is closed. */
export function takeLeft(stored: readonly StoredDescriptor[]): Left | undefined {
  const last = (name: string) => stored.findLast((one) => one.name === name)?.fd;
  const arena = last(arenaName);
  const device = last(deviceName);
  const credentials = last(credentialsName);
  const used = device === undefined ? [] : [device, arena, credentials];
  for (const { fd } of stored) if (!used.includes(fd)) closeSync(fd);
  if (device === undefined) return undefined;
  return {
    device,
    ...(arena === undefined ? {} : { arena }),
    ...(credentials === undefined ? {} : { credentials }),
  };
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

/** The socket of those who ask for credentials: who asks while no agent runs waits for the next one. Only beside a mount that is kept. */
export function keepCredentials(manager: ServiceManager | undefined, descriptor: number, log: Logger): void {
  manager?.remove(credentialsName);
  const failure = manager?.store(credentialsName, descriptor) ?? '';
  if (failure !== '') log.error({ why: failure }, 'the credentials socket is not kept for a successor');
}

export function forget(manager: ServiceManager | undefined): void {
  manager?.remove(arenaName);
  manager?.remove(deviceName);
  manager?.remove(credentialsName);
}
