/** All agents' streams: who is here, who needs to hear of a change, and what the nodes report. */
import { create } from '@bufbuild/protobuf';
import type { Logger } from 'pino';
import { asInroError, InroError } from '../model/error.js';
import { isId } from '../model/id.js';
import { printable } from '../model/name.js';
import { hasEnded, isForward } from '../model/task.js';
import { NodeDescriptionSchema, TaskState } from '../proto/gen/inro/v1/common_pb.js';
import {
  Dispatcher as DispatcherService,
  type Applied,
  type Hello,
  type TaskStatus,
} from '../proto/gen/inro/v1/dispatcher_pb.js';
import type { TaskRecord } from '../proto/gen/inro/v1/records_pb.js';
import { stateOf } from '../proto/task_state.js';
import { serve, type Registration } from '../rpc/server.js';
import { tables } from '../store/tables.js';
import { transact, type Transaction } from '../store/transaction.js';
import type { Clones } from './clones.js';
import { managerLimits } from './limits.js';
import { checkCluster, notAMember } from './member.js';
import { keptDescription } from './node_record.js';
import { Pace } from './pace.js';
import { NodeSession, type NodeSessionParts } from './node_session.js';
import { servesForMs } from './version_lease.js';
import { checkNotRefused, refusedError } from './refuse.js';

export type NodeStatus = 'ready' | 'down' | 'unknown' | 'pending' | 'removing';

export interface DispatcherParts extends Omit<
  NodeSessionParts,
  'onHello' | 'onApplied' | 'onBack' | 'words'
> {
  clones: Clones;
  log: Logger;
}

export class Dispatcher {
  readonly #parts: DispatcherParts;
  readonly #sessions = new Map<string, NodeSession>();
  /** Boot-time ms at which a node whose stream is over was heard last. */
  readonly #heardAtMs = new Map<string, number>();
  /** By node: how often it may come, and how much it may say. */
  readonly #paces = new Map<string, { streams: Pace; words: Pace }>();
  readonly #startedAtMs: number;
  readonly #progress = new Set<() => void>();
  /** Set by the manager: the scheduler wants to know. */
  onNodeReady: (() => void) | undefined;

