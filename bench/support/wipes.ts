/** Wipes, one after the other: how long each takes, and whether anybody still reads when it has returned. */
import type { Reader } from './reader.js';
import type { Served } from './served.js';

const wipedBytes = 64 * 1024;
const service = 'wiped';

export interface Wipes {
  /** While a reader has the file open, and mapped if it may be. */
  quietUs: number[];
  /** While four threads read it. */
  racedUs: number[];
  /** Reads that began after the wipe had returned, and how many of them gave bytes. */
  tried: number;
  late: number;
}

export async function wipeOften(
  reader: Reader,
  served: Served,
  wipes: number,
  mmap: boolean,
): Promise<Wipes> {
  const racers = reader.racers();
  const done: Wipes = { quietUs: [], racedUs: [], tried: 0, late: 0 };
  for (let i = 0; i < wipes; i++) {
    const held = { path: await served.publish(service, wipedBytes, mmap), bytes: wipedBytes, mmap };
    await racers.hold(held);
    done.quietUs.push((await served.wipe(service)).us);
    await racers.drop();

    await racers.start({ ...held, path: await served.publish(service, wipedBytes, mmap) });
    const wiped = await served.wipe(service);
    done.racedUs.push(wiped.us);
    const { tried, late } = await racers.judge(wiped.endedNs);
    done.tried += tried;
    done.late += late;
  }
  await racers.end();
  return done;
}
