/** The manager: opens its state, puts its parts together, serves. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Logger } from 'pino';
import { openArena, type Arena } from '../crypto/arena.js';
import type { Clock, Random } from '../model/clock.js';
import { newId } from '../model/id.js';
import { parseJoinToken, type JoinToken } from '../pki/join_token.js';
import { sealingNameOf } from '../pki/sealing_name.js';
import type { SealingKeySchema } from '../proto/gen/inro/v1/common_pb.js';
import type { Peer } from '../rpc/peer.js';
import { listenTls, listenUnix } from '../rpc/server.js';
import type { StandingSocket } from '../rpc/standing_socket.js';
import { notLeader } from '../store/etcd.js';
import { addon } from '../system/addon.js';
import { claimStateFolder } from '../system/files.js';
import { Admission } from './admission.js';
import { arenaSize } from './arena_size.js';
import { AuditBook } from './audit_book.js';
import { Autolock } from './autolock.js';
import { backupService } from './backup_service.js';
import { watchCaEnd } from './ca_end.js';
import { CaRotation } from './ca_rotation.js';
import { certificateLifetimeMs, readCluster } from './cluster_record.js';
import { control } from './control.js';
import { ManagerCore } from './core.js';
import { DataKey } from './data_key.js';
import { openEmbedded } from './embedded.js';
import { EventBook } from './event_book.js';
import { enrollment } from './enrollment.js';
import { JoinGuard } from './join_guard.js';
import { dropLockedIdentity, keepLockedIdentity } from './locked_identity.js';
import { managerLimits } from './limits.js';
import { isLocked, lockService } from './lock_service.js';
import { admitManager } from './manager_admission.js';
import { Managers, type Membership } from './managers.js';
import { OwnCertificate } from './own_certificate.js';
import { checkNotRefused } from './refuse.js';
import { renewal } from './renewal.js';
import { SeenBook } from './seen_book.js';
import { openManagerState, type GivenCa, type ManagerState, type OpenedStore } from './state_folder.js';
import { Sweeper } from './sweeper.js';
import { ValueExpiry } from './value_expiry.js';
import { ClusterView } from './view.js';

export interface ManagerOptions {
  stateFolder: string;
  /** HOST:PORT; port 0 takes a free one. */
  listen: string;
  socketPath: string;
  /** Opened, if it is locked. Without one its keys lie there as they are. */
  autolock?: Autolock;
  /** A CA to found the cluster with, instead of one that inro makes. */
  ca?: GivenCa;
  /** While this manager leads the several ones of a distributed store; without it the store is in the folder. */
  leading?: Leading;
  clock: Clock;
  random: Random;
  log: Logger;
}

export interface Leading {
  open: () => Promise<OpenedStore>;
  /** Instead of one of its own at socketPath. */
  socket: StandingSocket;
  arena: Arena;
  membership: Membership;
  /** Whether another one may lead by now: then nothing is answered. */
  isOver: () => boolean;
}

export interface RunningManager {
  clusterId: string;
  /** HOST:PORT as bound. */
  address: string;
  joinToken(): Promise<string>;
  stop(): Promise<void>;
}

