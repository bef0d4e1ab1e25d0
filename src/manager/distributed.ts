/**
 * A manager whose store is etcd, which it shares with others. One of them leads and does all that a manager does; the others wait, and take
 * its place when it ends, or when etcd has not heard of it for a while. What it is depends on no file but these of its folder:
 *
 *   store.key      under which all records in etcd are sealed; all managers of the cluster have the same
 *   exchange.key   its own X25519 key: what changes of the shared keys are sealed to
 */
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { openArena, type Arena } from '../crypto/arena.js';
import { drawKey, exchangeKeyOf, sharedKey } from '../crypto/exchange.js';
import { readKeyFile, writeKeyFile } from '../crypto/key_file.js';
import type { Plaintext } from '../crypto/plaintext.js';
import { recordSealer, type Sealer } from '../crypto/record_box.js';
import type { Clock, Random } from '../model/clock.js';
import { asInroError, InroError } from '../model/error.js';
import { newId } from '../model/id.js';
import { leafOf } from '../pki/chain.js';
import { ManagerBackup } from '../proto/gen/inro/v1/backup_pb.js';
import { Control } from '../proto/gen/inro/v1/control_pb.js';
import { ManagerLock } from '../proto/gen/inro/v1/lock_pb.js';
import { StandingSocket } from '../rpc/standing_socket.js';
import { openEtcdStore, type Fence } from '../store/etcd.js';
import type { EtcdTarget } from '../store/etcd_client.js';
import { EtcdLead, type Term } from '../store/etcd_lead.js';
import type { Store } from '../store/store.js';
import { tables } from '../store/tables.js';
import { transact } from '../store/transaction.js';
import { addon } from '../system/addon.js';
import { claimStateFolder, readFileIfThere } from '../system/files.js';
import { arenaSize } from './arena_size.js';
import type { Autolock } from './autolock.js';
import { waits } from './forward.js';
import { managerLimits } from './limits.js';
import { startManager } from './manager.js';
import { wasRemoved } from './managers.js';
import { installSharedFiles } from './shared_keys.js';
import type { GivenCa, OpenedStore } from './state_folder.js';
import { startStranded, startWaiting } from './waiting.js';

export interface DistributedOptions {
  stateFolder: string;
  /** HOST:PORT, as the others and the nodes reach it. */
  listen: string;
  socketPath: string;
  etcd: EtcdTarget;
  /** What is before every key, such as `/inro/`. */
  prefix: string;
  autolock: Autolock;
  ca?: GivenCa;
  clock: Clock;
  random: Random;
  log: Logger;
}

export interface DistributedManager {
  /** For who looks at the service: what it does just now. */
  readonly doing: string;
  /** Rejects when it cannot go on. */
  readonly failed: Promise<never>;
  stop(): Promise<void>;
}

/** @throws whatever a start of a manager throws; unreachable while etcd does not answer. */
export async function startDistributed(options: DistributedOptions): Promise<DistributedManager> {
  const manager = new Distributed(options);
  try {
    await manager.begin();
    return manager;
  } catch (error) {
    await manager.stop();
    throw error;
  }
}

class Distributed implements DistributedManager {
  readonly #options: DistributedOptions;
  readonly #arena: Arena;
  readonly #release: () => void;
  readonly #over = new AbortController();
  readonly #keys: { store: Plaintext; exchange: Plaintext };
  readonly #sealer: Sealer;
  readonly #ownId: string;
  readonly #isNew: boolean;
  #lead: EtcdLead | undefined;
  #running: Promise<void> = Promise.resolve();
  #doing = 'starting';
  #obstacle: InroError | undefined;
  #endStranded: (() => Promise<void>) | undefined;
  /** There all the time: who asks while it passes from waiting to leading waits, and hears nothing of that. */
  #socket: StandingSocket | undefined;
  readonly failed: Promise<never>;
  #fail: (error: unknown) => void = () => undefined;

