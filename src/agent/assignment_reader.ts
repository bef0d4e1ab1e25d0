import type { Plaintext } from '../crypto/plaintext.js';
import { InroError } from '../model/error.js';
import type {
  AssignedReference,
  AssignedTask,
  AssignmentBegin,
  AssignmentChange,
  DeliveredVersion,
} from '../proto/gen/inro/v1/dispatcher_pb.js';
import { wireState } from '../proto/task_state.js';
import type { AgentChannel } from './channel.js';
import type { HostTasks, TaskChange, TaskReport } from './host_tasks.js';
import type { Identity } from './identity.js';
import { agentLimits } from './limits.js';
import type { Receipts } from './receipts.js';
import { heldKey } from './vault.js';

interface AssignmentParts {
  identity: Pick<Identity, 'key'>;
  tasks: HostTasks;
  receipts: Receipts;
  onApplied: (revision: number) => void;
}

/** As on the wire. */
type AbsentVersion = Pick<DeliveredVersion, 'secretId' | 'version'>;

/** Collects an assignment, bounded, and applies it at its commit. */
export class AssignmentReader {
  readonly #parts: AssignmentParts;
  readonly #sessionKey: Plaintext;
  readonly #channel: AgentChannel;
  #wanted = new Map<string, AssignedTask>();
  #delivered = new Map<string, DeliveredVersion>();
  #pendingBytes = 0;
  /** Revoked while this assignment is being told: references to them show no file. */
  readonly #revoked = new Set<string>();
  /** What this stream's last commit assigned, by `heldKey`. */
  #assigned = new Map<string, AbsentVersion>();
  /** Not to be said to be wiped, and yet not here; to be reported. */
  #absent: AbsentVersion[] = [];
  #open = false;
  #atOnce = false;
  /** The number of the last receipt that went out in this stream; what is not acknowledged goes out in the next one again. */
  #reported = 0;

  constructor(parts: AssignmentParts, sessionKey: Plaintext, channel: AgentChannel) {
    this.#parts = parts;
    this.#sessionKey = sessionKey;
    this.#channel = channel;
  }

  begin({ complete, atOnce }: Pick<AssignmentBegin, 'complete' | 'atOnce'>): void {
    if (this.#open) throw new InroError('protocol', 'an assignment began inside another');
    this.#open = true;
    this.#atOnce = atOnce;
    if (complete) this.#wanted = new Map();
  }

  change({ change }: AssignmentChange): void {
    if (!this.#open) throw new InroError('protocol', 'a change outside of an assignment');
    switch (change.case) {
      case 'putTask':
        this.#wanted.set(change.value.id, change.value);
        if (this.#wanted.size > agentLimits.maxTasks)
          throw new InroError('too_large', `more than ${agentLimits.maxTasks} tasks`);
        break;
      case 'removeTaskId':
        this.#wanted.delete(change.value);
        break;
      case 'revoke': {
        // Now: the rest of the assignment may be large, and may never come.
        const { secretId, version } = change.value;
        this.#parts.tasks.revoke(secretId, version);
        this.#revoked.add(heldKey(secretId, version));
        if (this.#revoked.size > agentLimits.maxRevoked)
          throw new InroError('too_large', `more than ${agentLimits.maxRevoked} revoked versions`);
        break;
      }
      case 'putVersion': {
        const { secretId, version, ciphertext } = change.value;
        this.#pendingBytes += ciphertext.length;
        // Beyond this nothing fits the arena anyway: those tasks fail and say so, the others do not suffer.
        if (this.#pendingBytes <= agentLimits.maxPendingBytes)
          this.#delivered.set(heldKey(secretId, version), change.value);
        break;
      }
      default:
        throw new InroError('protocol', 'a change that this version does not know', {
          remedy: 'upgrade the agent',
        });
    }
  }

  async commit(revision: number): Promise<void> {
    if (!this.#open) throw new InroError('protocol', 'a commit outside of an assignment');
    const { tasks, onApplied } = this.#parts;
    this.#open = false;
    if (tasks.stopped) return; // nothing is taken in any more, and nobody is told that it was
    this.#forgetRevoked();
    this.#noteAbsent();
    const reports = tasks.apply(this.#wanted, this.#delivered, this.#sessionKey, this.#atOnce);
    this.#delivered = new Map();
    this.#pendingBytes = 0;
    onApplied(revision);
    await this.#report(revision, reports);
  }

  /** Wipes that happen on their own are reported as they come, and what an earlier stream did not bring through at once. */
  async reportWipes(signal: AbortSignal): Promise<void> {
    const { receipts } = this.#parts;
    while (!signal.aborted) {
      await receipts.untilAfter(this.#reported, signal);
      // They may have gone out with a state meanwhile.
      if (!signal.aborted && receipts.hasAfter(this.#reported)) await this.#report(0, []);
    }
  }

  /** What becomes of tasks by themselves. */
  async reportTasks(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const reports = await this.#parts.tasks.reports(signal);
      if (reports.length > 0) await this.#report(0, reports);
    }
  }

  /** A manager that learns of a revocation while it tells an assignment cannot take back what it has said. */
  #forgetRevoked(): void {
    if (this.#revoked.size === 0) return;
    const isLeft = ({ reference, version }: AssignedReference): boolean =>
      !this.#revoked.has(heldKey(reference?.secretId ?? '', version));
    for (const [id, task] of this.#wanted) {
      if (!task.references.every(isLeft))
        this.#wanted.set(id, { ...task, references: task.references.filter(isLeft) });
    }
    this.#revoked.clear();
  }

  #noteAbsent(): void {
    const before = this.#assigned;
    this.#assigned = new Map(
      [...this.#wanted.values()]
        .flatMap((task) => task.references)
        .map(({ reference, version }) => ({ secretId: reference?.secretId ?? '', version }))
        .map((one) => [heldKey(one.secretId, one.version), one]),
    );
    for (const [key, one] of before)
      if (!this.#assigned.has(key) && !this.#parts.tasks.holds(key)) this.#absent.push(one);
  }

  /** In messages of bounded size; the revision stands in the last one, when everything else has been said. */
  async #report(revision: number, reports: readonly TaskReport[]): Promise<void> {
    const { identity, receipts } = this.#parts;
    const { ending } = this.#parts.tasks;
    const statuses = reports.map(({ taskId, state, error, atMs, change, exitCode }) => ({
      taskId,
      state: wireState(state),
      error: error.slice(0, agentLimits.maxErrorChars),
      atMs: BigInt(atMs),
      ...(change === undefined ? {} : { change: wireChange(change) }),
      ...(exitCode === undefined ? {} : { exitCode }),
    }));
    for (let isLast = false; !isLast;) {
      const tasks = statuses.splice(0, agentLimits.maxStatusesPerMessage);
      const signed = receipts.after(this.#reported, agentLimits.maxReceiptsPerMessage, identity.key);
      this.#reported = Number(signed.at(-1)?.number ?? this.#reported);
      const absent = this.#absent.splice(0, agentLimits.maxStatusesPerMessage);
      isLast = statuses.length === 0 && this.#absent.length === 0 && !receipts.hasAfter(this.#reported);
      const value = { revision: BigInt(isLast ? revision : 0), tasks, receipts: signed, ending, absent };
      await this.#channel.send({ message: { case: 'applied', value } });
    }
  }
}

function wireChange({ action, error, atMs }: TaskChange) {
  return { action, error: error.slice(0, agentLimits.maxErrorChars), atMs: BigInt(atMs) };
}
