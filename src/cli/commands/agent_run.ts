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
import { serviceManager } from '../../system/service_manager.js';
import { joinByCredential } from '../join_credential.js';
import { dockerOptions } from '../docker_option.js';
import { useKeyCredential } from '../key_credential.js';
import { createLogger, levelInEnvironment } from '../log.js';
import { paths } from '../paths.js';
import { tellServiceManager } from '../service_status.js';
import { given, settingsFile } from '../settings.js';
import { Hangup, untilStopped } from '../shutdown.js';

export interface AgentRunOptions {
  config?: string;
  state?: string;
  mount?: string;
  socket?: string;
  credentials?: string;
  driver?: DriverName;
  docker?: string;
  takeover?: boolean;
  keyCredential?: string;
  unwrapKeys?: boolean;
}

export async function agentRun({
  config,
  takeover = false,
  unwrapKeys = false,
  ...flags
}: AgentRunOptions): Promise<void> {
  const file = settingsFile(config, paths.agentConfig, readAgentConfig);
  const started = file.read();
  const settings = { ...started, ...flags };
  const {
    state,
    mount,
    socket,
    credentials,
    driver = driverHere(),
    docker,
    managers,
    logLevel,
    hooks,
    keyCredential,
  } = settings;
  useKeyCredential({ ...(keyCredential === undefined ? {} : { keyCredential }), unwrapKeys });
  const manager = serviceManager();
  // What is mounted already, nobody has to mount.
  if (!takeover && (manager?.stored.length ?? 0) === 0) checkMayMount(driver);
  // Its replies pass through libfuse's heap; those of the kernel driver do not.
  if (driver === 'fuse-native') restartWithoutBlockCache();
  const hangup = new Hangup();
  const stopped = untilStopped(hangup);
  const log = await createLogger('agent', logLevel ?? 'info');
  const stateFolder = state ?? paths.agentState;
  await joinByCredential({ stateFolder, managers, log });
  const agent = await startAgent({
    stateFolder,
    mountPath: resolve(mount ?? paths.mount),
    socketPath: socket ?? paths.agentSocket,
    ...(credentials === undefined ? {} : { credentialsPath: resolve(credentials) }),
    ...(managers === undefined ? {} : { managers }),
    driver,
    docker: dockerOptions(docker, driver),
    hooks,
    takeover,
    serviceManager: manager,
    clock: systemClock,
    random: systemRandom,
    log,
  });
  const reload = new Reload<AgentConfig>({
    read: file.read,
    started,
    apply: changes(agent, log),
    decided: given({ ...flags, logLevel: levelInEnvironment() }),
    log,
  });
  hangup.answerWith(() => reload.again());
  const over = new AbortController();
  const telling = tellServiceManager(manager, () => agent.summary(), over.signal);
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

/** What needs no restart. */
function changes(agent: RunningAgent, log: Logger) {
  return {
    managers: (managers: readonly string[] | undefined) => agent.useManagers(managers),
    hooks: (hooks: AgentConfig['hooks']) => agent.useHooks(hooks),
    logLevel: (level: AgentConfig['logLevel']) => {
      log.level = level ?? 'info';
    },
  };
}
