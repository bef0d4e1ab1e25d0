/** A manager that waits while another one leads: it says which, and hands on what operators of its own host ask for. */
import { join } from 'node:path';
import type { Arena } from '../crypto/arena.js';
import { readPrivateFile } from '../crypto/at_rest.js';
import type { Clock, Random } from '../model/clock.js';
import { InroError } from '../model/error.js';
import type { Logger } from 'pino';
import { ManagerBackup } from '../proto/gen/inro/v1/backup_pb.js';
import { Control } from '../proto/gen/inro/v1/control_pb.js';
import { Dispatcher } from '../proto/gen/inro/v1/dispatcher_pb.js';
import { Enrollment, Renewal } from '../proto/gen/inro/v1/enrollment_pb.js';
import { connectTls, type Connection } from '../rpc/client.js';
import type { Service } from '../rpc/definition.js';
import { rpcLimits } from '../rpc/limits.js';
import { listenTls, type Registration } from '../rpc/server.js';
import type { StandingSocket } from '../rpc/standing_socket.js';
import { nodeCredentials } from '../rpc/tls.js';
import { sealingNameOf } from '../pki/sealing_name.js';
import { readFileIfThere } from '../system/files.js';
import type { Autolock } from './autolock.js';
import { certificateLifetimeMs, readCluster } from './cluster_record.js';
import { rootTeller } from './enrollment.js';
import { Forward, waits } from './forward.js';
import { managerLimits } from './limits.js';
import { dropLockedIdentity, keepLockedIdentity } from './locked_identity.js';
import { lockService } from './lock_service.js';
import { OwnCertificate } from './own_certificate.js';
import { openManagerState, type OpenedStore } from './state_folder.js';

export interface WaitingParts {
  folder: string;
  listen: string;
  /** Where operators of this host ask. */
  socket: StandingSocket;
  opened: OpenedStore;
  autolock: Autolock;
  /** HOST:PORT of the one that leads; undefined while there is none. */
  leader: () => string | undefined;
  arena: Arena;
  clock: Clock;
  random: Random;
  log: Logger;
}

export interface WaitingManager {
  clusterId: string;
  stop(): Promise<void>;
}

/** @throws as openManagerState and listenTls. */
export async function startWaiting(parts: WaitingParts): Promise<WaitingManager> {
  const { folder, listen, socket, opened, autolock, leader, arena, clock, random, log } = parts;
  const state = await openManagerState(folder, { arena, clock, random, log }, opened);
  const { cluster, authority, external, keyring, store, certificatePem, keyPem } = state;
  const undo: (() => Promise<void>)[] = [
    async () => {
      external?.close();
      keyring.wipe();
      await store.close();
    },
  ];
  const stop = async (): Promise<void> => {
    for (const step of undo.splice(0).reverse()) await step();
  };
  try {
    let own = { certificatePem, keyPem };
    const reach = (address: string): Connection =>
      connectTls(
        address,
        nodeCredentials({ rootPem: authority.everyRootPem, ...own }),
        rpcLimits.maxOperatorMessageBytes,
      );
    const forward = new Forward(leader, reach, log);
    undo.push(async () => forward.close());
    const identity = { folder, authority, clock, random, log };
    const keepLocked = async (): Promise<void> => {
      if (autolock.state === 'on') await keepLockedIdentity(identity);
      else dropLockedIdentity(folder);
    };
    await keepLocked();
    const refuse = async (): Promise<never> => {
      throw waits(leader());
    };
    const operators = socket.serve([
      forward.registration(),
      lockService({ autolock, log, audit: forward, onKeySet: keepLocked }),
      refusing(ManagerBackup, 'local', refuse),
    ]);
    undo.push(() => operators.stop(managerLimits.stopGraceMs));
    const enrolment = refusing(Enrollment, 'anyone', refuse);
    const nodes = await listenTls(listen, { rootPem: authority.everyRootPem, certificatePem, keyPem }, [
      { ...enrolment, handlers: { ...enrolment.handlers, getRoot: rootTeller(authority) } },
      ...[Dispatcher, Renewal, Control].map((service) => refusing(service, 'anyone', refuse)),
    ]);
    undo.push(() => nodes.stop(managerLimits.stopGraceMs));
    const over = new AbortController();
    const certificate = new OwnCertificate({
      folder,
      authority,
      lifetimeMs: async () => certificateLifetimeMs(await readCluster(store)),
      sealingName: sealingNameOf(cluster.id, keyring.sealingPublicKey),
      certificatePem,
      show: (next) => {
        own = next;
        nodes.showAs(next);
        forward.close();
      },
      clock,
      random,
      log,
    });
    const keeping = certificate.keep(over.signal);
    undo.push(async () => {
      over.abort();
      await keeping;
    });
    return { clusterId: cluster.id, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

export interface StrandedParts {
  folder: string;
  listen: string;
  socket: StandingSocket;
  autolock: Autolock;
  /** What keeps it from serving. */
  why: () => InroError;
  log: Logger;
}

/** A manager whose store does not answer: it says so to whoever asks. @returns ends it. */
export async function startStranded(parts: StrandedParts): Promise<() => Promise<void>> {
  const { folder, listen, socket, autolock, why, log } = parts;
  const refuse = async (): Promise<never> => {
    const { message, remedy } = why();
    const rest = remedy === undefined ? {} : { remedy };
    throw new InroError('not_leader', `this manager serves nothing just now: ${message}`, rest);
  };
  const operators = socket.serve([
    refusing(Control, 'local', refuse),
    lockService({ autolock, log }),
    refusing(ManagerBackup, 'local', refuse),
  ]);
  const stopping = [operators];
  try {
    const [certificatePem, rootPem] = ['manager.crt', 'ca.crt'].map((name) =>
      readFileIfThere(join(folder, name)),
    );
    const keyPem = readPrivateFile(join(folder, 'manager.key'));
    if (certificatePem !== undefined && rootPem !== undefined && keyPem !== undefined) {
      const services = [Enrollment, Dispatcher, Renewal, Control];
      const registrations = services.map((service) => refusing(service, 'anyone', refuse));
      stopping.push(await listenTls(listen, { rootPem, certificatePem, keyPem }, registrations));
    }
  } catch (error) {
    log.warn({ err: error, listen }, 'agents cannot be told that this manager does not serve');
  }
  return async () => {
    await Promise.all(stopping.map((one) => one.stop(managerLimits.stopGraceMs)));
  };
}

function refusing(
  service: Service,
  access: Registration['access'],
  refuse: () => Promise<never>,
): Registration {
  return {
    service,
    access,
    handlers: Object.fromEntries(Object.keys(service.method).map((name) => [name, refuse])),
  };
}