  constructor(parts: DispatcherParts) {
    this.#parts = parts;
    this.#startedAtMs = parts.clock.boottimeMs();
    parts.view.onChange(({ nodeIds, isOwnNote, hasRefusals }) => {
      if (hasRefusals) this.#endRefused();
      // Each session follows the revision, so that a wait for it ends; most have nothing to send.
      for (const [id, session] of this.#sessions)
        if (nodeIds.has(id) || (this.#progress.size > 0 && !isOwnNote)) session.nudge();
      for (const report of this.#progress) report();
    });
  }

  registration(): Registration {
    return serve(DispatcherService, 'worker', {
      attach: async (channel, { peer }) => {
        const { clusterId, view } = this.#parts;
        checkCluster(peer, clusterId);
        checkNotRefused(view.refusals, peer);
        this.#parts.authority.check(peer.certificate);
        if (!view.nodes.has(peer.nodeId)) throw notAMember(peer);
        const { streams, words } = this.#paceOf(peer.nodeId);
        if (!streams.has(1))
          throw new InroError('rate_limited', `node ${peer.nodeId} comes again too often`, {
            remedy: 'it is tried again by itself',
          });
        const session = new NodeSession(
          {
            ...this.#parts,
            words,
            onHello: (s, hello) => this.#hello(s, hello),
            onApplied: (s, applied) => this.#applied(s, applied),
            onBack: () => this.onNodeReady?.(),
          },
          peer,
          channel,
        );
        session.onProgress = () => this.#report();
        try {
          await session.run();
        } finally {
          this.#gone(session);
        }
      },
    });
  }

  /** Nodes with a live stream that is not silent, and that stay. */
  readyNodes(): string[] {
    return [...this.#sessions.keys()].filter((id) => this.statusOf(id) === 'ready');
  }

  session(nodeId: string): NodeSession | undefined {
    return this.#sessions.get(nodeId);
  }

  statusOf(nodeId: string): NodeStatus {
    const node = this.#parts.view.nodes.get(nodeId);
    if ((node?.pendingUntilMs ?? 0n) > 0n) return 'pending';
    return (node?.removingMs ?? 0n) > 0n ? 'removing' : this.contactWith(nodeId);
  }

  /** How it stands with what it says, whatever operators have decided on it. */
  contactWith(nodeId: string): 'ready' | 'down' | 'unknown' {
    const now = this.#parts.clock.boottimeMs();
    const period = managerLimits.heartbeatPeriodMs;
    const heardAtMs = this.#sessions.get(nodeId)?.heardAtMs ?? this.#heardAtMs.get(nodeId);
    if (heardAtMs === undefined)
      return now - this.#startedAtMs < period * managerLimits.missedBeatsAfterStart ? 'unknown' : 'down';
    return now - heardAtMs <= period * managerLimits.missedBeats ? 'ready' : 'down';
  }

  /** Boot-time ms after which the node serves nothing any more unless it is heard again, but for values with a longer lease. */
  leaseEndsAtMs(nodeId: string): number {
    return this.#lastHeardMs(nodeId) + managerLimits.leaseMs + managerLimits.leaseDriftMs;
  }

  #lastHeardMs(nodeId: string): number {
    // An earlier manager has answered it last before this one was started.
    return this.#sessions.get(nodeId)?.heardAtMs ?? this.#heardAtMs.get(nodeId) ?? this.#startedAtMs;
  }

  /** Boot-time ms after which a holder of this version serves it no more unless it is heard again; a removed one never is. */
  holdsUntilMs(nodeId: string, secretId: string, version: number): number {
    const { view, ledger } = this.#parts;
    const holder = view.holders.get(nodeId, secretId, version);
    if (holder !== undefined && holder.removedUntilMs > 0n) return ledger.removedEndsMs(holder);
    return this.#lastHeardMs(nodeId) + servesForMs(view.version(secretId, version) ?? holder);
  }

  /** The same in ms since 1970. */
  heldUntilMs(nodeId: string, secretId: string, version: number): number {
    const { clock } = this.#parts;
    return clock.now() + this.holdsUntilMs(nodeId, secretId, version) - clock.boottimeMs();
  }

  /** Nodes that may serve this version now. */
  holdersOf(secretId: string, version: number): string[] {
    const now = this.#parts.clock.boottimeMs();
    return this.#parts.view.holders
      .of(secretId, version)
      .filter((id) => now < this.holdsUntilMs(id, secretId, version));
  }

  /** Wall-clock ms at which the node was heard last since this manager started. */
  lastSeenMs(nodeId: string): number | undefined {
    const { clock } = this.#parts;
    const heardAtMs = this.#sessions.get(nodeId)?.heardAtMs ?? this.#heardAtMs.get(nodeId);
    return heardAtMs === undefined ? undefined : Math.round(clock.now() - (clock.boottimeMs() - heardAtMs));
  }

  /** Calls back whenever a node may have come further. Returns how to stop. */
  onProgress(report: () => void): () => void {
    this.#progress.add(report);
    return () => this.#progress.delete(report);
  }

  /** The CAs have changed: whose certificate is not accepted any more goes, the others hear of it. */
  casChanged(): void {
    for (const session of this.#sessions.values()) {
      try {
        this.#parts.authority.check(session.certificate);
        session.tellRoots({ renew: false });
      } catch (error) {
        session.close(asInroError(error));
      }
    }
  }

  /** Who does not take what is sent to it may come back, and is told everything anew. */
  dropSlow(): void {
    for (const [nodeId, session] of this.#sessions) {
      if (session.lagMs < managerLimits.takeMs || session.closed.aborted) continue;
      this.#parts.log.warn({ node: nodeId }, 'node does not take what is sent to it; its stream ends');
      const seconds = managerLimits.takeMs / 1_000;
      session.close(
        new InroError('unreachable', `node ${nodeId} has not taken what it was sent for ${seconds} s`, {
          remedy: 'it is tried again by itself',
        }),
      );
    }
  }

  stop(): void {
    for (const session of this.#sessions.values()) session.close();
  }

  /** A certificate that is refused from now on is refused to streams that it has opened, too. */
  #endRefused(): void {
    for (const session of this.#sessions.values()) {
      const record = this.#parts.view.refusals.of(session.certificate);
      if (record !== undefined) session.close(refusedError(record));
    }
  }

  #report(): void {
    for (const report of this.#progress) report();
  }

  async #hello(session: NodeSession, hello: Hello): Promise<void> {
    const { store, clock, clones, log } = this.#parts;
    const { nodeId, address } = session;
    const { hostname = '' } = hello.description === undefined ? {} : keptDescription(hello.description);
    const bootId = printable(hello.bootId, managerLimits.maxDescriptionChars);
    const other = { address, hostname, bootId };
    for (let older = this.#sessions.get(nodeId); older !== undefined; older = this.#sessions.get(nodeId)) {
      await clones.admit(older, session, other);
      if (this.#sessions.get(nodeId) !== older) continue; // others were faster
      this.#replace(older, session);
      break;
    }
    // In the step that saw its place free: nobody else gets it.
    this.#sessions.set(nodeId, session);
    await transact(store, async (tx) => {
      const node = await tx.get(tables.nodes, nodeId);
      if (node === undefined) throw new InroError('not_permitted', `node ${nodeId} was removed`);
      clones.noteUse(node, session, other);
      node.usedCa = this.#parts.authority.signerOf(session.certificate) ?? node.usedCa;
      node.uncollected = false;
      if (hello.description !== undefined)
        node.description = create(NodeDescriptionSchema, keptDescription(hello.description));
      node.lastSeenMs = BigInt(clock.now());
      node.address = address;
      tx.put(tables.nodes, node.id, node);
    });
    log.info(
      {
        node: session.nodeId,
        address: session.address,
        hostname: this.#parts.view.nodes.get(session.nodeId)?.description?.hostname,
      },
      'node is ready',
    );
    this.onNodeReady?.();
  }

  #replace(older: NodeSession, newer: NodeSession): void {
    const { nodeId, address } = newer;
    this.#parts.log.warn(
      { node: nodeId, was: older.address, now: address },
      'a newer stream of this node replaces one that does not answer',
    );
    older.close(
      new InroError(
        'conflict',
        `another stream of node ${nodeId} took the place of this one, which did not answer, from ${address}`,
        {
          remedy:
            'if no other agent was started here, another host uses a copy of this identity: join one of them again',
        },
      ),
    );
  }

  #paceOf(nodeId: string): { streams: Pace; words: Pace } {
    const { clock } = this.#parts;
    const known = this.#paces.get(nodeId) ?? {
      streams: new Pace(clock, managerLimits.streamPace),
      words: new Pace(clock, managerLimits.wordsPace),
    };
    this.#paces.set(nodeId, known);
    return known;
  }

