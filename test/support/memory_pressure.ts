/**
 * A memory cgroup that can be squeezed until what its processes hold lies in a swap file, and a look into that file.
 * Another process takes both away, however this one ends.
 */
import { execFile, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { ExecutionContext } from 'ava';
import { eventually } from './inro.js';
import { scanStream, type Markers, type MemoryScan } from './marker_scan.js';

const swapMiB = 512;
const squeezedBytes = 16 << 20;
const noLimit = '9000000000000000000';

export interface MemoryPressure {
  /** Words in front of a command that is to run in the cgroup. */
  through: readonly string[];
  /** Until at least `share` of each process's own memory is swapped out. */
  squeeze(pids: readonly number[], share: number): Promise<void>;
  /** The swap file as it is on the disk. */
  scan(markers: Markers): Promise<MemoryScan>;
}

// $1 the folder with the swap file, $2 the cgroup. stdin ends when the test process ends, however it does. Its own end
// is what the test waits for. A cgroup goes when its last process has gone.
const guard = `
cat > /dev/null
for limit in memory.limit_in_bytes memory.high; do
  [ ! -e "$2/$limit" ] || echo 9000000000000000000 > "$2/$limit"
done 2>/dev/null
swapoff "$1/swap" 2>/dev/null
for process in $(cat "$2/cgroup.procs"); do kill -9 "$process"; done 2>/dev/null
for n in $(seq 100); do rmdir "$2" 2>/dev/null && break; sleep 0.1; done
rm -rf -- "$1"
`;

/** @throws when the kernel has no memory cgroups, or lets nobody swap here. */
export async function memoryPressure(t: ExecutionContext): Promise<MemoryPressure> {
  const folder = mkdtempSync(join(tmpdir(), 'inro-swap-'));
  const swap = join(folder, 'swap');
  const cgroup = join(controller(), `inro-${folder.slice(-6)}`);
  const end = spawn('sh', ['-c', guard, 'guard', folder, cgroup], {
    cwd: '/',
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  t.teardown(async () => {
    const ended = new Promise((resolve) => end.once('exit', resolve));
    end.stdin?.end();
    await ended;
  });
  mkdirSync(cgroup);
  const make = `dd if=/dev/zero of='${swap}' bs=1M count=${swapMiB} status=none && chmod 600 '${swap}' && mkswap '${swap}' && swapon '${swap}'`;
  await promisify(execFile)('sh', ['-c', make]);
  const set = (file: string, value: string): void => {
    const path = join(cgroup, file);
    if (existsSync(path)) attempt(() => writeFileSync(path, value));
  };
  return {
    through: ['sh', '-c', 'echo $$ > "$0/cgroup.procs" && exec "$@"', cgroup],
    squeeze: (pids, share) =>
      eventually(`${share * 100} % of it is swapped out`, async () => {
        // Each limit for a moment only: a process that needs more under it would be killed.
        for (const file of ['memory.limit_in_bytes', 'memory.high']) {
          set(file, String(squeezedBytes));
          set(file, noLimit);
        }
        set('memory.force_empty', '1');
        set('memory.reclaim', '1G');
        return pids.every((pid) => swappedShare(pid) >= share);
      }).then(() => undefined),
    scan: async (markers) => {
      // Past the page cache, which knows nothing of what the kernel swaps.
      const dd = spawn('dd', [`if=${swap}`, 'iflag=direct', 'bs=1M', 'status=none'], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      return scanStream(dd.stdout, markers);
    },
  };
}

/** Of cgroup v1, or the root of v2 that has this controller. */
function controller(): string {
  const mounts = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' '));
  const first = mounts.find(
    ([, , type, options]) => type === 'cgroup' && options?.split(',').includes('memory'),
  );
  if (first?.[1] !== undefined) return first[1];
  const second = mounts.find(([, , type]) => type === 'cgroup2')?.[1];
  if (second === undefined) throw new Error('there are no memory cgroups');
  writeFileSync(join(second, 'cgroup.subtree_control'), '+memory');
  return second;
}

function swappedShare(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const kib = (field: string) => Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(status)?.[1] ?? 0);
  const swapped = kib('VmSwap');
  return swapped / (swapped + kib('RssAnon') + 1);
}

/** A squeezed cgroup answers EBUSY or EAGAIN when it cannot give more. */
function attempt(write: () => void): void {
  try {
    write();
  } catch (error) {
    if (!['EBUSY', 'EAGAIN', 'EINTR'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
  }
}
