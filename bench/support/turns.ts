/** Operations that are timed in rounds: what was measured, by name, in the order of the rounds. */
import type { Times } from './reader.js';
import type { Served } from './served.js';

interface Turn extends Times {
  /** What the serving process ran for each operation, when it was watched. */
  serverUs: number;
}

export class Turns {
  readonly #turns = new Map<string, Turn[]>();

  /** Each once, beginning with another one each round. */
  async take(round: number, all: readonly [string, () => Promise<Times>, Served?][]): Promise<void> {
    const first = round % all.length;
    for (const [name, measure, served] of [...all.slice(first), ...all.slice(0, first)]) {
      const beforeUs = served?.cpuUs() ?? NaN;
      const times = await measure();
      const serverUs = ((served?.cpuUs() ?? NaN) - beforeUs) / (times.ops + times.warmUps);
      this.#turns.set(name, [...this.#of(name), { ...times, serverUs }]);
    }
  }

  /** One of its times for each round, in us. */
  us(name: string, which: 'meanNs' | 'p50Ns' | 'p99Ns'): number[] {
    return this.#of(name).map((turn) => turn[which] / 1000);
  }

  serverUs(name: string): number[] {
    return this.#of(name).map(({ serverUs }) => serverUs);
  }

  #of(name: string): Turn[] {
    return this.#turns.get(name) ?? [];
  }
}
