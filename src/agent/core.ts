/**
 * What an agent is on any host: tasks, values, lease and receipts, and the session with a manager that keeps them true. Mount,
 * certificates, containers and sockets are its surroundings, and come in.
 */
import type { Logger } from 'pino';
import type { Arena } from '../crypto/arena.js';
import type { Clock, Random } from '../model/clock.js';
import type { InroError } from '../model/error.js';
import type { TrustedRoots, Welcome } from '../proto/gen/inro/v1/dispatcher_pb.js';
import type { CountBatches } from './access/count_batches.js';
import type { AgentChannel } from './channel.js';
import type { Description } from './describe.js';
import { HostTasks } from './host_tasks.js';
import type { Identity } from './identity.js';
import { Lease } from './lease.js';
import { agentLimits } from './limits.js';
import type { MountDriver } from './mount/driver.js';
import type { Inheritance } from './mount/inheritance.js';
import { Receipts } from './receipts.js';
import { Session } from './session.js';
import { attach } from './stream.js';
import { Vault } from './vault.js';
import type { Attachments } from './workloads/attachments.js';

export interface CoreParts {
  /** Its ids. */
  node: Pick<Identity, 'nodeId' | 'clusterId'>;
  /** Of this run of the agent. */
  runId: string;
  arena: Arena;
  driver: MountDriver;
  attachments: Attachments;
  /** The receipts that wait, where a successor finds them; and what a predecessor has left there. */
  notes: { keep: (note: Uint8Array) => void; left: Uint8Array };
  managers: () => readonly string[];
  /** Opens a stream, and says under which identity. */
  open: (manager: string) => { channel: AgentChannel; identity: Identity };
  counts: () => Pick<CountBatches, 'current' | 'taken'>;
  describe: () => Promise<Description>;
  onWelcome: (welcome: Welcome, identity: Identity) => void;
  /** @throws unauthenticated, bad_certificate, state_unusable. */
  onRoots: (roots: TrustedRoots) => void;
  /** A whole assignment has been applied. */
  onApplied: () => void;
  /** Why no manager need be asked at present. */
  obstacle: () => InroError | undefined;
  /** A try has failed. True when the next one differs in what may have been the reason. */
  onFailed: (identity: Identity, error: InroError) => boolean;
  clock: Clock;
  random: Random;
  log: Logger;
}

export class AgentCore {
  readonly receipts: Receipts;
  readonly vault: Vault;
  readonly lease: Lease;
  readonly tasks: HostTasks;
  readonly session: Session;
  readonly #parts: CoreParts;
  /** It may have values whose lease is over already. */
  #hasInherited = false;

  constructor(parts: CoreParts) {
    this.#parts = parts;
    const { node, runId, arena, driver, attachments, notes, clock, random, log } = parts;
    const { clusterId } = node;
    this.receipts = new Receipts({ identity: node, runId, keepNote: notes.keep, left: notes.left });
    this.vault = new Vault(arena, clock, (wiped) => this.receipts.add(wiped));
    this.lease = new Lease(clock, (deadlineMs) => driver.serveUntil(deadlineMs));
    this.tasks = new HostTasks({ vault: this.vault, driver, attachments, clock, log, clusterId });
    this.session = this.#openSession({ clock, random, log });
  }

  /** Goes on where a predecessor was. @param servedUntilMs its deadline, ms of CLOCK_BOOTTIME. */
  inherit(servedUntilMs: number, inheritance: Inheritance): void {
    this.lease.inherit(servedUntilMs);
    this.tasks.inherit(inheritance);
    this.#hasInherited = true;
  }

  /** Until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    await Promise.all([this.session.run(signal), this.#watchLease(signal)]);
  }

  #openSession(surroundings: Pick<CoreParts, 'clock' | 'random' | 'log'>): Session {
    const { arena, managers, open, obstacle, counts, describe, onRoots, onFailed, ...told } = this.#parts;
    const { vault, tasks, lease, receipts } = this;
    /** Of the present stream. */
    let identity: Identity;
    const session: Session = new Session({
      managers,
      open: (manager) => {
        const opened = open(manager);
        ({ identity } = opened);
        return opened.channel;
      },
      attach: (channel, onWelcome) => {
        const shown = identity;
        return attach(channel, {
          identity: shown,
          arena,
          vault,
          tasks,
          lease,
          receipts,
          counts: counts(),
          describe,
          onWelcome: (welcome) => {
            told.onWelcome(welcome, shown);
            onWelcome();
          },
          onRoots,
          onApplied: (revision) => {
            session.applied(revision);
            told.onApplied();
          },
          ...surroundings,
        });
      },
      obstacle,
      onFailed: (error) => onFailed(identity, error),
      onExpelled: () => {
        lease.end();
        tasks.wipeAll('removed');
      },
      ...surroundings,
    });
    return session;
  }

  /** Past its lease the node wipes, whatever else is going on. */
  async #watchLease(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#parts;
    const { lease, tasks, session } = this;
    let held = this.#hasInherited;
    while (!signal.aborted) {
      const holds = lease.holds();
      const isOver = held && !holds;
      const wiped = tasks.wipeExpired(lease.deadlineMs);
      if (isOver) log.error('the lease is over: what it was for is wiped until a manager is heard again');
      else if (wiped.length > 0)
        log.error(
          { values: wiped.slice(0, 10), count: wiped.length },
          'the lease of values is over: they are wiped',
        );
      // What was wiped comes back with a complete assignment only.
      if (isOver || wiped.length > 0) session.reconnect();
      held = holds;
      await clock.sleep(agentLimits.leaseCheckMs, signal);
    }
  }
}