  constructor(options: DistributedOptions) {
    const { stateFolder, random } = options;
    this.#options = options;
    addon().forbidDumps();
    this.failed = new Promise<never>((_, reject) => (this.#fail = reject));
    this.failed.catch(() => undefined);
    this.#arena = openArena(arenaSize((bytes) => addon().lockable(bytes)));
    this.#release = claimStateFolder(stateFolder, 'manager');
    try {
      checkNotEmbedded(stateFolder);
      this.#keys = {
        store: ownKey(join(stateFolder, 'store.key'), this.#arena),
        exchange: ownKey(join(stateFolder, 'exchange.key'), this.#arena),
      };
      const own = readFileIfThere(join(stateFolder, 'manager.crt'));
      this.#isNew = own === undefined;
      this.#ownId = own === undefined ? newId(random) : leafOf(own).nodeId;
    } catch (error) {
      this.#release();
      throw error;
    }
    this.#sealer = recordSealer(this.#keys.store);
  }

  get doing(): string {
    return this.#doing;
  }

  async begin(): Promise<void> {
    const { etcd, prefix, listen, socketPath, clock, log } = this.#options;
    if (this.#isNew) await this.#checkNoOther();
    const services = [Control, ManagerLock, ManagerBackup];
    this.#socket = await StandingSocket.open(socketPath, services, () => waits(undefined));
    const self = { id: this.#ownId, address: listen };
    this.#lead = await EtcdLead.join({ ...etcd, prefix, sealer: this.#sealer, self, clock, log });
    await this.#lead.tellBounds();
    let ready = (): void => undefined;
    const serves = new Promise<void>((resolve) => (ready = resolve));
    this.#running = this.#run(this.#lead, ready);
    await Promise.race([serves, this.failed]);
  }

  async stop(): Promise<void> {
    this.#over.abort();
    await this.#running;
    await this.#unstrand();
    await this.#lead?.close();
    await this.#socket?.close(managerLimits.stopGraceMs);
    for (const key of Object.values(this.#keys)) key.wipe();
    this.#release();
  }

  async #run(lead: EtcdLead, ready: () => void): Promise<void> {
    const { clock, log } = this.#options;
    const { signal } = this.#over;
    let hasServed = false;
    const serves = (doing: string): void => {
      this.#doing = doing;
      hasServed = true;
      ready();
    };
    while (!signal.aborted) {
      try {
        const term = (await this.#atOnce(lead)) ?? (await this.#wait(lead, serves));
        if (term !== undefined) await this.#leads(lead, term, serves);
      } catch (thrown) {
        const error = asInroError(thrown);
        if (error.kind === 'fatal' || (!hasServed && error.code !== 'not_leader')) return this.#fail(thrown);
        log.error({ err: error, remedy: error.remedy }, 'this manager does not serve just now; trying again');
        this.#doing = `does not serve: ${error.message}`;
        await this.#strand(error);
        await clock.sleep(managerLimits.distributedRetryMs, signal);
      }
    }
  }

  /** A host that has not joined finds nothing there that it can read. @throws already_exists. */
  async #checkNoOther(): Promise<void> {
    const { etcd, prefix, clock, random } = this.#options;
    try {
      const store = await openEtcdStore({
        ...etcd,
        prefix,
        sealer: this.#sealer,
        isReadOnly: true,
        clock,
        random,
      });
      await store.close();
    } catch (error) {
      if (!(error instanceof InroError) || error.code !== 'store_corrupt') throw error;
      throw new InroError(
        'already_exists',
        `there is a cluster in the etcd at ${etcd.endpoints.join(',')}, below ${prefix}`,
        {
          remedy:
            "to have this host be another manager of it: 'inro token create manager' there, 'inro manager join' here; for another cluster, choose another prefix",
          cause: error,
        },
      );
    }
  }

  /** Says why it does not serve, until it does again. */
  async #strand(error: InroError): Promise<void> {
    this.#obstacle = error;
    if (this.#endStranded !== undefined) return;
    const { stateFolder: folder, listen, autolock, log } = this.#options;
    const socket = this.#operators;
    const why = (): InroError => this.#obstacle ?? error;
    try {
      this.#endStranded = await startStranded({ folder, listen, socket, autolock, why, log });
    } catch (cause) {
      log.warn({ err: cause }, 'nobody can be told why this manager does not serve');
    }
  }

  async #unstrand(): Promise<void> {
    await this.#endStranded?.();
    this.#endStranded = undefined;
  }

  get #operators(): StandingSocket {
    if (this.#socket === undefined) throw new InroError('internal', 'there is no socket yet');
    return this.#socket;
  }

  /** Where nobody leads, so that a first manager need not wait. */
  async #atOnce(lead: EtcdLead): Promise<Term | undefined> {
    if (lead.leader !== undefined) return undefined;
    const { clock } = this.#options;
    const late = new AbortController();
    const timer = clock.timer(managerLimits.leadAtOnceMs, () => late.abort());
    try {
      return await lead.lead(AbortSignal.any([this.#over.signal, late.signal]));
    } finally {
      timer.cancel();
    }
  }

  /** Until it leads. @returns undefined when it is to begin anew. */
  async #wait(lead: EtcdLead, serves: (doing: string) => void): Promise<Term | undefined> {
    const { stateFolder: folder, listen, autolock, clock, random, log } = this.#options;
    const again = new AbortController();
    const leader = (): string | undefined => lead.leader?.address;
    const opened = await this.#open(again);
    // Other keys, other CAs, or no manager any more.
    const concerns = new Set([`${tables.managers.prefix}${this.#ownId}`, `${tables.cluster.prefix}self`]);
    opened.store.watch(({ puts, deletes }) => {
      if ([...puts.map(({ key }) => key), ...deletes].some((key) => concerns.has(key))) again.abort();
    });
    const waiting = await startWaiting({
      folder,
      listen,
      socket: this.#operators,
      opened,
      autolock,
      leader,
      arena: this.#arena,
      clock,
      random,
      log,
    });
    serves(`waits at ${listen}; another manager leads`);
    log.info({ cluster: waiting.clusterId, address: listen, leader: leader() }, 'manager waits');
    try {
      return await lead.lead(AbortSignal.any([this.#over.signal, again.signal]));
    } finally {
      await waiting.stop();
    }
  }

  async #leads(lead: EtcdLead, term: Term, serves: (doing: string) => void): Promise<void> {
    const { stateFolder, listen, socketPath, autolock, ca, clock, random, log } = this.#options;
    const broken = new AbortController();
    const ended = AbortSignal.any([this.#over.signal, term.lost, broken.signal]);
    const exchangeKey = exchangeKeyOf(this.#keys.exchange).publicKey;
    try {
      const manager = await startManager({
        stateFolder,
        listen,
        socketPath,
        autolock,
        ...(ca === undefined ? {} : { ca }),
        leading: {
          open: () => this.#open(broken, { ...term.fence, onBroken: () => broken.abort() }),
          socket: this.#operators,
          arena: this.#arena,
          membership: {
            self: { id: this.#ownId, address: listen, hostname: hostname(), exchangeKey },
            running: () => lead.members,
          },
          isOver: () => term.isOver(),
        },
        clock,
        random,
        log,
      });
      serves(`leads, serves ${manager.address}`);
      if (!ended.aborted) await once(ended, 'abort');
      if (!this.#over.signal.aborted) log.warn('this manager does not lead any more');
      await manager.stop();
    } finally {
      await term.end();
    }
  }

  /** With this folder's shared keys as the store has them. @param again aborts when it is of no use any more. */
  async #open(again: AbortController, fence?: Fence): Promise<OpenedStore> {
    const { etcd, prefix, stateFolder, clock, random } = this.#options;
    const where = `etcd at ${etcd.endpoints.join(',')}, below ${prefix}`;
    const store = await openEtcdStore({
      ...etcd,
      prefix,
      sealer: this.#sealer,
      ...(fence === undefined ? { isReadOnly: true } : { fence }),
      onFailed: () => again.abort(),
      clock,
      random,
    });
    try {
      await this.#install(store, stateFolder, fence !== undefined);
      await this.#unstrand();
      return { store, where, ownId: this.#ownId };
    } catch (error) {
      await store.close();
      throw error;
    }
  }

  async #install(store: Store, folder: string, mayFound: boolean): Promise<void> {
    const { result: managers } = await transact(store, (tx) => tx.list(tables.managers));
    const own = managers.find(({ id }) => id === this.#ownId);
    if (own === undefined) {
      if (managers.length > 0) throw wasRemoved(this.#ownId);
      if (mayFound) return;
      throw new InroError('not_leader', 'another manager founds the cluster just now');
    }
    const shared = sharedWith(folder, this.#keys.exchange, this.#arena);
    try {
      installSharedFiles(folder, own.files, shared, this.#arena);
    } finally {
      shared.wipe();
    }
  }
}

/** By what the cluster's sealing key and this manager's own make of each other. */
function sharedWith(folder: string, exchange: Plaintext, arena: Arena): Plaintext {
  const sealing = readKeyFile(join(folder, 'sealing.key'), arena);
  try {
    return sharedKey(exchangeKeyOf(sealing).publicKey, exchange, arena);
  } finally {
    sealing.wipe();
  }
}

/** Drawn where there is none: of a manager that founds a cluster. */
function ownKey(path: string, arena: Arena): Plaintext {
  if (!existsSync(path)) {
    const key = drawKey(arena);
    try {
      writeKeyFile(path, key, arena);
    } finally {
      key.wipe();
    }
  }
  return readKeyFile(path, arena);
}

function checkNotEmbedded(folder: string): void {
  if (!existsSync(join(folder, 'store'))) return;
  throw new InroError('state_unusable', `the manager in ${folder} has a store of its own there`, {
    remedy: `move that to etcd first: inro manager migrate --state ${folder} --store etcd://...; or leave --store out`,
  });
}
