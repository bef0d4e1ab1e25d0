/** inro agent run */
import { resolve } from 'node:path';
import { startAgent } from '../../agent/agent.js';
import { driverHere, type DriverName } from '../../agent/mount/drivers.js';
import { checkMayMount } from '../../agent/mount/permission.js';
import { systemClock, systemRandom } from '../../system/clock.js';
import { restartWithoutBlockCache } from '../../system/heap.js';
import { createLogger } from '../log.js';
import { paths } from '../paths.js';
import { untilStopped } from '../shutdown.js';

export interface AgentRunOptions {
  state?: string;
  mount?: string;
  socket?: string;
  driver?: DriverName;
}

export async function agentRun({
  state,
  mount,
  socket,
  driver = driverHere(),
}: AgentRunOptions): Promise<void> {
  checkMayMount(driver);
  // Its replies pass through libfuse's heap; those of the kernel driver do not.
  if (driver === 'fuse-native') restartWithoutBlockCache();
  const stopped = untilStopped();
  const log = await createLogger('agent', 'info');
  const agent = await startAgent({
    stateFolder: state ?? paths.agentState,
    mountPath: resolve(mount ?? paths.mount),
    socketPath: socket ?? paths.agentSocket,
    driver,
    clock: systemClock,
    random: systemRandom,
    log,
  });
  log.info({ signal: await stopped }, 'stopping');
  await agent.stop();
  log.info('stopped: wiped and unmounted');
}
