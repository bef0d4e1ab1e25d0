/**
 * inro agent mount, inro agent unmount: what a unit does beside its agent, with the right to mount that the agent does not
 * have. Neither touches a mount that is kept for a successor (nobody answers there), unless the unit is being stopped: an
 * agent that hung until it was killed has left its own behind, and no successor comes.
 */
import { execFileSync } from 'node:child_process';
import { resolve } from 'node:path';
import { deviceName } from '../../agent/handover/store.js';
import { detach, mountForOther } from '../../agent/mount/device.js';
import { detachInroMounts, prepareMountpoint } from '../../agent/mount/mountpoint.js';
import { InroError } from '../../model/error.js';
import { serviceManager } from '../../system/service_manager.js';
import { paths } from '../paths.js';
import { printLine } from '../print.js';

export interface AgentMountOptions {
  unit: string;
  mount?: string;
}

export async function agentMount({ unit, mount }: AgentMountOptions): Promise<void> {
  const manager = serviceManager();
  if (manager === undefined) {
    throw new InroError(
      'not_supported',
      "'inro agent mount' is run by a unit of systemd (no NOTIFY_SOCKET)",
      {
        remedy: "start the agent with 'systemctl start inro-agent', or by hand with 'inro agent run'",
      },
    );
  }
  if (isKept(unit)) return printLine(`a mount is kept for ${unit}`);
  const { path } = await prepareMountpoint(resolve(mount ?? paths.mount), detach);
  const failure = manager.store(deviceName, mountForOther(path)) || manager.settle();
  if (failure === '') return printLine(`mounted ${path}`);
  await detachInroMounts(path, detach);
  throw new InroError('mount_failed', `systemd does not keep the mount ${path} for ${unit}: ${failure}`, {
    remedy: 'the unit needs FileDescriptorStoreMax=4 and NotifyAccess=exec',
  });
}

export async function agentUnmount({ unit, mount }: AgentMountOptions): Promise<void> {
  if (isKept(unit) && !isBeingStopped(unit)) return printLine(`a mount is kept for ${unit}`);
  await detachInroMounts(resolve(mount ?? paths.mount), detach);
}

/** Whether the store has anything. */
function isKept(unit: string): boolean {
  return Number(systemctl(unit, 'show', '--property=NFileDescriptorStore', '--value', '--', unit)) > 0;
}

/** By hand or at shutdown, not by its own end or to be started again: systemd empties its store then. */
function isBeingStopped(unit: string): boolean {
  const [, , type] = systemctl(unit, 'list-jobs', '--no-legend', '--', unit).trim().split(/\s+/);
  return type === 'stop';
}

function systemctl(unit: string, ...args: string[]): string {
  try {
    return execFileSync('systemctl', args, { encoding: 'utf8', stdio: 'pipe' });
  } catch (cause) {
    const said = ((cause as { stderr?: string }).stderr ?? (cause as Error).message).trim();
    throw new InroError(
      'not_supported',
      `systemctl cannot tell what is kept for ${unit}: ${said.split('\n').at(-1)}`,
      {
        cause,
        remedy: "this command is run by a unit of systemd; by hand, start the agent with 'inro agent run'",
      },
    );
  }
}
