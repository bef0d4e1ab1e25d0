/** A mount that is a map: what has been published is there to be read, and each call is on record. */
import type { DriverFacts, Generation, MountDriver, PublishedFile } from '../../src/agent/mount/driver.js';

export class FakeDriver implements MountDriver {
  /** `open SERVICE`, `publish TASK NUMBER`, `withdraw TASK`, `mount`, `unmount`, in order. */
  readonly calls: string[] = [];
  /** Runs before each publish; whatever it throws is the driver's own failure. */
  beforePublish: (generation: Generation) => void = () => undefined;
  readonly #tasks = new Map<string, Generation>();
  readonly #services = new Set<string>();

  facts(): DriverFacts {
    return {
      name: 'kernel',
      directIo: true,
      strict: true,
      callerIdentity: true,
      handover: true,
      notes: [],
    };
  }

  async mount(): Promise<void> {
    this.calls.push('mount');
  }

  serveUntil(): void {}

  openService(_serviceId: string, serviceName: string): void {
    if (this.#services.has(serviceName)) return;
    this.#services.add(serviceName);
    this.calls.push(`open ${serviceName}`);
  }

  publish(generation: Generation): void {
    this.beforePublish(generation);
    this.#tasks.set(generation.taskId, generation);
    this.calls.push(`publish ${generation.taskId} ${generation.number}`);
  }

  withdraw(taskId: string): void {
    if (this.#tasks.delete(taskId)) this.calls.push(`withdraw ${taskId}`);
  }

  async unmount(): Promise<void> {
    this.calls.push('unmount');
  }

  /** What a reader of `.task/<task>` sees now: each file's text, `ESTALE` for one whose value is wiped. */
  shown(taskId: string): Record<string, string> | undefined {
    const generation = this.#tasks.get(taskId);
    return generation && Object.fromEntries(generation.files.map((file) => [file.target, textOf(file)]));
  }

  /** A descriptor: it reads on from the file it was opened on, whatever is published later. */
  open(taskId: string, target: string): () => string {
    const file = this.#tasks.get(taskId)?.files.find((candidate) => candidate.target === target);
    if (file === undefined) throw new Error(`no ${target} in ${taskId}`);
    return () => textOf(file);
  }

  generation(taskId: string): Generation | undefined {
    return this.#tasks.get(taskId);
  }
}

function textOf({ value }: PublishedFile): string {
  return value.wiped ? 'ESTALE' : new TextDecoder().decode(value.expose());
}
