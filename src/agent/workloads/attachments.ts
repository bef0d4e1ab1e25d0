/**
 * Which workloads use which service of this node, and what follows from it for who may read. Bookkeeping alone: the mount is told by
 * whoever asks for a gate. What is attached to a service uses whatever task of it is shown here.
 */
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { ReadersRule } from '../../model/readers.js';
import { GateNoteSchema, type GateNote } from '../../proto/gen/inro/v1/inheritance_pb.js';
import type { Cgroup } from '../../system/addon.js';
import type { Gate } from '../mount/driver.js';

export type WorkloadKind = 'exec' | 'container' | 'unit';

export interface Workload {
  kind: WorkloadKind;
  /** What an operator knows it by. */
  name: string;
  /** Undefined while it is not known: until then none of its processes can read. */
  cgroup: Cgroup | undefined;
}

export interface Attachment extends Workload {
  id: string;
  serviceId: string;
  /** One task of the service alone; '' for whatever task is shown. */
  taskId: string;
  sinceMs: number;
}

/** What changed files ask for and has not been done (model/on_change.ts), with the number of the generation that changed them last. */
export type DueActions = ReadonlyMap<string, number>;

const maxRecent = 256;

interface GatedTask {
  id: string;
  serviceId: string;
}

export class Attachments {
  readonly #all = new Map<string, Attachment>();
  /** The latest that have been detached: what they read last may be told after their end. */
  #recent: Attachment[] = [];
  /** Tasks that somebody has been attached to. */
  readonly #used = new Set<string>();

  add(attachment: Attachment): void {
    this.#all.set(attachment.id, attachment);
  }

  get(id: string): Attachment | undefined {
    return this.#all.get(id);
  }

  /** The attachment that this workload has to the service already. */
  find(serviceId: string, { kind, name, cgroup }: Workload): Attachment | undefined {
    return this.list().find(
      (each) =>
        each.serviceId === serviceId &&
        each.kind === kind &&
        each.name === name &&
        each.cgroup?.cgroup === cgroup?.cgroup,
    );
  }

  remove(id: string): void {
    const known = this.#all.get(id);
    if (known === undefined) return;
    this.#all.delete(id);
    this.#recent = [known, ...this.#recent].slice(0, maxRecent);
  }

  /** Whose processes are in this cgroup, or were until lately. */
  ofCgroup(path: string): Attachment | undefined {
    return [...this.list(), ...this.#recent].find(({ cgroup }) => {
      if (cgroup === undefined || path === '') return false;
      return cgroup.cgroup === 0 ? path.includes(cgroup.path) : `${path}/`.startsWith(`${cgroup.path}/`);
    });
  }

  list(): Attachment[] {
    return [...this.#all.values()];
  }

  ofTask({ id, serviceId }: GatedTask): Attachment[] {
    return this.list().filter(
      (each) => each.serviceId === serviceId && (each.taskId === '' || each.taskId === id),
    );
  }

  isRestricted({ id }: GatedTask, rule: ReadersRule): boolean {
    return rule === 'attached' || (rule === 'auto' && this.#used.has(id));
  }

  /** Whether somebody has been attached to it, and nobody is any more. */
  isLeft(task: GatedTask): boolean {
    return this.#used.has(task.id) && this.ofTask(task).length === 0;
  }

  /** Who may read the task's files now. @param due is noted beside it. */
  gateOf(task: GatedTask, rule: ReadersRule, due: DueActions = new Map()): Gate {
    const attached = this.ofTask(task);
    if (attached.length > 0) this.#used.add(task.id);
    const note = noteOf(attached, this.#used.has(task.id), due);
    if (!this.isRestricted(task, rule)) return { readers: 'any', note };
    return { readers: attached.flatMap(({ cgroup }) => (cgroup === undefined ? [] : [cgroup])), note };
  }

  /** The task is gone: what used it alone is detached, and a new task of the same id would be new. */
  forgetTask(taskId: string): void {
    this.#used.delete(taskId);
    for (const { id, taskId: own } of this.list()) if (own === taskId) this.remove(id);
  }

  /** Goes on with what a predecessor noted beside a task's gate. @returns what it has not done yet. */
  inherit(task: GatedTask, note: Uint8Array, isRestricted: boolean): DueActions {
    const { attachments, used, due } = readNote(note);
    if (isRestricted || used) this.#used.add(task.id);
    for (const one of attachments) {
      const { id, taskId, name, cgroupPath, sinceMs } = one;
      // A container's is 0, and its path the container's id.
      const cgroup = cgroupPath === '' ? undefined : { cgroup: Number(one.cgroup), path: cgroupPath };
      const kind = one.kind as WorkloadKind;
      this.add({ id, kind, name, cgroup, taskId, serviceId: task.serviceId, sinceMs: Number(sinceMs) });
    }
    return new Map(due.map(({ action, generation }) => [action, Number(generation)]));
  }
}

function noteOf(attachments: readonly Attachment[], used: boolean, due: DueActions): Uint8Array {
  const note = create(GateNoteSchema, {
    used,
    due: [...due].map(([action, generation]) => ({ action, generation: BigInt(generation) })),
    attachments: attachments.map(({ id, taskId, kind, name, cgroup, sinceMs }) => ({
      id,
      taskId,
      kind,
      name,
      cgroup: BigInt(cgroup?.cgroup ?? 0),
      cgroupPath: cgroup?.path ?? '',
      sinceMs: BigInt(sinceMs),
    })),
  });
  return toBinary(GateNoteSchema, note);
}

/** An empty one for what is no note. */
function readNote(bytes: Uint8Array): GateNote {
  try {
    return fromBinary(GateNoteSchema, bytes);
  } catch {
    return create(GateNoteSchema);
  }
}