  #gone(session: NodeSession): void {
    if (this.#parts.view.nodes.has(session.nodeId)) this.#heardAtMs.set(session.nodeId, session.heardAtMs);
    else for (const known of [this.#heardAtMs, this.#paces]) known.delete(session.nodeId);
    if (this.#sessions.get(session.nodeId) !== session) return;
    this.#sessions.delete(session.nodeId);
    this.#parts.log.info({ node: session.nodeId }, 'the stream of this node is over');
    this.#report();
  }

  /** A node speaks for its own tasks only; states go forward only. */
  async #applied(session: NodeSession, { revision, tasks }: Applied): Promise<void> {
    const { store, view, clock, log } = this.#parts;
    const gone = view
      .tasksOfNode(session.nodeId)
      .filter((task) => isToEnd(task) && session.isRidOf(task.id, Number(revision)));
    if (tasks.length + gone.length === 0) return;
    await transact(store, async (tx) => {
      const change = (task: TaskRecord, state: TaskState, error: string, exitCode?: number): void => {
        const ended = exitCode === undefined ? {} : { exitCode };
        const now = BigInt(clock.now());
        tx.put(tables.tasks, task.id, Object.assign(task, { state, error, updatedMs: now, ...ended }));
      };
      for (const status of tasks) {
        const task = isId(status.taskId) ? await tx.get(tables.tasks, status.taskId) : undefined;
        if (task === undefined) continue; // removed meanwhile, with its service
        if (task.nodeId !== session.nodeId) {
          log.warn(
            { node: session.nodeId, task: task.id },
            'a node reports on a task of another node; ignored',
          );
          continue;
        }
        // Why it was to end is the manager's to say.
        const why = status.state === TaskState.SHUTDOWN ? task.error : '';
        const error = printable(status.error, managerLimits.maxErrorChars) || why;
        if (isNews(task, status)) change(task, status.state, error, status.exitCode);
        takeOutcome(tx, task, status);
      }
      // A node that was away, or started anew, never says that a task it should not have has ended.
      for (const { id } of gone) {
        const task = await tx.get(tables.tasks, id);
        if (task !== undefined && isToEnd(task)) change(task, TaskState.SHUTDOWN, task.error);
      }
    });
  }
}

function isToEnd(task: TaskRecord): boolean {
  return task.desiredState === TaskState.SHUTDOWN && !hasEnded(stateOf(task.state));
}

/** What is older than what is known was told by a stream before. */
function takeOutcome(tx: Transaction, task: TaskRecord, { change }: TaskStatus): void {
  if (change === undefined || change.atMs <= (task.change?.atMs ?? 0n)) return;
  const { atMs } = change;
  const action = printable(change.action, managerLimits.maxErrorChars);
  const error = printable(change.error, managerLimits.maxErrorChars);
  tx.put(tables.tasks, task.id, Object.assign(task, { change: { ...change, action, error, atMs } }));
}

function isNews(task: { state: TaskState }, status: TaskStatus): boolean {
  if (status.state === TaskState.UNSPECIFIED || !(status.state in TaskState)) return false;
  return task.state !== status.state && isForward(stateOf(task.state), stateOf(status.state));
}
