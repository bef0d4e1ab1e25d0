/**
 * A host's arena and mount in a simulation: what outlives an agent that is killed, as descriptors that systemd keeps, and what is
 * served meanwhile. Readers are answered by the rules of the native threads: a deadline, a grace, a wipe; never by the agent.
 */
import { InroError } from '../../src/model/error.js';
import type { Arena } from '../../src/crypto/arena.js';
import { Plaintext } from '../../src/crypto/plaintext.js';
import { readHeldNote } from '../../src/agent/inheritance_notes.js';
import type { Generation, MountDriver, PublishedFile } from '../../src/agent/mount/driver.js';
import type { Inheritance } from '../../src/agent/mount/inheritance.js';

export interface ServedFile {
  taskId: string;
  file: PublishedFile;
  secretId: string;
  version: number;
  /** It is cut off: its task, or its source, has gone. */
  isWithdrawn: boolean;
  /** Boot-time ms; Infinity: it is the current one. */
  readableUntilMs: number;
}

export interface ServedTask {
  generation: Generation;
  files: Map<string, ServedFile>;
}

export class KeptMemory {
  readonly tasks = new Map<string, ServedTask>();
  /** Former versions, which descriptors that are open may still read. */
  former: ServedFile[] = [];
  servedUntilMs = 0;
  note: Uint8Array = new Uint8Array();
  /** Told of each generation as it is published. */
  onPublish: (generation: Generation) => void = () => undefined;
  readonly #boottimeMs: () => number;

  constructor(boottimeMs: () => number) {
    this.#boottimeMs = boottimeMs;
  }

  /** The bytes, as a read gives them; undefined: ESTALE. */
  read({ file, isWithdrawn, readableUntilMs }: ServedFile): Uint8Array | undefined {
    const nowMs = this.#boottimeMs();
    if (isWithdrawn || file.value.wiped || nowMs >= readableUntilMs) return undefined;
    const isServed = this.servedUntilMs > 0 && nowMs < this.servedUntilMs + (file.leaseShiftMs ?? 0);
    return isServed ? file.value.expose() : undefined;
  }

  /** What a reader of a service's folder finds: the newest published task of it. */
  newestOf(serviceId: string): ServedTask | undefined {
    return [...this.tasks.values()].findLast(({ generation }) => generation.serviceId === serviceId);
  }

  /** Every file that some reader can read. */
  readable(): ServedFile[] {
    const shown = [...this.tasks.values()].flatMap(({ files }) => [...files.values()]);
    return [...shown, ...this.former].filter((one) => this.read(one) !== undefined);
  }

  inheritance(): Inheritance {
    const all = [...this.tasks.values()].flatMap(({ files }) => [...files.values()]).concat(this.former);
    const values = new Map<Plaintext, Inheritance['values'][number]>();
    for (const { file, readableUntilMs, isWithdrawn } of all) {
      if (file.value.wiped || isWithdrawn) continue;
      const untilMs = Math.max(values.get(file.value)?.readableUntilMs ?? 0, readableUntilMs);
      const { value, note = new Uint8Array(), modifiedMs } = file;
      values.set(value, { value, note, modifiedMs, readableUntilMs: untilMs });
    }
    const generations = [...this.tasks.values()].map(({ generation }) => {
      const { taskId, number, note = new Uint8Array(), gate } = generation;
      return { taskId, number, note, gate: gate ?? { readers: 'any' as const, note: new Uint8Array() } };
    });
    return { generations, values: [...values.values()] };
  }

  publish(generation: Generation): void {
    this.onPublish(generation);
    const { taskId, files, graceMs } = generation;
    const before = this.tasks.get(taskId)?.files ?? new Map<string, ServedFile>();
    const after = new Map(files.map((file) => [file.target, served(taskId, file)]));
    const graceEndsMs = this.#boottimeMs() + graceMs;
    for (const [target, old] of before) {
      const next = after.get(target);
      if (next?.file.source !== old.file.source) {
        old.isWithdrawn = true;
        this.#cutOff(taskId, target);
      } else if (next.file.value !== old.file.value) {
        old.readableUntilMs = graceEndsMs;
        this.former.push(old);
      }
    }
    this.former = this.former.filter((one) => !one.file.value.wiped && !one.isWithdrawn);
    this.tasks.delete(taskId); // the newest is the last
    this.tasks.set(taskId, { generation, files: after });
  }

  withdraw(taskId: string): void {
    const task = this.tasks.get(taskId);
    if (task === undefined) return;
    this.tasks.delete(taskId);
    for (const [target, one] of task.files) {
      one.isWithdrawn = true;
      this.#cutOff(taskId, target);
    }
  }

  /** Descriptors that are open on former versions of it. */
  #cutOff(taskId: string, target: string): void {
    for (const one of this.former)
      if (one.taskId === taskId && one.file.target === target) one.isWithdrawn = true;
  }
}

function served(taskId: string, file: PublishedFile): ServedFile {
  const { secretId, version } = readHeldNote(file.note ?? new Uint8Array());
  return { taskId, file, secretId, version, isWithdrawn: false, readableUntilMs: Infinity };
}

/** The mount driver of one process. */
export function driverOf(memory: KeptMemory): MountDriver {
  return {
    facts: () => ({
      name: 'kernel',
      directIo: true,
      strict: true,
      callerIdentity: true,
      handover: true,
      notes: [],
    }),
    mount: async () => undefined,
    unmount: async () => undefined,
    serveUntil: (ms) => (memory.servedUntilMs = ms),
    openService: () => undefined,
    publish: (generation) => memory.publish(generation),
    withdraw: (taskId) => memory.withdraw(taskId),
    admit: (taskId, gate) => {
      const task = memory.tasks.get(taskId);
      if (task !== undefined) task.generation = { ...task.generation, gate };
    },
  };
}

/** Of so many bytes; keys of a process that is gone go with it. */
export class BoundedArena implements Arena {
  readonly #bytes: number;
  #usedBytes: number;
  /** Pieces that are not wiped. */
  live = 0;

  constructor(bytes: number, usedBytes: number) {
    this.#bytes = bytes;
    this.#usedBytes = usedBytes;
  }

  take(payloadBytes: number): Plaintext {
    if (this.#usedBytes + payloadBytes > this.#bytes)
      throw new InroError('arena_full', `the arena has no room for ${payloadBytes} bytes`);
    this.#usedBytes += payloadBytes;
    this.live += 1;
    return new Plaintext(new ArrayBuffer(payloadBytes + 32), 32, (buffer) => {
      new Uint8Array(buffer).fill(0);
      structuredClone(buffer, { transfer: [buffer] });
      this.#usedBytes -= payloadBytes;
      this.live -= 1;
      return true;
    });
  }

  facts(): ReturnType<Arena['facts']> {
    throw new Error('nobody asks in a simulation');
  }
}
