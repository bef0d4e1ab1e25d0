/** inro agent run */
import { resolve } from 'node:path';
import type { Logger } from 'pino';
import { startAgent, type RunningAgent } from '../../agent/agent.js';
import { driverHere, type DriverName } from '../../agent/mount/drivers.js';
import { checkMayMount } from '../../agent/mount/permission.js';
import type { AgentConfig } from '../../config/keys.js';
import { readAgentConfig } from '../../config/read.js';
import { Reload } from '../../config/reload.js';
import { systemClock, systemRandom } from '../../system/clock.js';
import { restartWithoutBlockCache } from '../../system/heap.js';
import { createLogger, levelInEnvironment } from '../log.js';
import { paths } from '../paths.js';
import { given, settingsFile } from '../settings.js';
import { Hangup, untilStopped } from '../shutdown.js';

export interface AgentRunOptions {
  config?: string;
  state?: string;
  mount?: string;
  socket?: string;
  driver?: DriverName;
}

export async function agentRun({ config, ...flags }: AgentRunOptions): Promise<void> {
  const file = settingsFile(config, paths.agentConfig, readAgentConfig);
  const started = file.read();
  const { state, mount, socket, driver = driverHere(), managers, logLevel } = { ...started, ...flags };
  checkMayMount(driver);
  // Its replies pass through libfuse's heap; those of the kernel driver do not.
  if (driver === 'fuse-native') restartWithoutBlockCache();
  const hangup = new Hangup();
  const stopped = untilStopped(hangup);
  const log = await createLogger('agent', logLevel ?? 'info');
  const agent = await startAgent({
    stateFolder: state ?? paths.agentState,
    mountPath: resolve(mount ?? paths.mount),
    socketPath: socket ?? paths.agentSocket,
    ...(managers === undefined ? {} : { managers }),
    driver,
    clock: systemClock,
    random: systemRandom,
    log,
  });
  const settings = new Reload<AgentConfig>({
    read: file.read,
    started,
    apply: changes(agent, log),
    decided: given({ ...flags, logLevel: levelInEnvironment() }),
    log,
  });
  hangup.answerWith(() => settings.again());
  log.info({ signal: await stopped }, 'stopping');
  await agent.stop();
  log.info('stopped: wiped and unmounted');
}

/** What needs no restart. */
function changes(agent: RunningAgent, log: Logger) {
  return {
    managers: (managers: readonly string[] | undefined) => agent.useManagers(managers),
    logLevel: (level: AgentConfig['logLevel']) => {
      log.level = level ?? 'info';
    },
  };
}
