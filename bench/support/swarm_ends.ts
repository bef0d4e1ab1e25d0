/** What is left of a value: on a node that is cut off, and in the memory of daemons. */
import { countInMemory } from '../../test/support/memory_scan.js';
import { pause } from '../../test/support/inro.js';
import { drawValue, sees } from './swarm_rounds.js';
import { nowMs } from './sightings.js';
import type { System } from './system.js';

const rescheduleLimitMs = 120_000;

export interface CutOff {
  /** From when its link was down until another node has it. */
  elsewhereS: number;
  /** From then until nobody can read it on the node that was cut off; NaN: it still can be read. */
  goneS: number;
  /** Whether it can be read there so long after service and secret were removed. */
  isThere: boolean;
}

/** @param lookMs after service and secret were removed */
export async function cutOff(system: System, lookMs: number): Promise<CutOff> {
  const { sightings } = system;
  await system.begin();
  const value = drawValue();
  const makeMs = nowMs();
  const action = await system.create('command', value);
  await action();
  const { node } = await sightings.first(`${system.name}: a task to cut off`, makeMs, sees(value));
  await system.settled();
  await system.watch(node);
  await system.setWire(node, 'down');
  const cutMs = nowMs();
  const elsewhere = await sightings.first(
    `${system.name}: elsewhere after a cut`,
    cutMs,
    (sighting) => sees(value)(sighting) && sighting.node !== node,
    rescheduleLimitMs,
  );
  await system.removeAll();
  await pause(lookMs);
  const isThere = system.isThere(node);
  const gone = sightings.since(cutMs).find((sighting) => system.isGone(sighting, node));
  await system.setWire(node, 'up');
  await system.healed();
  await system.end();
  const seconds = (ms: number): number => (ms - cutMs) / 1000;
  return {
    elsewhereS: seconds(elsewhere.atMs),
    goneS: gone === undefined ? NaN : seconds(gone.atMs),
    isThere,
  };
}

/** Copies of a value that anybody with the right to look finds in the memory of the daemons. */
export interface Copies {
  manager: number;
  nodes: number;
}

/** A value that each node serves, and its copies. */
export class Marked {
  readonly #system: System;
  readonly #markers: Uint8Array[];

  private constructor(system: System, markers: Uint8Array[]) {
    this.#system = system;
    this.#markers = markers;
  }

  static async serve(system: System): Promise<Marked> {
    await system.begin();
    const value = drawValue();
    const beganMs = nowMs();
    await system.serveEverywhere(value);
    await system.sightings.first(`${system.name}: the marked value`, beganMs, sees(value));
    return new Marked(system, [Buffer.from(value)]);
  }

  async remove(): Promise<void> {
    await this.#system.removeAll();
    await this.#system.end();
  }

  async count(): Promise<Copies> {
    const { manager, nodes } = this.#system.daemons();
    return { manager: await this.#in(manager), nodes: await this.#in(nodes) };
  }

  async #in(pids: readonly number[]): Promise<number> {
    let copies = 0;
    for (const pid of pids) for (const count of await countInMemory(pid, this.#markers)) copies += count;
    return copies;
  }
}
