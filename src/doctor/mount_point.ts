/**
 * What is mounted where the secrets should be. The place itself is never touched: a stat(2) of a mount whose server hangs
 * does not return. Only mountinfo is read, and the agent's socket says whether somebody serves it.
 */
import { realpathSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { isInroMount, topMountAt, type MountEntry } from '../agent/mount/mountpoint.js';
import { fail, ok, warn, type Finding } from './finding.js';

export interface MountPointFacts {
  path: string;
  mounts: readonly MountEntry[];
  /** An agent answers on its socket. */
  agentAnswers: boolean;
  user: number;
}

export function mountPoint({ path, mounts, agentAnswers, user }: MountPointFacts): Finding {
  const name = 'mount point';
  const place = canonical(path, mounts);
  const top = topMountAt(mounts, place);
  if (top === undefined) return ok(name, `${place}, nothing is mounted there now`);
  if (!isInroMount(top)) {
    return fail(
      name,
      `${place} has another mount (${top.fsType} from ${top.source})`,
      'unmount it, or choose another place with --mount DIR',
    );
  }
  if (top.userId !== undefined && top.userId !== user) {
    return fail(
      name,
      `${place} is a mount of inro that belongs to another user (uid ${top.userId})`,
      'choose another place with --mount DIR, or run this as that user',
    );
  }
  if (agentAnswers) return ok(name, `${place}, mounted by the agent that runs`);
  return warn(
    name,
    `${place} has a mount of inro, and no agent answers: it is dead, or its agent hangs or has another socket`,
    `start the agent: it takes a dead one away; or do it now: ${user === 0 ? `umount -l ${place}` : `fusermount3 -u -z ${place}`}`,
  );
}

/** As mountinfo writes it. The way to it is followed only where no mount of inro is on it. */
function canonical(path: string, mounts: readonly MountEntry[]): string {
  const given = resolve(path);
  const isOnTheWay = ({ mountPoint: place }: MountEntry): boolean =>
    `${dirname(given)}/`.startsWith(`${place}/`);
  if (mounts.some((mount) => isInroMount(mount) && isOnTheWay(mount))) return given;
  try {
    return join(realpathSync(dirname(given)), basename(given));
  } catch {
    return given;
  }
}
