/** inro manager run */
import type { ManagerConfig } from '../../config/keys.js';
import { readManagerConfig } from '../../config/read.js';
import { Reload } from '../../config/reload.js';
import { Autolock } from '../../manager/autolock.js';
import { untilUnlocked, type LockedParts } from '../../manager/locked.js';
import { startDistributed, type DistributedManager } from '../../manager/distributed.js';
import { startManager, type RunningManager } from '../../manager/manager.js';
import type { GivenCa } from '../../manager/state_folder.js';
import { InroError } from '../../model/error.js';
import { parseExternalCa } from '../../model/external_ca.js';
import { checkAddress } from '../../rpc/address.js';
import { systemClock, systemRandom } from '../../system/clock.js';
import { claimStateFolder } from '../../system/files.js';
import { serviceManager, type ServiceManager } from '../../system/service_manager.js';
import { useKeyCredential } from '../key_credential.js';
import { createLogger, levelInEnvironment } from '../log.js';
import { paths } from '../paths.js';
import { distributedStore } from '../store_option.js';
import { tellServiceManager } from '../service_status.js';
import { given, settingsFile } from '../settings.js';
import { Hangup, untilStopped } from '../shutdown.js';
import { unlockKeyFrom } from '../unlock_key_input.js';

export interface ManagerRunOptions {
  config?: string;
  state?: string;
  listen?: string;
  socket?: string;
  caCert?: string;
  caKey?: string;
  externalCa: string[];
  store?: string;
  storeCa?: string;
  storeCert?: string;
  storeKey?: string;
  keyCredential?: string;
  unwrapKeys?: boolean;
  autolock?: boolean;
  unlockKey?: string;
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
  const shared = distributedStore(settled);
  if (shared !== undefined) checkReachable(listen);
  const autolock = new Autolock(state, settled.autolock === true);
  if (keyCredential !== undefined && autolock.state !== 'off')
    throw new InroError(
      'bad_input',
      'keys on disk are wrapped by the unlock key or by a credential, not by both',
      { remedy: 'leave --key-credential out; or autolock: --no-autolock' },
    );
  useKeyCredential({ ...(keyCredential === undefined ? {} : { keyCredential }), unwrapKeys });
  const hangup = new Hangup();
  const stopped = untilStopped(hangup);
  const log = await createLogger('manager', logLevel ?? 'info');
  const service = serviceManager();
  const socketPath = socket ?? paths.managerSocket;
  if (autolock.state !== 'off' || settled.unlockKey !== undefined) {
    const locked = { autolock, stateFolder: state, socketPath, listen, clock: systemClock, log };
    if (!(await opened(locked, settled, stopped, service))) return;
  }
  const parts = {
    stateFolder: state,
    autolock,
    listen,
    socketPath,
    ...(ca === undefined ? {} : { ca }),
    clock: systemClock,
    random: systemRandom,
    log,
  };
  const manager =
    shared === undefined ? alone(await startManager(parts)) : await startDistributed({ ...parts, ...shared });
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
  const over = new AbortController();
  const telling = tellServiceManager(service, () => ({ text: manager.doing, isServed: true }), over.signal);
  const signal = await Promise.race([stopped, manager.failed]).catch(async (error: unknown) => {
    await manager.stop();
    throw error;
  });
  over.abort();
  await telling;
  service?.stopping('stopping');
  log.info({ signal }, 'stopping');
  await manager.stop();
  log.info('stopped');
}

function alone({ address, stop }: RunningManager): DistributedManager {
  return { doing: `serves ${address}`, failed: new Promise<never>(() => undefined), stop };
}

/** Others are told this address: it must be one. @throws bad_input. */
function checkReachable(listen: string): void {
  const [, host = '', port = ''] = /^(.*):([0-9]+)$/.exec(listen) ?? [];
  if (Number(port) !== 0 && !/^(0\.0\.0\.0|\[?::\]?)$/.test(host)) return;
  throw new InroError('bad_input', `--listen ${listen} is no address that the other managers can be told`, {
    remedy: 'give the address of this host by which agents and the other managers reach it, and a port',
  });
}

/**
 * With its keys readable: by the key that is given, or by one that an operator brings.
 * @returns false when it was stopped before. @throws bad_input for a key that is not the right one, or that nothing is locked with.
 */
async function opened(
  parts: LockedParts,
  { autolock: wanted, unlockKey: source }: ManagerConfig,
  stopped: Promise<NodeJS.Signals>,
  service: ServiceManager | undefined,
): Promise<boolean> {
  const { autolock, stateFolder, log } = parts;
  const release = claimStateFolder(stateFolder, 'manager');
  try {
    if (source !== undefined) bring(autolock, source);
    if (autolock.isLocked && !(await unlocked(parts, stopped, service))) return false;
    if (wanted === false) autolock.turnOff();
    if (autolock.state === 'wanted')
      log.warn("autolock is not in force yet: type 'inro manager unlock-key', and keep what it shows");
    return true;
  } finally {
    release();
  }
}

function bring(autolock: Autolock, source: string): void {
  if (autolock.state === 'off')
    throw new InroError('bad_input', 'an unlock key is given for a manager that is not locked', {
      remedy: 'leave --unlock-key (key unlockKey) out, or add --autolock to have its keys wrapped by it',
    });
  const key = unlockKeyFrom(source, autolock.arena);
  try {
    if (autolock.isLocked) autolock.open(key);
    else autolock.lockWith(key);
  } catch (error) {
    key.wipe();
    throw error;
  }
}

/** @returns false when it was stopped before. */
async function unlocked(
  parts: LockedParts,
  stopped: Promise<NodeJS.Signals>,
  service: ServiceManager | undefined,
): Promise<boolean> {
  const over = new AbortController();
  const telling = tellServiceManager(
    service,
    () => ({ text: "locked: type 'inro manager unlock'", isServed: true }),
    over.signal,
  );
  const stop = new AbortController();
  void stopped.then(() => stop.abort());
  try {
    return await untilUnlocked(parts, stop.signal);
  } finally {
    over.abort();
    await telling;
  }
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
