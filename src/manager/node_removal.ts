/**
 * Removing a node. First it is told to have nothing, and has some time to wipe and to say so; then, in one commit, its records
 * go and its certificates are refused, which ends its streams. A removal that a manager's end cut off is finished at its start.
 */
import { create } from '@bufbuild/protobuf';
import type { Logger } from 'pino';
import type { Clock } from '../model/clock.js';
import { InroError } from '../model/error.js';
import { hasEnded } from '../model/task.js';
import { TaskState } from '../proto/gen/inro/v1/common_pb.js';
import { RefusedRecordSchema, type NodeRecord } from '../proto/gen/inro/v1/records_pb.js';
import { stateOf } from '../proto/task_state.js';
import type { Store } from '../store/store.js';
import { readKey, tables } from '../store/tables.js';
import { transact, type Transaction } from '../store/transaction.js';
import type { Dispatcher } from './dispatcher.js';
import type { Ledger } from './ledger.js';
import type { NeededVersion } from './assignment.js';
import { managerLimits } from './limits.js';
import { neverComesMs } from './version_lease.js';
import type { ClusterView } from './view.js';
import { waitUntil } from './wait_until.js';

export interface NodeRemovalParts {
  store: Store;
  view: ClusterView;
  ledger: Ledger;
  dispatcher: Dispatcher;
  clock: Clock;
  log: Logger;
}

export interface Removed {
  id: string;
  hostname: string;
  tasks: number;
  versions: number;
  wiped: number;
  /** 0: it serves nothing any more. */
  leaseEndsMs: bigint;
}

export class NodeRemoval {
  readonly #parts: NodeRemovalParts;

  constructor(parts: NodeRemovalParts) {
    this.#parts = parts;
  }

  /** @throws not_found when somebody else was faster; store_full. */
  async remove(
    { id }: NodeRecord,
    { waitMs, signal }: { waitMs: number; signal: AbortSignal },
  ): Promise<Removed> {
    const { view, dispatcher, clock } = this.#parts;
    const { tasks, revision } = await this.#begin(id);
    const versions = view.holders.ofNode(id).length;
    const isDone = (): boolean => {
      const session = dispatcher.session(id);
      if (session === undefined)
        return dispatcher.contactWith(id) === 'down' || view.holders.ofNode(id).length === 0;
      return session.appliedRevision >= revision && view.holders.ofNode(id).length === 0;
    };
    if (waitMs > 0)
      await waitUntil(isDone, (look) => dispatcher.onProgress(look), { clock, timeoutMs: waitMs, signal });
    const { missing, ...removed } = await this.#finish(id);
    return { ...removed, tasks, versions, wiped: Math.max(0, versions - missing) };
  }

  /** What an earlier manager has begun. */
  async finishAll(): Promise<void> {
    const begun = [...this.#parts.view.nodes.values()].filter(({ removingMs }) => removingMs > 0n);
    for (const { id } of begun) await this.#finish(id);
  }

  /** Its tasks are to end, and others take their slots elsewhere. */
  async #begin(nodeId: string): Promise<{ tasks: number; revision: number }> {
    const { store, view, clock, log } = this.#parts;
    const now = BigInt(clock.now());
    const { result: tasks, revision } = await transact(store, async (tx) => {
      const node = await tx.get(tables.nodes, nodeId);
      if (node === undefined) throw gone(nodeId);
      if (node.removingMs === 0n) tx.put(tables.nodes, nodeId, Object.assign(node, { removingMs: now }));
      return this.#endTasks(tx, nodeId, TaskState.UNSPECIFIED);
    });
    log.info(
      { node: nodeId, hostname: view.nodes.get(nodeId)?.description?.hostname },
      'node is being removed',
    );
    return { tasks, revision };
  }

