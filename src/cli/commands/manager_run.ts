/** inro manager run */
import { startManager } from '../../manager/manager.js';
import { checkAddress } from '../../rpc/address.js';
import { systemClock, systemRandom } from '../../system/clock.js';
import { createLogger } from '../log.js';
import { paths } from '../paths.js';
import { untilStopped } from '../shutdown.js';

export interface ManagerRunOptions {
  state: string;
  listen: string;
  socket?: string;
}

export async function managerRun({ state, listen, socket }: ManagerRunOptions): Promise<void> {
  checkAddress(listen);
  const stopped = untilStopped();
  const log = await createLogger('manager', 'info');
  const manager = await startManager({
    stateFolder: state,
    listen,
    socketPath: socket ?? paths.managerSocket,
    clock: systemClock,
    random: systemRandom,
    log,
  });
  log.info({ signal: await stopped }, 'stopping');
  await manager.stop();
  log.info('stopped');
}
