/**
 * Which nodes are there: looks at it again and again, and says which have come or gone. A node that is lost again and again is
 * given no new tasks until it has stayed for a while, longer each time.
 */
import type { Logger } from 'pino';
import type { Clock } from '../model/clock.js';
import type { Dispatcher } from './dispatcher.js';
import { managerLimits } from './limits.js';
import type { NodeStates } from './placement.js';
import type { ClusterView } from './view.js';

export interface NodeWatchParts {
  view: ClusterView;
  dispatcher: Pick<Dispatcher, 'statusOf' | 'contactWith' | 'readyNodes' | 'dropSlow'>;
  clock: Clock;
  log: Logger;
  /** Called with those that have changed; with none when something else about them may have. */
  onChanged: (nodeIds: readonly string[]) => void;
}

const lostMs = managerLimits.heartbeatPeriodMs * managerLimits.missedBeats;

export class NodeWatch implements NodeStates {
  readonly #parts: NodeWatchParts;
  /** As it was seen last: whether tasks can be given to it, whether it is down, and its availability and labels. */
  readonly #seen = new Map<string, string>();
  /** Boot-time ms at which it came back from being down. */
  readonly #returnsMs = new Map<string, number[]>();
  /** Boot-time ms since when some node has been ready without a break; Infinity: none is. When all are silent, it is not they who are lost. */
  #heardSinceMs = Infinity;
  /** Boot-time ms of the last look, once it is looked regularly. */
  #lookedMs: number | undefined;
  /** The manager itself has stood still: until then nobody is taken for down who was not before. */
  #listensUntilMs = -Infinity;
  #soon: { cancel(): void } | undefined;
  /** By the monotonic clock: looks take a fifth of the time at most. */
  #nextLookUs = -Infinity;
  readonly #over = new AbortController();

  constructor(parts: NodeWatchParts) {
    this.#parts = parts;
  }

  ready(): string[] {
    return this.#parts.dispatcher.readyNodes().filter((id) => this.steadyInMs(id) === 0);
  }

  isDown(nodeId: string): boolean {
    if (this.#parts.dispatcher.contactWith(nodeId) !== 'down') return false;
    return !this.#wasDeaf() || wasDown(this.#seen.get(nodeId));
  }

  isLost(nodeId: string): boolean {
    const { clock } = this.#parts;
    return this.isDown(nodeId) && clock.boottimeMs() - this.#heardSinceMs >= lostMs;
  }

  /** How long it has to stay before it is given tasks again. */
  steadyInMs(nodeId: string): number {
    const returns = this.#returnsMs.get(nodeId) ?? [];
    const last = returns.at(-1);
    if (last === undefined || returns.length < 2) return 0;
    const { firstSteadyMs, maxSteadyMs } = managerLimits;
    const untilMs = last + Math.min(maxSteadyMs, firstSteadyMs * 2 ** (returns.length - 2));
    return Math.max(0, untilMs - this.#parts.clock.boottimeMs());
  }

  /** Until it is stopped. */
  async watch(): Promise<void> {
    const { clock } = this.#parts;
    while (!this.#over.signal.aborted) {
      this.#lookedMs = clock.boottimeMs();
      await clock.sleep(managerLimits.nodeCheckMs, this.#over.signal);
      if (this.#over.signal.aborted) return;
      this.#wasDeaf();
      this.#parts.dispatcher.dropSlow();
      this.#look();
    }
  }

  /** A node has come, or may be used in another way: that need not wait for the next look. Of many, one look is enough. */
  lookSoon(): void {
    if (this.#soon !== undefined) return;
    const { clock, onChanged } = this.#parts;
    const look = (): void => {
      const beganUs = clock.monotonicUs();
      this.#soon = undefined;
      this.#look();
      onChanged([]);
      const endedUs = clock.monotonicUs();
      this.#nextLookUs = endedUs + (endedUs - beganUs) * managerLimits.nodeLookPause;
    };
    const waitMs = (this.#nextLookUs - clock.monotonicUs()) / 1_000;
    this.#soon = waitMs > 0 ? clock.timer(waitMs, look) : clock.soon(look);
  }

  #look(): void {
    const { view, onChanged } = this.#parts;
    const ready = new Set(this.ready());
    if (ready.size === 0) this.#heardSinceMs = Infinity;
    else if (this.#heardSinceMs === Infinity) this.#heardSinceMs = this.#parts.clock.boottimeMs();
    const changed: string[] = [];
    for (const { id, availability, labels } of view.nodes.values()) {
      const before = this.#seen.get(id);
      const isDown = this.isDown(id);
      if (wasDown(before) && !isDown && this.#noteReturn(id) > 0) ready.delete(id);
      const state = this.isLost(id) ? 'lost' : isDown ? 'down' : ready.has(id) ? 'ready' : 'neither';
      const now = `${state} ${availability} ${JSON.stringify(labels)}`;
      if (before === now) continue;
      this.#seen.set(id, now);
      changed.push(id);
    }
    for (const id of this.#seen.keys()) {
      if (view.nodes.has(id)) continue;
      this.#seen.delete(id);
      this.#returnsMs.delete(id);
    }
    if (changed.length > 0) onChanged(changed);
  }

  stop(): void {
    this.#over.abort();
    this.#soon?.cancel();
  }

  /** A manager that was stopped, or slept with its host, heard nobody meanwhile: what they have said lies in its sockets. */
  #wasDeaf(): boolean {
    const nowMs = this.#parts.clock.boottimeMs();
    if (this.#lookedMs !== undefined && nowMs - this.#lookedMs > managerLimits.heartbeatPeriodMs)
      this.#listensUntilMs = nowMs + lostMs;
    return nowMs < this.#listensUntilMs;
  }

  #noteReturn(nodeId: string): number {
    const { clock, log } = this.#parts;
    const nowMs = clock.boottimeMs();
    const known = this.#returnsMs.get(nodeId) ?? [];
    const returns = [...known.filter((ms) => nowMs - ms < managerLimits.flapWindowMs), nowMs];
    this.#returnsMs.set(nodeId, returns.slice(-managerLimits.maxReturns));
    const heldMs = this.steadyInMs(nodeId);
    if (heldMs > 0)
      log.warn(
        { node: nodeId, losses: returns.length, seconds: heldMs / 1000 },
        'node comes and goes: it is given no new tasks until it has stayed',
      );
    return heldMs;
  }
}

function wasDown(seen = ''): boolean {
  return /^(down|lost)/.test(seen);
}