  /** @param state that they are in from now on; unspecified: as the node will say. @returns how many there were. */
  async #endTasks(tx: Transaction, nodeId: string, state: TaskState): Promise<number> {
    const { view, clock } = this.#parts;
    let count = 0;
    for (const { id } of view.tasksOfNode(nodeId)) {
      const task = await tx.get(tables.tasks, id);
      if (task === undefined || hasEnded(stateOf(task.state))) continue;
      count += 1;
      task.desiredState = TaskState.SHUTDOWN;
      task.updatedMs = BigInt(clock.now());
      if (state !== TaskState.UNSPECIFIED) Object.assign(task, { state, error: 'its node was removed' });
      tx.put(tables.tasks, id, task);
    }
    return count;
  }

  async #finish(
    nodeId: string,
  ): Promise<{ id: string; hostname: string; missing: number; leaseEndsMs: bigint }> {
    const { view, ledger, dispatcher, clock, log } = this.#parts;
    const hostname = view.nodes.get(nodeId)?.description?.hostname ?? '';
    const endOf = ({ secretId, version }: NeededVersion): bigint => {
      const leftMs = dispatcher.holdsUntilMs(nodeId, secretId, version) - clock.boottimeMs();
      return leftMs <= 0 ? 0n : BigInt(Math.min(neverComesMs, Math.round(clock.now() + leftMs)));
    };
    let missing = 0;
    let leaseEndsMs = 0n;
    await ledger.forget(nodeId, endOf, async (tx) => {
      const node = await tx.get(tables.nodes, nodeId);
      if (node === undefined) throw gone(nodeId);
      const ends = view.holders
        .ofNode(nodeId)
        .map(endOf)
        .filter((end) => end > 0n);
      missing = ends.length;
      leaseEndsMs = ends.reduce((latest, end) => (end > latest ? end : latest), 0n);
      await this.#endTasks(tx, nodeId, TaskState.ORPHANED);
      await this.#deleteReads(tx, nodeId);
      this.#refuse(tx, node);
      tx.delete(tables.nodes, nodeId);
    });
    const facts = { node: nodeId, hostname };
    if (missing === 0) log.info(facts, 'node removed: it holds nothing');
    else
      log.warn(
        { ...facts, versions: missing, leaseEnds: new Date(Number(leaseEndsMs)).toISOString() },
        'node removed, but it did not say that it has wiped: it may serve what it holds until its lease ends',
      );
    return { id: nodeId, hostname, missing, leaseEndsMs };
  }

  async #deleteReads(tx: Transaction, nodeId: string): Promise<void> {
    // Read first: what the node tells at this moment changes it, and is then deleted, too.
    await tx.get(tables.readMarks, nodeId);
    tx.delete(tables.readMarks, nodeId);
    for (const secretId of this.#parts.view.secrets.keys()) {
      for (const { version } of await tx.list(tables.reads, `${secretId}/${nodeId}/`))
        tx.delete(tables.reads, readKey(nodeId, secretId, version));
    }
  }

  #refuse(tx: Transaction, node: NodeRecord): void {
    const { view, clock } = this.#parts;
    const { id, certificateSerial, certificateExpiresMs, keyDigest, formerKeyDigest } = node;
    // A stream may be older than the end of the certificate that opened it.
    const streamsEndMs = BigInt(clock.now() + managerLimits.leaseMs);
    const record = create(RefusedRecordSchema, {
      nodeId: id,
      hostname: node.description?.hostname ?? '',
      reason: 'removed',
      refusedMs: BigInt(clock.now()),
      untilMs: certificateExpiresMs > streamsEndMs ? certificateExpiresMs : streamsEndMs,
      serials: [certificateSerial].filter((serial) => serial !== ''),
      keyDigests: [keyDigest, formerKeyDigest].filter(({ length }) => length > 0),
    });
    tx.put(tables.refused, id, record);
    const all = view.refusals.all().sort(([, a], [, b]) => Number(a.untilMs - b.untilMs));
    for (const [key] of all.slice(0, Math.max(0, all.length + 1 - managerLimits.maxRefused)))
      tx.delete(tables.refused, key);
  }
}

function gone(nodeId: string): InroError {
  return new InroError('not_found', `node ${nodeId} is not there any more`, {
    remedy: "'inro node ls' lists them",
  });
}
