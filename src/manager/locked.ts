/** A manager that is locked: it says so, until somebody brings the unlock key. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { createServer, type Server } from 'node:tls';
import type { Logger } from 'pino';
import type { Clock } from '../model/clock.js';
import { Control } from '../proto/gen/inro/v1/control_pb.js';
import { rpcLimits } from '../rpc/limits.js';
import { listenUnix, type Handlers, type Registration } from '../rpc/server.js';
import type { Autolock } from './autolock.js';
import { readCluster } from './cluster_record.js';
import { openEmbedded } from './embedded.js';
import { expiring } from './expiring.js';
import { managerLimits } from './limits.js';
import { readLockedIdentity, type LockedIdentity } from './locked_identity.js';
import { isLocked, lockService } from './lock_service.js';
import { ClusterView } from './view.js';

/** At once. */
const maxTold = 256;

export interface LockedParts {
  autolock: Autolock;
  stateFolder: string;
  socketPath: string;
  /** HOST:PORT, where agents look for it. */
  listen: string;
  clock: Clock;
  log: Logger;
}

/** For who has claimed its folder. @returns true when it was unlocked, false when it was stopped. @throws socket_taken. */
export async function untilUnlocked(
  { autolock, stateFolder, socketPath, listen, clock, log }: LockedParts,
  signal: AbortSignal,
): Promise<boolean> {
  let unlocked = (): void => undefined;
  const done = new Promise<boolean>((resolve) => {
    unlocked = () => resolve(true);
    if (signal.aborted) resolve(false);
    signal.addEventListener('abort', () => resolve(false), { once: true });
  });
  const services = [lockService({ autolock, log, onUnlocked: unlocked }), lockedControl(stateFolder, clock)];
  const server = await listenUnix(socketPath, services);
  const silence = await sayLocked(stateFolder, listen, log);
  log.warn({ socket: socketPath }, "locked: on this host, type 'inro manager unlock'");
  try {
    return await done;
  } finally {
    await Promise.all([server.stop(managerLimits.stopGraceMs), silence()]);
  }
}

/** To agents: a handshake tells them, by the name in the certificate. @returns ends it. */
async function sayLocked(folder: string, listen: string, log: Logger): Promise<() => Promise<void>> {
  const own = readLockedIdentity(folder);
  if (own === undefined) return async () => undefined;
  const server = tlsServer(own);
  const at = listen.lastIndexOf(':');
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(Number(listen.slice(at + 1)), listen.slice(0, at).replace(/^\[|\]$/g, ''), resolve);
    });
  } catch (error) {
    log.warn({ err: error, listen }, 'agents cannot be told that this manager is locked');
  }
  return () => new Promise((resolve) => server.close(() => resolve()));
}

function tlsServer({ certificatePem: cert, keyPem: key }: LockedIdentity): Server {
  const server = createServer({ cert, key, minVersion: 'TLSv1.3', handshakeTimeout: rpcLimits.handshakeMs });
  server.maxConnections = maxTold;
  server.on('secureConnection', (socket) => socket.destroy());
  server.on('tlsClientError', (_error, socket) => socket.destroy());
  server.on('error', () => undefined);
  return server;
}

/** One call says how things are; every other one why it is not done. */
function lockedControl(stateFolder: string, clock: Clock): Registration {
  const refuse = async (): Promise<never> => {
    throw isLocked();
  };
  const getStatus: Handlers<typeof Control, 'local'>['getStatus'] = async () => {
    const storePath = join(stateFolder, 'store');
    if (!existsSync(storePath)) return { clusterId: '', locked: true, autolock: 'on' };
    const { store } = openEmbedded(stateFolder);
    try {
      const view = await ClusterView.follow(store);
      const { id: clusterId, cas } = await readCluster(store);
      const expiries = expiring(view, cas, { clock, lastSeenMs: () => undefined, isConnected: () => false });
      return { clusterId, locked: true, autolock: 'on', expiries, nodes: view.nodes.size };
    } finally {
      await store.close();
    }
  };
  const handlers = Object.fromEntries(Object.keys(Control.method).map((name) => [name, refuse]));
  return { service: Control, access: 'local', handlers: { ...handlers, getStatus } };
}
