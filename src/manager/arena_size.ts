/**
 * How large the manager's arena is. Keys need little room, and whoever may lock little needs it for the agent of the same
 * process (inro dev). Without leave to lock, keys are in memory that may be swapped out: they stand in the state folder anyway.
 */
import type { LockRoom } from '../system/addon.js';
import { managerLimits } from './limits.js';

const pageBytes = 4096;

/** @param lockable tells how many of these bytes may be locked now. */
export function arenaSize(lockable: (bytes: number) => LockRoom): number {
  const { arenaBytes, smallArenaBytes, minLockedBytes } = managerLimits;
  const { bytes } = lockable(arenaBytes * 4);
  if (bytes < minLockedBytes) return arenaBytes; // and unlocked
  const part = Math.floor(bytes / 4 / pageBytes) * pageBytes;
  return Math.min(arenaBytes, bytes, Math.max(smallArenaBytes, part));
}
