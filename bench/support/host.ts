/** The host that a benchmark runs on: what it is, what it lacks, and what a process of it uses. */
import { existsSync, readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { arch, cpus, release, type } from 'node:os';
import { delimiter, join } from 'node:path';

/** One line: kernel, processors, Node. */
export function machine(): string {
  const model = cpus()[0]?.model.trim() ?? 'unknown processor';
  const allowed = allowedCpus().length;
  const online = cpus().length;
  const count = allowed === online ? `${online}` : `${allowed} of ${online}`;
  return `${type()} ${release()} ${arch()}, ${count} CPU${online === 1 ? '' : 's'} (${model}), Node ${process.version}`;
}

/** Why nothing can be mounted here, or undefined. */
export function cannotMount(): string | undefined {
  if (process.getuid?.() !== 0) return 'it mounts, which needs root: run it as root, or with sudo';
  if (!existsSync('/dev/fuse')) return 'there is no /dev/fuse: load the kernel module with modprobe fuse';
  return undefined;
}

/** Why a program in C++ cannot be compiled here, or undefined. */
export function cannotCompile(): string | undefined {
  return lacksProgram('g++', 'which compiles the reader', 'g++');
}

/** What to do about a program that is not installed, or undefined. @param packages of Debian */
export function lacksProgram(program: string, why: string, packages: string): string | undefined {
  const places = (process.env['PATH'] ?? '').split(delimiter);
  if (places.some((place) => place !== '' && existsSync(join(place, program)))) return undefined;
  return `${program} is missing, ${why}: install it with apt-get install -y ${packages}`;
}

/** Processors that this process may use, by number. */
export function allowedCpus(): number[] {
  const list = /^Cpus_allowed_list:\s*(.*)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0';
  return list.split(',').flatMap((range) => {
    const [first = 0, last = first] = range.split('-').map(Number);
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  });
}

/** What all threads of a process that are alive have run for, in us (proc(5): task/TID/schedstat, in ns). */
export function cpuUs(pid: number): number {
  const tasks = `/proc/${pid}/task`;
  return readdirSync(tasks).reduce((sum, task) => {
    const [ranNs = NaN] = readFileSync(`${tasks}/${task}/schedstat`, 'utf8').split(' ').map(Number);
    return sum + ranNs / 1000;
  }, 0);
}

export function rssKib(pid: number): number {
  return Number(/^VmRSS:\s*(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? NaN);
}

/** Processes that this one has started. */
export function children(pid: number): number[] {
  return processes().filter((each) => parentOf(each) === pid);
}

/** A process, and those that it or they have started, as far as they see the same mounts: not what is in a container. */
export function family(pid: number): number[] {
  const mounts = mountsOf(pid);
  const below = (parent: number): number[] =>
    children(parent)
      .filter((child) => mountsOf(child) === mounts)
      .flatMap((child) => [child, ...below(child)]);
  return [pid, ...below(pid)];
}

function processes(): number[] {
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => pid > 0);
}

function parentOf(pid: number): number | undefined {
  try {
    return Number(/^PPid:\s*(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
  } catch {
    return undefined; // it has ended
  }
}

function mountsOf(pid: number): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/mnt`);
  } catch {
    return undefined;
  }
}
