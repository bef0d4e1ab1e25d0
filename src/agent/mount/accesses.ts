/** Accesses to files of a mount, from node ids to what the files were. */
import { accessOutcomes, type NativeAccesses } from '../../system/addon.js';
import { readNote } from './notes.js';

export type AccessOutcome = (typeof accessOutcomes)[number];

/** What was accessed. */
export interface AccessedFile {
  taskId: string;
  serviceName: string;
  secretId: string;
  secretName: string;
  version: number;
  target: string;
}

export interface Access {
  file: AccessedFile;
  /** ms since 1970. */
  atMs: number;
  outcome: AccessOutcome;
  uid: number;
  gid: number;
  /** 0: of another pid namespace. */
  thread: number;
  process: number;
  /** When the process began, in clock ticks since the boot. */
  startTicks: number;
  /** Of the process, as it calls itself (proc_pid_comm(5)). */
  name: string;
  /** Its path in the unified hierarchy; '' when it is not known. */
  cgroup: string;
}

export interface AccessCount {
  file: AccessedFile;
  outcome: AccessOutcome;
  /** Missing where they are of many, which found no room each. */
  uid?: number;
  cgroup: string;
  count: number;
  lastMs: number;
}

export interface Accesses {
  accesses: Access[];
  counts: AccessCount[];
  /** Accesses that are only counted, for want of room. */
  dropped: number;
}

/** The files that may be accessed, and those of which accesses may still have to be told. */
export class AccessedFiles {
  readonly #files = new Map<number, AccessedFile>();
  #gone: number[] = [];

  /** @param note as notes.ts has it; nothing is known of a file without one. */
  add(ino: number, note: Uint8Array | undefined): void {
    const read = note === undefined ? undefined : readNote(note);
    if (read?.case !== 'file') return;
    const { taskId, target, source: secretId, serviceName, secretName, version } = read.value;
    this.#files.set(ino, { taskId, target, secretId, serviceName, secretName, version });
  }

  /** No access can come any more; those that came are still to be told. */
  gone(inos: readonly number[]): void {
    for (const ino of inos) if (this.#files.has(ino)) this.#gone.push(ino);
  }

  /** @param found all accesses until now. */
  resolve(found: NativeAccesses | null): Accesses | undefined {
    const resolved = found === null ? undefined : this.#resolved(found);
    for (const ino of this.#gone) this.#files.delete(ino);
    this.#gone = [];
    return resolved;
  }

  #resolved({ accesses, counts, dropped, cgroups }: NativeAccesses): Accesses {
    const paths = new Map(cgroups);
    const common = ({ node, outcome, cgroup }: { node: number; outcome: number; cgroup: number }) => ({
      file: this.#files.get(node) ?? unknown,
      outcome: accessOutcomes[outcome] ?? 'opened',
      cgroup: paths.get(cgroup) ?? '',
    });
    return {
      accesses: accesses.map(({ node: _node, ...access }) => ({
        ...access,
        ...common({ ...access, node: _node }),
      })),
      counts: counts.map(({ node, ...count }) => ({ ...count, ...common({ ...count, node }) })),
      dropped,
    };
  }
}

const unknown: AccessedFile = {
  taskId: '',
  serviceName: '',
  secretId: '',
  secretName: '',
  version: 0,
  target: '',
};
