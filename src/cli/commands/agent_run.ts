/** inro agent run */
import { resolve } from 'node:path';
import { startAgent, type RunningAgent } from '../../agent/agent.js';
import { driverHere, type DriverName } from '../../agent/mount/drivers.js';
import { checkMayMount } from '../../agent/mount/permission.js';
import { systemClock, systemRandom } from '../../system/clock.js';
import { restartWithoutBlockCache } from '../../system/heap.js';
import { serviceManager, type ServiceManager } from '../../system/service_manager.js';
import { createLogger } from '../log.js';
import { paths } from '../paths.js';
import { untilStopped } from '../shutdown.js';

/** How often the service manager is told how things stand, at least. */
const statusMs = 5_000;

export interface AgentRunOptions {
  state?: string;
  mount?: string;
  socket?: string;
  driver?: DriverName;
  takeover?: boolean;
}

export async function agentRun({
  state,
  mount,
  socket,
  driver = driverHere(),
  takeover = false,
}: AgentRunOptions): Promise<void> {
  const manager = serviceManager();
  // What is mounted already, nobody has to mount.
  if (!takeover && (manager?.stored.length ?? 0) === 0) checkMayMount(driver);
  // Its replies pass through libfuse's heap; those of the kernel driver do not.
  if (driver === 'fuse-native') restartWithoutBlockCache();
  const stopped = untilStopped();
  const log = await createLogger('agent', 'info');
  const agent = await startAgent({
    stateFolder: state ?? paths.agentState,
    mountPath: resolve(mount ?? paths.mount),
    socketPath: socket ?? paths.agentSocket,
    driver,
    takeover,
    serviceManager: manager,
    clock: systemClock,
    random: systemRandom,
    log,
  });
  const over = new AbortController();
  const telling = tell(agent, manager, over.signal);
  const why = await Promise.race([stopped, agent.asked]);
  over.abort();
  await telling;
  log.info({ why }, 'stopping');
  // A service manager ends a service to start it anew, too; what is to stop for good is told so over the socket before.
  if (why === 'taken over' || (why === 'SIGTERM' && agent.isKept)) {
    manager?.stopping('left to the next start: readers wait for it');
    await agent.leave();
    log.info('left to a successor: nothing is wiped, readers wait for it');
    return;
  }
  manager?.stopping('wiping');
  await agent.stop();
  log.info('stopped: wiped and unmounted');
}

/** Readiness, then a line of status and a sign of life for as long as the mount is served. */
async function tell(
  agent: RunningAgent,
  manager: ServiceManager | undefined,
  signal: AbortSignal,
): Promise<void> {
  if (manager === undefined) return;
  manager.ready(agent.summary().text);
  const periodMs = Math.min(statusMs, (manager.watchdogMs ?? Infinity) / 3);
  let told = '';
  while (!signal.aborted) {
    const { text, isServed } = agent.summary();
    if (text !== told) manager.status(text);
    told = text;
    if (isServed) manager.alive();
    await systemClock.sleep(periodMs, signal);
  }
}
