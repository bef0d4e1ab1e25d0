/**
 * The typed face of the native addon (native/): locked memory and the few system calls that Node lacks.
 * It knows bytes and paths, nothing of tasks or managers.
 */
import { createRequire } from 'node:module';

/**
 * A bounded region of locked memory that hands out pieces of itself. Every function below throws a TypeError, or a RangeError for
 * a number out of range, that names the argument. Zeroed when the process exits or its worker ends; not when a signal kills it.
 */
export interface NativeArena {
  /**
   * A zeroed piece of `bytes` (1 or more) bytes as an ArrayBuffer over the region itself, or null when none that large is free.
   * It occupies whole granules of 64 bytes. Collected without free(), it is zeroed and taken back then.
   */
  alloc(bytes: number): ArrayBuffer | null;
  /**
   * Zeroes the piece, detaches the ArrayBuffer (its length becomes 0) and takes it back. A TypeError for a foreign or detached one.
   * Not while an asynchronous read or write of it is under way: that would write into whatever piece comes next at the place.
   */
  free(piece: ArrayBuffer): void;
  facts(): ArenaFacts;
}

export interface ArenaFacts {
  /** memfd_secret: outside the kernel's direct map. mlock: locked, not dumped, not inherited by a fork. */
  kind: 'memfd_secret' | 'mlock';
  /** False when the kernel refused to lock (then `note` says why). */
  locked: boolean;
  /** Why the better kind is not in force; empty when it is. */
  note: string;
  sizeBytes: number;
  /** In whole granules; with freeBytes it is sizeBytes. */
  usedBytes: number;
  freeBytes: number;
  /** The largest piece that alloc would give now. */
  largestBytes: number;
  pieces: number;
}

export interface Addon {
  /**
   * Maps and locks `bytes` (rounded up to whole pages; at most 1 GiB). Throws only when there is no memory to map: a refused lock
   * is in the facts.
   * @param kind 'auto' takes memfd_secret where the kernel has it; 'mlock' is for tests of the fallback.
   */
  createArena(bytes: number, kind: 'auto' | 'mlock'): NativeArena;
  /** umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW). Returns 0 or an errno. */
  unmount(path: string): number;
  /** fcntl(fd, F_SETFD, FD_CLOEXEC): children do not inherit it. Returns 0 or an errno. */
  closeOnExec(fd: number): number;
  /**
   * execve(2): the same process, another program. `environment` is `NAME=VALUE` texts. Only descriptors 0 to 2 stay
   * open. Returns an errno, or never.
   */
  replaceProcess(path: string, args: readonly string[], environment: readonly string[]): number;
  /** Opens (creating with 0600) and flock(LOCK_EX | LOCK_NB)s a file for the life of this process: its descriptor, or -errno (-EWOULDBLOCK: another process holds it). */
  lockFile(path: string): number;
  /** getpwnam_r / getgrnam_r: the numeric id, or -1 when the host knows no such name. Throws when it cannot say (EMFILE, EIO). */
  userId(name: string): number;
  groupId(name: string): number;
  /** CLOCK_BOOTTIME in ms. */
  boottimeMs(): number;
  /** prctl(PR_SET_DUMPABLE, 0) and RLIMIT_CORE 0: no core file, no attach by another user. Returns 0 or an errno. */
  forbidDumps(): number;
  /**
   * mallopt(M_PERTURB): freed heap blocks are overwritten at once. True where the C library has it. Seen on glibc 2.36: blocks of
   * up to 1,032 bytes that go to the thread's cache are NOT overwritten (all but 16 bytes stay) unless the process was started
   * with GLIBC_TUNABLES=glibc.malloc.tcache_count=0.
   */
  overwriteFreedHeap(): boolean;
}

let loaded: Addon | undefined;

/** The addon; loaded at the first call, so that commands that need none start without it. */
export function addon(): Addon {
  loaded ??= createRequire(import.meta.url)('../../../native/build/Release/inro.node') as Addon;
  return loaded;
}
