/** A cgroup whose processes write to the disk as slowly as a test wants. */
import { existsSync, mkdirSync, readFileSync, rmdirSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';

export interface SlowDisk {
  /** Words in front of a command that is to run in the cgroup. */
  through: readonly string[];
  /** So many writes a second to the disk that has the temporary files; undefined: as fast as it can. */
  writes(aSecond: number | undefined): void;
}

/** @param t its teardown removes the cgroup, which has no process then. */
export function slowDisk(t: Pick<ExecutionContext, 'teardown'>): SlowDisk {
  const { root, version } = controller();
  const cgroup = join(root, `inro-test-${process.pid}-${Date.now()}`);
  mkdirSync(cgroup);
  t.teardown(() => rmdirSync(cgroup));
  const { dev } = statSync(tmpdir());
  // glibc's gnu_dev_major and gnu_dev_minor.
  const device = `${(dev >> 8) & 0xfff}:${(dev & 0xff) | ((dev >> 12) & 0xfff00)}`;
  return {
    through: ['sh', '-c', 'echo $$ > "$0/cgroup.procs" && exec "$@"', cgroup],
    writes: (aSecond) => {
      if (version === 1)
        writeFileSync(join(cgroup, 'blkio.throttle.write_iops_device'), `${device} ${aSecond ?? 0}`);
      else writeFileSync(join(cgroup, 'io.max'), `${device} wiops=${aSecond ?? 'max'}`);
    },
  };
}

function controller(): { root: string; version: 1 | 2 } {
  const mounts = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' '));
  const first = mounts.find(
    ([, , type, options]) => type === 'cgroup' && options?.split(',').includes('blkio'),
  );
  if (first?.[1] !== undefined) return { root: first[1], version: 1 };
  const second = mounts.find(([, , type]) => type === 'cgroup2')?.[1];
  if (second === undefined || !existsSync(join(second, 'cgroup.subtree_control')))
    throw new Error('there are no cgroups for disks');
  writeFileSync(join(second, 'cgroup.subtree_control'), '+io');
  return { root: second, version: 2 };
}
