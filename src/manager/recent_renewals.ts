/** How often a node may have a new certificate. By boot time: a wall clock that jumps neither opens nor bars it. */
import type { Clock } from '../model/clock.js';
import { InroError } from '../model/error.js';
import { managerLimits } from './limits.js';

interface Renewed {
  atMs: number;
  /** Of the certificate that was shown. */
  serial: string;
}

export class RecentRenewals {
  readonly #clock: Pick<Clock, 'boottimeMs'>;
  /** By node, the longest ago first. */
  readonly #renewed = new Map<string, Renewed>();

  constructor(clock: Pick<Clock, 'boottimeMs'>) {
    this.#clock = clock;
  }

  /**
   * A node that shows the same certificate again has not taken up the one it was given: it waits less.
   * @param isOfFormerCa the certificate that is shown: the node is wanted to have another, and waits no longer than that either.
   * @returns how to take it back: a try that failed counts for nothing.
   * @throws rate_limited.
   */
  admit(nodeId: string, serial: string, isOfFormerCa = false): () => void {
    const now = this.#clock.boottimeMs();
    for (const [id, { atMs }] of this.#renewed) {
      if (now - atMs < managerLimits.renewalGapMs) break;
      this.#renewed.delete(id);
    }
    const last = this.#renewed.get(nodeId);
    const gapMs =
      last?.serial === serial || isOfFormerCa ? managerLimits.renewalRepeatMs : managerLimits.renewalGapMs;
    const leftMs = last === undefined ? 0 : last.atMs + gapMs - now;
    if (leftMs > 0) throw tooSoon(`node ${nodeId} was given a certificate just now`, leftMs);
    if (last === undefined && this.#renewed.size >= managerLimits.maxRecentRenewals)
      throw tooSoon('too many nodes renew their certificates at once', managerLimits.renewalGapMs);
    this.#put(nodeId, { atMs: now, serial });
    return () => {
      if (last === undefined) this.#renewed.delete(nodeId);
      else this.#put(nodeId, last);
    };
  }

  #put(nodeId: string, renewed: Renewed): void {
    this.#renewed.delete(nodeId);
    this.#renewed.set(nodeId, renewed);
  }
}

function tooSoon(what: string, leftMs: number): InroError {
  return new InroError('rate_limited', what, { remedy: `wait for ${Math.ceil(leftMs / 1000)} s` });
}
