import type { Plaintext } from '../crypto/plaintext.js';
import type { Clock } from '../model/clock.js';
import { InroError } from '../model/error.js';
import type { AssignedTask, AssignmentChange, DeliveredVersion } from '../proto/gen/inro/v1/dispatcher_pb.js';
import { wireState } from '../proto/task_state.js';
import type { AgentChannel } from './channel.js';
import type { HostTasks, TaskReport } from './host_tasks.js';
import { agentLimits } from './limits.js';
import type { Receipts } from './receipts.js';
import { heldKey } from './vault.js';

interface AssignmentParts {
  tasks: HostTasks;
  receipts: Receipts;
  clock: Clock;
  onApplied: (revision: number) => void;
}

/** Collects an assignment, bounded, and applies it at its commit. */
export class AssignmentReader {
  readonly #parts: AssignmentParts;
  readonly #sessionKey: Plaintext;
  readonly #channel: AgentChannel;
  #wanted = new Map<string, AssignedTask>();
  #delivered = new Map<string, DeliveredVersion>();
  #pendingBytes = 0;
  #open = false;
  #hasApplied = false;

  constructor(parts: AssignmentParts, sessionKey: Plaintext, channel: AgentChannel) {
    this.#parts = parts;
    this.#sessionKey = sessionKey;
    this.#channel = channel;
  }

  begin(complete: boolean): void {
    if (this.#open) throw new InroError('protocol', 'an assignment began inside another');
    this.#open = true;
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
    const reports = tasks.apply(this.#wanted, this.#delivered, this.#sessionKey);
    this.#delivered = new Map();
    this.#pendingBytes = 0;
    this.#open = false;
    this.#hasApplied = true;
    onApplied(revision);
    await this.#report(revision, reports);
  }

  /** Wipes that happen on their own, such as at the end of a grace, are reported as they come. */
  async reportWipes(signal: AbortSignal): Promise<void> {
    const { clock, receipts } = this.#parts;
    while (!signal.aborted) {
      await clock.sleep(agentLimits.leaseCheckMs, signal);
      if (receipts.pending > 0 && this.#hasApplied && !signal.aborted) await this.#report(0, []);
    }
  }

  /** In messages of bounded size; the revision stands in the last one, when everything else has been said. */
  async #report(revision: number, reports: readonly TaskReport[]): Promise<void> {
    const { receipts } = this.#parts;
    const statuses = reports.map(({ taskId, state, error, atMs }) => ({
      taskId,
      state: wireState(state),
      error: error.slice(0, agentLimits.maxErrorChars),
      atMs: BigInt(atMs),
    }));
    for (let isLast = false; !isLast;) {
      const tasks = statuses.splice(0, agentLimits.maxStatusesPerMessage);
      const wiped = receipts.take(agentLimits.maxReceiptsPerMessage);
      isLast = statuses.length === 0 && receipts.pending === 0;
      const signed = wiped.map((one) => receipts.signed(one));
      const value = { revision: BigInt(isLast ? revision : 0), tasks, receipts: signed };
      await this.#channel.send({ message: { case: 'applied', value } }).catch((error: unknown) => {
        receipts.putBack(wiped);
        throw error;
      });
    }
  }
}
