/** All checks of a host, in the order in which an agent needs what they look at. */
import { existsSync, readFileSync } from 'node:fs';
import os from 'node:os';
import si from 'systeminformation';
import { isKeyWrapped, loadCertified, loadIdentity } from '../agent/identity.js';
import { readMounts } from '../agent/mount/mountpoint.js';
import { openArena } from '../crypto/arena.js';
import type { Clock } from '../model/clock.js';
import { answers } from '../rpc/server.js';
import { addon } from '../system/addon.js';
import { said } from './ask.js';
import { certificate } from './certificate.js';
import { clockSync } from './clock.js';
import { failure, type Finding } from './finding.js';
import { fuseDevice, mayMount, mounterHere } from './fuse.js';
import { cgroups, coreFiles, kernelVersion } from './kernel.js';
import { managers } from './managers.js';
import { lockLimit, secretMemory, swap } from './memory.js';
import { mountPoint } from './mount_point.js';
import { diskSpace, nodeKey, stateFolder } from './state.js';
import { systemd } from './systemd.js';

/** Where there is no default for this user, asking for a path throws: that is a finding too. */
export interface Subject {
  stateFolder: () => string;
  mountPath: () => string;
  socketPath: () => string;
  /** Instead of those that the identity knows. */
  managers?: readonly string[];
}

/** A mapping that is asked for and given back: the kernel says what it would be. */
const trialBytes = 4096;

/** Changes nothing on the host. */
export async function examine(subject: Subject, clock: Clock): Promise<Finding[]> {
  const found: Finding[] = [];
  const check = async (name: string, look: () => Finding | Promise<Finding>): Promise<void> => {
    try {
      found.push(await look());
    } catch (error) {
      found.push(failure(name, error));
    }
  };
  const user = process.geteuid?.() ?? 0;

  await check('kernel', () => kernelVersion(os.release()));
  await check('/dev/fuse', () => fuseDevice());
  await check('right to mount', () => mayMount(mounterHere(text('/proc/self/status') ?? '')));
  await check('memfd_secret', () => secretMemory(openArena(trialBytes).facts()));
  await check('locked memory', () => lockLimit((bytes) => addon().lockable(bytes)));
  await check('swap', async () => swap((await si.mem()).swaptotal, text('/proc/swaps')));
  await check('core files', () => coreFiles(text('/proc/sys/kernel/core_pattern')));
  await check('cgroup v2', async () => cgroups(await readMounts()));
  await check('systemd', async () =>
    systemd(existsSync('/run/systemd/system'), await said('systemctl', ['--version'])),
  );
  await check('clock', async () =>
    clockSync(await said('timedatectl', ['show', '-p', 'NTPSynchronized', '--value'])),
  );
  await check('state folder', () => stateFolder(subject.stateFolder(), user));
  await check('node key', () => nodeKey(subject.stateFolder(), user));
  let identity: ReturnType<typeof loadCertified> | undefined;
  await check('certificate', () => {
    const folder = subject.stateFolder();
    // What only the agent's unit can open, is not opened here.
    const load = isKeyWrapped(folder) === true ? loadCertified : loadIdentity;
    identity = load(folder, clock.now());
    return certificate(identity, clock.now());
  });
  await check('managers', () => managers(subject.managers ?? identity?.managers ?? [], clock));
  await check('disk space', () => diskSpace(subject.stateFolder()));
  await check('mount point', async () =>
    mountPoint({
      path: subject.mountPath(),
      mounts: await readMounts(),
      agentAnswers: await answers(subject.socketPath()),
      user,
    }),
  );
  return found;
}

function text(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}
