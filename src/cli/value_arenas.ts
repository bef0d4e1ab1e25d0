/** Locked memory for what a terminal reads. */
import { openArena, type Arena } from '../crypto/arena.js';
import { sizeText } from '../model/size.js';
import { addon } from '../system/addon.js';
import { warn } from './print.js';

/** Less locked memory than this is not worth having. */
const minLockedBytes = 16 * 1024;

export interface Arenas {
  arena: Arena;
  /** For what does not fit it: memory that is not locked, which is said. */
  larger: () => Arena;
}

/** What this user may lock, `bytes` at most. */
export function openArenas(wantedBytes: number): Arenas {
  const { bytes, limitBytes } = addon().lockable(wantedBytes);
  let unlocked: Arena | undefined;
  const larger = (): Arena => {
    if (unlocked === undefined)
      warn(
        `until this command ends, the value is in memory that may be swapped out: RLIMIT_MEMLOCK is ${sizeText(limitBytes)} (see ulimit -l)`,
      );
    return (unlocked ??= openArena(wantedBytes));
  };
  return { arena: bytes < minLockedBytes ? larger() : openArena(bytes), larger };
}
