/**
 * How large the arena is: as large as it may be, or as much of it as this user may lock. What cannot be locked could be
 * swapped out, and nobody would see it: so an agent that may lock next to nothing does not start.
 */
import { InroError } from '../model/error.js';
import { sizeText } from '../model/size.js';
import type { LockRoom } from '../system/addon.js';
import { agentLimits } from './limits.js';

export interface ArenaSize {
  /** For values, keys and directories. */
  heapBytes: number;
  /** How many files, links and directories the mount can show. */
  nodes: number;
  /** RLIMIT_MEMLOCK, where that is why the arena is smaller than it could be. */
  limitBytes?: number;
}

const pageBytes = 4096;
const nodeBytes = 128;
/** Header, pollers, journal and accesses (native/core/image.h). */
const fixedBytes = pageBytes + 4096 * 32 + 16_384 * 16 + 2048 * 128 + 1024 * 64;
/** The rest is one part for nodes and three for values. */
const nodesPart = 1 / 4;

/** @param lockable tells how many of these bytes may be locked now. @throws not_permitted when they are too few. */
export function arenaSize(lockable: (bytes: number) => LockRoom): ArenaSize {
  const { arenaBytes, maxNodes, replyBuffersBytes, minLockedBytes } = agentLimits;
  const around = fixedBytes + replyBuffersBytes;
  const wanted = around + arenaBytes + maxNodes * nodeBytes;
  const { bytes, limitBytes } = lockable(wanted);
  if (bytes >= wanted) return { heapBytes: arenaBytes, nodes: maxNodes };
  if (bytes < minLockedBytes) throw tooLittle(bytes, limitBytes);
  const rest = bytes - around;
  const nodesBytes = wholePages(rest * nodesPart);
  return { heapBytes: wholePages(rest - nodesBytes), nodes: nodesBytes / nodeBytes, limitBytes };
}

function tooLittle(bytes: number, limitBytes: number): InroError {
  const now = bytes === limitBytes ? '' : `, and ${sizeText(bytes)} can be locked now`;
  return new InroError(
    'not_permitted',
    `an agent needs ${sizeText(agentLimits.minLockedBytes)} of memory that it may lock, so that no secret is swapped out: RLIMIT_MEMLOCK is ${sizeText(limitBytes)}${now}`,
    {
      remedy:
        'raise it to 64 MiB: ulimit -l 65536, memlock in /etc/security/limits.conf, LimitMEMLOCK=64M in a unit, --ulimit memlock=67108864 for a container',
    },
  );
}

function wholePages(bytes: number): number {
  return Math.floor(bytes / pageBytes) * pageBytes;
}