/** @throws port_taken, socket_taken, state_unusable, store_corrupt, already_running, bad_input. */
export async function startManager({
  stateFolder,
  listen,
  socketPath,
  autolock = new Autolock(stateFolder, false),
  ca,
  leading,
  clock,
  random,
  log,
}: ManagerOptions): Promise<RunningManager> {
  addon().forbidDumps();
  if (autolock.isLocked) throw isLocked();
  const release = leading === undefined ? claimStateFolder(stateFolder, 'manager') : () => undefined;
  const arena = leading?.arena ?? openArena(arenaSize((bytes) => addon().lockable(bytes)));
  const { locked, note } = arena.facts();
  if (!locked) log.warn({ why: note }, 'keys may be swapped out: this user may not lock memory');
  const surroundings = { arena, clock, random, log };
  let state: ManagerState;
  try {
    const opened = leading === undefined ? openEmbedded(stateFolder) : await leading.open();
    state = await openManagerState(stateFolder, surroundings, opened, ca);
  } catch (error) {
    release();
    throw error;
  }
  const { cluster, authority, external, keyring, store, certificatePem, keyPem, isNew } = state;
  const undo: (() => Promise<void>)[] = [
    async () => release(),
    async () => {
      external?.close();
      keyring.wipe();
      await store.close();
    },
  ];
  const stop = async (): Promise<void> => {
    for (const step of undo.splice(0).reverse()) {
      // One that leads no more cannot write what it would note at its end.
      await step().catch((error: unknown) =>
        log.warn({ err: error }, 'the manager does not end as it should'),
      );
    }
  };
  try {
    const view = await ClusterView.follow(store);
    const clusterId = cluster.id;
    const publicKey = keyring.sealingPublicKey;
    let ownPem = certificatePem;
    const sealingKey = (): MessageInitShape<typeof SealingKeySchema> => ({
      clusterId,
      publicKey,
      certificatePem: ownPem,
    });
    const workerToken = async (): Promise<JoinToken> => {
      const { sealedWorkerToken } = await readCluster(store);
      return parseJoinToken(keyring.readText(sealedWorkerToken));
    };
    let address = '';
    const audit = new AuditBook({ clusterId, store, clock, log });
    undo.push(() => audit.stop());
    const isOver = leading?.isOver ?? (() => false);
    const managers = new Managers({
      folder: stateFolder,
      arena,
      keyring,
      store,
      view,
      clock,
      log,
      membership: leading?.membership,
    });
    await managers.enter();
    const publish = (): Promise<void> => managers.publish();
    const shared = {
      clusterId,
      authority,
      store,
      view,
      keyring,
      audit,
      clock,
      random,
      log,
      sealingKey,
      managers,
      publish,
      isOver,
    };
    const core = await ManagerCore.open({
      ...shared,
      managerAddresses: () => managers.addresses(address),
    });
    undo.push(() => core.stop());
    core.watchNodes();
    const { clones, dispatcher, ledger, nodeStates, scheduler, removal } = core;
    const events = await EventBook.open({
      store,
      clock,
      statuses: () => new Map([...view.nodes.keys()].map((id) => [id, dispatcher.statusOf(id)])),
    });
    const watchingNodes = events.watchNodes();
    undo.push(async () => {
      events.stop();
      await watchingNodes;
    });
    const dataKey = new DataKey({ ...shared, folder: stateFolder, arena });
    undo.push(() => dataKey.stop());
    const expiry = new ValueExpiry({ ...shared, events });
    undo.push(() => expiry.stop());
    const seen = new SeenBook({ store, view, dispatcher, clock, log });
    undo.push(() => seen.stop());
    const guard = new JoinGuard(clock);
    const admission = new Admission({ ...shared, guard });
    undo.push(() => admission.stop());
    await removal.finishAll();
    const sweeper = new Sweeper({ ...shared, ledger });
    undo.push(() => sweeper.stop());
    let onCasChanged = async (): Promise<void> => undefined;
    const rotation = new CaRotation({
      ...shared,
      folder: stateFolder,
      dispatcher,
      deadlineMs: Number(cluster.rotationDeadlineMs),
      onChanged: () => onCasChanged(),
    });
    undo.push(() => rotation.stop());
    const service = control({
      ...shared,
      dispatcher,
      nodeStates,
      guard,
      removal,
      clones,
      rotation,
      events,
      runId: newId(random),
      autolock,
      dataKey,
      startedMs: clock.now(),
      externalCas: () => external?.states ?? [],
      managerAddresses: () => managers.addresses(address),
      createdMs: Number(cluster.createdMs),
      workerToken,
    });
    const identity = { folder: stateFolder, authority, clock, random, log };
    const keepLocked = async (): Promise<void> => {
      if (autolock.state === 'on') await keepLockedIdentity(identity);
      else dropLockedIdentity(stateFolder);
    };
    await keepLocked();
    const lock = lockService({ autolock, log, audit, onKeySet: keepLocked });
    const { keyIn } = lock;
    const backup = backupService({ ...shared, folder: stateFolder, autolock, keyIn });
    const stillLeads = (): void => {
      if (isOver()) throw notLeader();
    };
    const locally = [service, lock, backup];
    const admit = (peer: Peer): Peer => {
      stillLeads();
      return peer;
    };
    const operators =
      leading === undefined ? await listenUnix(socketPath, locally) : leading.socket.serve(locally, admit);
    undo.push(() => operators.stop(managerLimits.stopGraceMs));
    const nodes = await listenTls(
      listen,
      { rootPem: authority.everyRootPem, certificatePem, keyPem },
      [
        enrollment({
          authority,
          admission,
          admitManager: (request, from) => admitManager({ ...shared, guard }, request, from),
        }),
        dispatcher.registration(),
        renewal({ authority, store, clock, log }),
        service,
      ],
      (peer) => {
        stillLeads();
        checkNotRefused(view.refusals, peer);
        authority.checkPeer(peer);
        if (peer.kind !== 'node' || peer.role !== 'manager' || peer.clusterId !== clusterId) return peer;
        const { nodeId, address: from } = peer;
        return view.managers.has(nodeId) ? { kind: 'local', through: { nodeId, address: from } } : peer;
      },
    );
    const over = new AbortController();
    const own = new OwnCertificate({
      folder: stateFolder,
      authority,
      lifetimeMs: async () => certificateLifetimeMs(await readCluster(store)),
      sealingName: sealingNameOf(clusterId, publicKey),
      certificatePem,
      show: (next) => {
        nodes.showAs(next);
        ownPem = next.certificatePem;
        void keepLocked();
      },
      clock,
      random,
      log,
    });
    const keeping = own.keep(over.signal);
    const watching = watchCaEnd(shared, over.signal);
    const noting = managers.keepAddresses(over.signal);
    onCasChanged = async () => {
      nodes.believe(authority.everyRootPem);
      await own.renew();
      dispatcher.casChanged();
    };
    undo.push(async () => {
      over.abort();
      await Promise.all([keeping, watching, noting]);
      dispatcher.stop();
      await nodes.stop(managerLimits.stopGraceMs);
    });
    address = `${listen.slice(0, listen.lastIndexOf(':'))}:${nodes.port}`;
    scheduler.reconcile(view.services.keys());
    log.info({ cluster: clusterId, address, socket: socketPath, new: isNew }, 'manager is ready');
    return { clusterId, address, joinToken: async () => (await workerToken()).reveal(), stop };
  } catch (error) {
    await stop();
    throw error;
  }
}
