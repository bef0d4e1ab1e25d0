/** What is timed of a system in each round: all in ms, by the clock of the workload that sees it. */
import { randomBytes } from 'node:crypto';
import { pause } from '../../test/support/inro.js';
import { median } from './results.js';
import { isFailure, nowMs, type Sighting } from './sightings.js';
import type { Action, How, Order, System } from './system.js';

/** What a round has started may go on for a moment, and is not to run beside the next. */
const restMs = 500;

export interface Change {
  ms: number;
  /** Workloads that began for it. */
  restarts: number;
}

interface Times {
  createMs: number;
  rotations: Partial<Record<Order, Change>>;
  removeMs: number;
}

export interface Round {
  /** The median of those beside each command. */
  startUpMs: number;
  command: Times;
  api: Times;
  drained: { elsewhereMs: number; goneMs: number };
}

export async function round(system: System): Promise<Round> {
  const startUpsMs: number[] = [];
  const look = async (): Promise<void> => void startUpsMs.push(await system.startUpMs());
  const { drained, ...command } = await life(system, 'command', look);
  const { drained: _, ...api } = await life(system, 'api', async () => undefined);
  if (drained === undefined) throw new Error('no drain');
  return { startUpMs: median(startUpsMs), command, api, drained };
}

/** A value that nothing else has. */
export function drawValue(): string {
  return randomBytes(24).toString('base64url');
}

/** That a workload of the service reads this. */
export function sees(value: string): (sighting: Sighting) => boolean {
  return ({ what, seen }) => what === 'web' && seen === value;
}

async function life(
  system: System,
  how: How,
  before: () => Promise<void>,
): Promise<Times & { drained?: Round['drained'] }> {
  const { sightings } = system;
  const time = async (
    action: Action,
    what: string,
    isIt: (sighting: Sighting) => boolean,
  ): Promise<{ ms: number; seen: Sighting }> => {
    await before();
    const beganMs = nowMs();
    const [seen] = await Promise.all([
      sightings.first(`${system.name}, ${how}: ${what}`, beganMs, isIt),
      action(),
    ]);
    return { ms: seen.atMs - beganMs, seen };
  };
  await system.begin();
  const value = drawValue();
  const created = await time(await system.create(how, value), 'create', sees(value));
  let { node } = created.seen;

  const rotations: Times['rotations'] = {};
  for (const order of how === 'command' ? system.orders : system.orders.slice(-1)) {
    await system.settled();
    await pause(restMs);
    const next = drawValue();
    const old = new Set(sightings.present.map(({ process }) => process));
    const { ms, seen } = await time(await system.rotate(how, next, order), `rotate, ${order}`, sees(next));
    const began = sightings.present.filter(({ what, process }) => what === 'web' && !old.has(process));
    rotations[order] = { ms, restarts: new Set(began.map(({ process }) => process)).size };
    node = seen.node;
  }

  await system.settled();
  let drained: Round['drained'] | undefined;
  if (how === 'command') {
    await system.watch(node);
    await pause(restMs);
    const from = node;
    const drain = await system.drain(from);
    const beganMs = nowMs();
    const isElsewhere = (sighting: Sighting) =>
      sighting.what === 'web' && sighting.node !== from && !isFailure(sighting.seen);
    const [elsewhere, gone] = await Promise.all([
      sightings.first('drained: elsewhere', beganMs, isElsewhere),
      sightings.first('drained: gone', beganMs, (sighting) => system.isGone(sighting, from)),
      drain(),
    ]);
    drained = { elsewhereMs: elsewhere.atMs - beganMs, goneMs: gone.atMs - beganMs };
    node = elsewhere.node;
    await system.activate(from);
    await system.settled();
  }

  await system.watch(node);
  await pause(restMs);
  const removed = await time(await system.remove(how), 'remove', (sighting) => system.isGone(sighting, node));
  await system.end();
  await pause(restMs);
  return {
    createMs: created.ms,
    rotations,
    removeMs: removed.ms,
    ...(drained === undefined ? {} : { drained }),
  };
}
