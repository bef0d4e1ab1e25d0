/** Open handles: small numbers from 1 (fuse-native takes 0 for none), bounded, each bound to what was opened. */
export class HandleTable<Opened> {
  readonly #maxHandles: number;
  readonly #opened = new Map<number, Opened>();
  readonly #free: number[] = [];

  constructor(maxHandles: number) {
    this.#maxHandles = maxHandles;
  }

  /** The new handle, or undefined when all are taken. */
  add(opened: Opened): number | undefined {
    if (this.#opened.size >= this.#maxHandles) return undefined;
    const handle = this.#free.pop() ?? this.#opened.size + 1;
    this.#opened.set(handle, opened);
    return handle;
  }

  get(handle: number): Opened | undefined {
    return this.#opened.get(handle);
  }

  remove(handle: number): void {
    if (this.#opened.delete(handle)) this.#free.push(handle);
  }

  clear(): void {
    this.#opened.clear();
    this.#free.length = 0;
  }
}
