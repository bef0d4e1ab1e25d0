/** Memory that is never swapped out, and what is. */
import { arenaSize } from '../agent/arena_size.js';
import { sizeText } from '../model/size.js';
import type { ArenaFacts, LockRoom } from '../system/addon.js';
import { fail, failure, note, ok, warn, type Finding } from './finding.js';

/** @param facts of an arena that was made to try. */
export function secretMemory({
  kind,
  locked,
  note: why,
}: Pick<ArenaFacts, 'kind' | 'locked' | 'note'>): Finding {
  const name = 'memfd_secret';
  if (!locked)
    return fail(name, `no memory can be locked: ${why}`, 'raise RLIMIT_MEMLOCK to 64 MiB: ulimit -l 65536');
  if (kind === 'memfd_secret') return ok(name, 'values are outside of readable memory');
  return warn(
    name,
    `not to be had (${why}): values are locked, but root can read them through /proc`,
    'use Linux 5.14 or newer; before 6.5 start it with secretmem.enable=1; a container profile may forbid it',
  );
}

/** @param lockable as an agent would ask it. */
export function lockLimit(lockable: (bytes: number) => LockRoom): Finding {
  const name = 'locked memory';
  try {
    const { heapBytes, limitBytes } = arenaSize(lockable);
    if (limitBytes === undefined) return ok(name, `room for ${sizeText(heapBytes)} of values`);
    return warn(
      name,
      `room for only ${sizeText(heapBytes)} of values, as RLIMIT_MEMLOCK is ${sizeText(limitBytes)}`,
      'raise it to 64 MiB: ulimit -l 65536, memlock in /etc/security/limits.conf, LimitMEMLOCK=64M in a unit, --ulimit memlock=67108864 for a container',
    );
  } catch (error) {
    return failure(name, error);
  }
}

/** @param swaps /proc/swaps: a heading, then one line for each. */
export function swap(totalBytes: number, swaps: string | undefined): Finding {
  const name = 'swap';
  if (totalBytes === 0) return ok(name, 'the host has none');
  const places = (swaps ?? '')
    .split('\n')
    .slice(1)
    .flatMap((line) => line.split(/\s+/, 1).filter((word) => word !== ''));
  return note(
    name,
    `${sizeText(totalBytes)}${places.length === 0 ? '' : ` (${places.join(', ')})`}: inro's values never go there, but the memory of programs that read them may`,
    'see that it is encrypted (whether it is cannot be told here), or switch it off: swapoff -a',
  );
}
