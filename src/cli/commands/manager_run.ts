/** inro manager run */
import type { ManagerConfig } from '../../config/keys.js';
import { readManagerConfig } from '../../config/read.js';
import { Reload } from '../../config/reload.js';
import { startManager } from '../../manager/manager.js';
import type { GivenCa } from '../../manager/state_folder.js';
import { InroError } from '../../model/error.js';
import { parseExternalCa } from '../../model/external_ca.js';
import { checkAddress } from '../../rpc/address.js';
import { systemClock, systemRandom } from '../../system/clock.js';
import { serviceManager } from '../../system/service_manager.js';
import { useKeyCredential } from '../key_credential.js';
import { createLogger, levelInEnvironment } from '../log.js';
import { paths } from '../paths.js';
import { tellServiceManager } from '../service_status.js';
import { given, settingsFile } from '../settings.js';
import { Hangup, untilStopped } from '../shutdown.js';

export interface ManagerRunOptions {
  config?: string;
  state?: string;
  listen?: string;
  socket?: string;
  caCert?: string;
  caKey?: string;
  externalCa: string[];
  keyCredential?: string;
  unwrapKeys?: boolean;
}

export async function managerRun({
  config,
  unwrapKeys = false,
  externalCa: urls,
  ...rest
}: ManagerRunOptions): Promise<void> {
  const flags = { ...rest, ...(urls.length === 0 ? {} : { externalCa: urls }) };
  const file = settingsFile(config, paths.managerConfig, readManagerConfig);
  const started = file.read();
  const settled = { ...started, ...flags };
  const { state, listen, socket, keyCredential, logLevel } = settled;
  if (state === undefined) throw missing('where to keep its state', 'state', 'DIR', file.path);
  if (listen === undefined) throw missing('where agents reach it', 'listen', 'HOST:PORT', file.path);
  checkAddress(listen);
  const ca = givenCa(settled);
  useKeyCredential({ ...(keyCredential === undefined ? {} : { keyCredential }), unwrapKeys });
  const hangup = new Hangup();
  const stopped = untilStopped(hangup);
  const log = await createLogger('manager', logLevel ?? 'info');
  const manager = await startManager({
    stateFolder: state,
    listen,
    socketPath: socket ?? paths.managerSocket,
    ...(ca === undefined ? {} : { ca }),
    clock: systemClock,
    random: systemRandom,
    log,
  });
  const settings = new Reload<ManagerConfig>({
    read: file.read,
    started,
    apply: {
      logLevel: (level) => {
        log.level = level ?? 'info';
      },
    },
    decided: given({ ...flags, logLevel: levelInEnvironment() }),
    log,
  });
  hangup.answerWith(() => settings.again());
  const service = serviceManager();
  const over = new AbortController();
  const telling = tellServiceManager(
    service,
    () => ({ text: `serves ${manager.address}`, isServed: true }),
    over.signal,
  );
  const signal = await stopped;
  over.abort();
  await telling;
  service?.stopping('stopping');
  log.info({ signal }, 'stopping');
  await manager.stop();
  log.info('stopped');
}

function givenCa({
  caCert: certificatePath,
  caKey: keyPath,
  externalCa = [],
}: Pick<ManagerConfig, 'caCert' | 'caKey' | 'externalCa'>): GivenCa | undefined {
  if (externalCa.length > 0) {
    if (certificatePath !== undefined || keyPath !== undefined)
      throw new InroError(
        'bad_input',
        'a CA is given twice: one that is brought along, and an external one',
        {
          remedy: 'leave --ca-cert and --ca-key out; the certificate of an external CA is cacert=FILE',
        },
      );
    return { external: externalCa.map(parseExternalCa) };
  }
  if (certificatePath === undefined && keyPath === undefined) return undefined;
  if (certificatePath !== undefined && keyPath !== undefined) return { certificatePath, keyPath };
  const [given, lacks] = certificatePath === undefined ? ['key', '--ca-cert'] : ['certificate', '--ca-key'];
  throw new InroError('bad_input', `the ${given} of a CA is given without its other half`, {
    remedy: `add ${lacks} FILE; or leave both out, and inro makes a CA`,
  });
}

function missing(what: string, key: string, value: string, file: string | undefined): InroError {
  const place = file === undefined ? 'a file that --config names' : file;
  return new InroError('bad_input', `the manager is not told ${what}`, {
    remedy: `give --${key} ${value}, or write '${key}: ${value}' into ${place}`,
  });
}
