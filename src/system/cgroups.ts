/** The unified hierarchy of control groups (cgroups(7)), as this process sees it. */
import { mkdirSync, readdirSync, readFileSync, rmdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

let mountedAt: string | undefined;

/** Where it is mounted: beside the older hierarchies, or alone. '' where it is not. */
export function unifiedMount(): string {
  mountedAt ??= found();
  return mountedAt;
}

function found(): string {
  try {
    const line = readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .find((each) => each.includes(' - cgroup2 '));
    return line?.split(' ')[4] ?? '';
  } catch {
    return ''; // not on Linux
  }
}

/** Whether a process is in it or below; false also when it is gone. The id is what tells it from one made anew. */
export function isPopulated(path: string, id: number): boolean {
  const folder = join(unifiedMount(), path);
  try {
    if (statSync(folder).ino !== id) return false;
    return /^populated 1$/m.test(readFileSync(join(folder, 'cgroup.events'), 'utf8'));
  } catch (error) {
    // What cannot be looked at is believed to be there: it is not this process's to end it.
    return (
      (error as NodeJS.ErrnoException).code !== 'ENOENT' && (error as NodeJS.ErrnoException).code !== 'ENODEV'
    );
  }
}

/** Ids of the processes in it and below, as far as they can be seen; none when it is gone. */
export function processesIn(path: string): number[] {
  const folder = join(unifiedMount(), path);
  try {
    const own = readFileSync(join(folder, 'cgroup.procs'), 'utf8').split('\n').filter(Boolean).map(Number);
    const below = readdirSync(folder, { withFileTypes: true }).filter((entry) => entry.isDirectory());
    return [...own, ...below.flatMap(({ name }) => processesIn(join(path, name)))];
  } catch {
    return []; // it has ended meanwhile
  }
}

/** Makes a group below that of this process. @throws what mkdir(2) says. */
export function makeCgroup(parentPath: string, name: string): string {
  mkdirSync(join(unifiedMount(), parentPath, name));
  return join(parentPath, name);
}

/** @throws what the kernel says. */
export function enterCgroup(path: string): void {
  writeFileSync(join(unifiedMount(), path, 'cgroup.procs'), `${process.pid}`);
}

/** Of an empty one. False when it stays. */
export function removeCgroup(path: string): boolean {
  try {
    rmdirSync(join(unifiedMount(), path));
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT';
  }
}
