/** Chance that comes again: the same seed, the same numbers. */
import type { Random } from '../../src/model/clock.js';

export class Chance {
  #state: [number, number, number, number];

  constructor(seed: number, stream = 0) {
    this.#state = [seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0, stream >>> 0, 1];
    for (let n = 0; n < 20; n++) this.#next();
  }

  /** sfc32 (PractRand). */
  #next(): number {
    let [a, b, c, d] = this.#state;
    const t = (((a + b) | 0) + d) | 0;
    d = (d + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + t;
    this.#state = [a, b, c | 0, d];
    return t >>> 0;
  }

  /** From 0 to 1. */
  real(): number {
    return this.#next() / 2 ** 32;
  }

  /** From `least` on, below `most`. */
  between(least: number, most: number): number {
    return least + this.real() * (most - least);
  }

  /** A whole number from 0 on, below `count`. */
  below(count: number): number {
    return Math.floor(this.real() * count);
  }

  /** Whether what has this probability is so. */
  is(probability: number): boolean {
    return this.real() < probability;
  }

  /** Time until the next of what comes once in `mean` on the average. */
  wait(mean: number): number {
    return -Math.log(1 - this.real()) * mean;
  }

  pick<T>(all: readonly T[]): T {
    const one = all[this.below(all.length)];
    if (one === undefined) throw new RangeError('nothing to choose from');
    return one;
  }

  /** One of them, by their weights. */
  weighted<T extends string>(weights: Readonly<Record<T, number>>): T {
    const all = Object.entries(weights) as [T, number][];
    let left = this.real() * all.reduce((sum, [, weight]) => sum + weight, 0);
    for (const [name, weight] of all) if ((left -= weight) < 0) return name;
    return (all.at(-1) as [T, number])[0];
  }

  readonly bytes: Random = (n) => Uint8Array.from({ length: n }, () => this.#next() & 0xff);
}
