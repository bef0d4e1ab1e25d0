/** inro dev: manager and agent on this host, in one process, until Ctrl-C. */
import { lstatSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { startAgent } from '../../agent/agent.js';
import { arenaSize } from '../../agent/arena_size.js';
import { hasIdentity } from '../../agent/identity.js';
import { driverHere, type DriverName } from '../../agent/mount/drivers.js';
import { checkMayMount } from '../../agent/mount/permission.js';
import { joinCluster } from '../../agent/join.js';
import { startManager } from '../../manager/manager.js';
import { parseJoinToken } from '../../pki/join_token.js';
import { checkAddress } from '../../rpc/address.js';
import { addon } from '../../system/addon.js';
import { systemClock as clock, systemRandom as random } from '../../system/clock.js';
import { restartWithoutBlockCache } from '../../system/heap.js';
import { dockerOptions } from '../docker_option.js';
import { createLogger } from '../log.js';
import { paths } from '../paths.js';
import { printLine } from '../print.js';
import { untilStopped } from '../shutdown.js';

const temporaryPrefix = 'inro-dev-';
const startMs = 5_000;

export interface DevOptions {
  state?: string;
  mount?: string;
  listen?: string;
  driver?: DriverName;
  docker?: string;
}

export async function dev(options: DevOptions): Promise<void> {
  const { state, listen = '127.0.0.1:0', driver = driverHere() } = options;
  checkMayMount(driver);
  arenaSize((bytes) => addon().lockable(bytes)); // throws before the manager is begun
  const { managerSocket, agentSocket } = paths;
  const mount = options.mount ?? paths.mount;
  // Its replies pass through libfuse's heap; those of the kernel driver do not.
  if (driver === 'fuse-native') restartWithoutBlockCache();
  checkAddress(listen);
  const stopped = untilStopped();
  const log = await createLogger('inro dev', 'warn');
  removeLeftOvers();
  const folder = state ?? mkdtempSync(join(tmpdir(), temporaryPrefix));
  const undo: (() => Promise<void> | void)[] = [];
  if (state === undefined) undo.push(() => rmSync(folder, { recursive: true, force: true }));
  try {
    const manager = await startManager({
      stateFolder: join(folder, 'manager'),
      listen,
      socketPath: managerSocket,
      clock,
      random,
      log: log.child({ part: 'manager' }),
    });
    undo.push(() => manager.stop());
    const agentFolder = join(folder, 'agent');
    if (!hasIdentity(agentFolder)) {
      const token = parseJoinToken(await manager.joinToken());
      await joinCluster({ token, manager: manager.address, stateFolder: agentFolder, clock });
    }
    const agent = await startAgent({
      stateFolder: agentFolder,
      mountPath: resolve(mount),
      socketPath: agentSocket,
      managers: [manager.address],
      driver,
      docker: dockerOptions(options.docker, driver, { runsContainers: true }),
      clock,
      random,
      log: log.child({ part: 'agent' }),
    });
    undo.push(() => agent.stop());
    const early = await Promise.race([agent.connected, stopped]);
    if (early === undefined) sayReady(mount, manager.address, state);
    await stopped;
  } finally {
    for (const step of undo.reverse()) await step();
  }
  printLine('inro dev: stopped, wiped, unmounted');
}

/** Temporary states that killed runs left behind: ours, and locked by nobody. */
function removeLeftOvers(): void {
  for (const name of readdirSync(tmpdir()).filter((entry) => entry.startsWith(temporaryPrefix))) {
    const folder = join(tmpdir(), name);
    const found = lstatSync(folder, { throwIfNoEntry: false });
    if (found === undefined) continue; // another user's, who has just ended it
    const { uid, mtimeMs } = found;
    if (Date.now() - mtimeMs < startMs) continue; // it may be about to take its lock
    if (uid === process.getuid?.() && addon().lockFile(join(folder, 'manager', 'lock')) >= 0) {
      rmSync(folder, { recursive: true, force: true });
    }
  }
}

function sayReady(mount: string, address: string, state: string | undefined): void {
  printLine(`inro dev: ready
  mount     ${mount}
  manager   unix:${paths.managerSocket}, ${address}
  state     ${state ?? 'temporary: gone when this ends (keep it with --state DIR)'}
  try       echo -n 'This is a secret' | npx inro secret create my_secret_data -
            npx inro service create --name redis --secret my_secret_data
            cat ${mount}/redis/my_secret_data
            npx inro agent status
  stop      Ctrl-C`);
}
