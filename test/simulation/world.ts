/**
 * Time and order of a simulation: one thing happens after the other, each at its time, and all that follows from it by itself has
 * come to rest before the next. Nothing in it waits for the real clock, disk or network, so that it goes the same way each time.
 */
interface Event {
  atMs: number;
  order: number;
  run: () => void;
}

export interface Planned {
  cancel(): void;
}

const realTurn = setImmediate;
/** At one moment, one after the other; and events at one moment. */
const maxTurns = 100_000;

export class Restless extends Error {}

export class World {
  /** True time, ms from the beginning. */
  nowMs = 0;
  /** Called after each event, when all is at rest. */
  afterEach: () => void = () => undefined;
  readonly #events: Event[] = [];
  readonly #turns: (() => void)[] = [];
  #order = 0;

  at(atMs: number, run: () => void): Planned {
    const event = { atMs: Math.max(atMs, this.nowMs), order: this.#order++, run };
    push(this.#events, event);
    return { cancel: () => (event.run = () => undefined) };
  }

  in(ms: number, run: () => void): Planned {
    return this.at(this.nowMs + ms, run);
  }

  /** Time passes in which nothing happens, though it was to: everything comes so much later. */
  leap(ms: number): void {
    this.nowMs += ms;
  }

  /** In another turn, at the same time. */
  soon(run: () => void): void {
    this.#turns.push(run);
  }

  /** Lets everything happen until then. */
  async run(untilMs: number): Promise<void> {
    await this.#rest();
    let atOnce = 0;
    for (let next = this.#events[0]; next !== undefined && next.atMs <= untilMs; next = this.#events[0]) {
      pop(this.#events);
      atOnce = next.atMs > this.nowMs ? 0 : atOnce + 1;
      if (atOnce > maxTurns) throw new Restless(`something happens without end at ${this.nowMs} ms`);
      this.nowMs = Math.max(this.nowMs, next.atMs);
      next.run();
      await this.#rest();
      this.afterEach();
    }
    this.nowMs = Math.max(this.nowMs, untilMs);
  }

  async #rest(): Promise<void> {
    for (let turns = 0; turns < maxTurns; turns++) {
      await new Promise<void>((resolve) => realTurn(resolve));
      const turn = this.#turns.shift();
      if (turn === undefined) return;
      turn();
    }
    throw new Restless(`something goes on without end at ${this.nowMs} ms`);
  }
}

function isBefore(a: Event, b: Event): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}

/** Into a binary heap. */
function push(heap: Event[], event: Event): void {
  let at = heap.push(event) - 1;
  while (at > 0) {
    const above = (at - 1) >> 1;
    if (!isBefore(event, heap[above] as Event)) break;
    heap[at] = heap[above] as Event;
    at = above;
  }
  heap[at] = event;
}

function pop(heap: Event[]): void {
  const last = heap.pop() as Event;
  if (heap.length === 0) return;
  let at = 0;
  for (;;) {
    let below = 2 * at + 1;
    if (below >= heap.length) break;
    if (below + 1 < heap.length && isBefore(heap[below + 1] as Event, heap[below] as Event)) below += 1;
    if (!isBefore(heap[below] as Event, last)) break;
    heap[at] = heap[below] as Event;
    at = below;
  }
  heap[at] = last;
}

/**
 * A process: what is for it reaches it unless it is dead, and waits while it is stopped. It is killed between two events: where it
 * waits for time, network or disk, which it then waits for for ever.
 */
export class Process {
  readonly #world: World;
  #isAlive = true;
  #isStopped = false;
  #waiting: (() => void)[] = [];
  readonly #onDeath: ((isHostGone: boolean) => void)[] = [];
  /** True time since when it is stopped. */
  stoppedMs = Infinity;

  constructor(world: World) {
    this.#world = world;
  }

  get isAlive(): boolean {
    return this.#isAlive;
  }

  get isStopped(): boolean {
    return this.#isStopped;
  }

  get runs(): boolean {
    return this.#isAlive && !this.#isStopped;
  }

  deliver(run: () => void): void {
    if (!this.#isAlive) return;
    if (this.#isStopped) this.#waiting.push(run);
    else run();
  }

  soon(callback: () => void): Planned {
    let isWanted = true;
    this.#world.soon(() => this.deliver(() => isWanted && callback()));
    return { cancel: () => (isWanted = false) };
  }

  /** @param run told whether its host's kernel has gone with it. */
  onDeath(run: (isHostGone: boolean) => void): void {
    this.#onDeath.push(run);
  }

  kill(isHostGone = false): void {
    if (!this.#isAlive) return;
    this.#isAlive = false;
    this.#waiting = [];
    for (const run of this.#onDeath.splice(0)) run(isHostGone);
  }

  /** SIGSTOP. */
  stop(): void {
    if (!this.runs) return;
    this.#isStopped = true;
    this.stoppedMs = this.#world.nowMs;
  }

  /** SIGCONT: what has waited comes in its order, each when what follows from the one before is at rest. */
  goOn(): void {
    if (!this.#isAlive || !this.#isStopped) return;
    this.#isStopped = false;
    this.stoppedMs = Infinity;
    const next = (): void => {
      if (!this.runs) return;
      const run = this.#waiting.shift();
      if (run === undefined) return;
      run();
      this.#world.soon(next);
    };
    next();
  }
}
