/** What the kernel has, and how it is set. */
import type { MountEntry } from '../agent/mount/mountpoint.js';
import { note, ok, warn, type Finding } from './finding.js';

/** memfd_secret(2) */
const secretMemory = [5, 14] as const;
/** FUSE 7.40: FUSE_NOTIFY_RESEND, without which a request that was in hand is lost with its server. */
const resend = [6, 9] as const;

/** @param release as uname -r says it: `6.1.0-18-amd64`. */
export function kernelVersion(release: string): Finding {
  const name = 'kernel';
  const [, major, minor] = /^([0-9]+)\.([0-9]+)/.exec(release) ?? [];
  if (major === undefined) return note(name, `release ${release}: cannot tell what it has`);
  const version = [Number(major), Number(minor)] as const;
  if (isBefore(version, secretMemory)) {
    return warn(
      name,
      `Linux ${release} has no memfd_secret (5.14): root can read values through /proc`,
      'upgrade the kernel to 5.14 or newer',
    );
  }
  if (isBefore(version, resend)) {
    return note(name, `Linux ${release}: before 6.9 a mount cannot be handed over to a new agent process`);
  }
  return ok(name, `Linux ${release}`);
}

/** @param pattern /proc/sys/kernel/core_pattern; undefined when it cannot be read. */
export function coreFiles(pattern: string | undefined): Finding {
  const name = 'core files';
  const place = pattern?.trim();
  if (place === undefined) return note(name, 'cannot tell where core files go');
  if (place === '' || /^\|\S*\/(false|true)\b/.test(place)) return ok(name, 'the kernel keeps none');
  return note(
    name,
    `inro's own are forbidden; of a program that reads secrets and crashes one goes to ${place}`,
    'where that matters, set LimitCORE=0 in the unit of that program, or ulimit -c 0',
  );
}

export function cgroups(mounts: readonly MountEntry[]): Finding {
  const name = 'cgroup v2';
  const [unified] = mounts.filter(({ fsType }) => fsType === 'cgroup2');
  if (unified === undefined) {
    return note(
      name,
      'not mounted: readers cannot be told apart by their container',
      'start the kernel with systemd.unified_cgroup_hierarchy=1',
    );
  }
  const beside = mounts.some(({ fsType }) => fsType === 'cgroup');
  return beside
    ? note(name, `at ${unified.mountPoint}, beside v1: what is in v1 alone cannot be told apart`)
    : ok(name, `at ${unified.mountPoint}`);
}

function isBefore(version: readonly [number, number], other: readonly [number, number]): boolean {
  return version[0] < other[0] || (version[0] === other[0] && version[1] < other[1]);
}
