/**
 * The typed face of the native addon (native/): locked memory and the few system calls that Node lacks.
 * It knows bytes and paths, nothing of tasks or managers.
 */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { InroError } from '../model/error.js';

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
   * When it returns, no reader of a mount gets a byte of it any more, not by an open descriptor, not by a mapping. False when
   * the kernel has not let go of mapped pages within 5 s; it is then told again and again.
   */
  free(piece: ArrayBuffer): boolean;
  /** Zeroes everything, as the end of the process does. */
  wipe(): void;
  facts(): ArenaFacts;
}

/** An arena that also holds what a mount shows (native/core/image.h), and can serve it without JavaScript. */
export interface NativeServedArena extends NativeArena {
  /** An id for a new node, never used before, or null when the table is full. */
  reserveNode(): number | null;
  /** An id that is not going to be made. */
  giveBackNode(id: number): void;
  /** Carries the step out and returns '', or does nothing and says why; ids of `made` are given back then. */
  commit(step: NativeStep): string;
  /** The lease: ms of CLOCK_BOOTTIME at and after which each open and read fails with ESTALE. */
  serveUntil(boottimeMs: number): void;
  /**
   * Mounts and serves with `workers` threads, once the kernel has agreed. Rejects with `errno`, `step` (what was tried) and
   * `said` (by fusermount3).
   * @param how 'direct' (root), 'helper' (fusermount3, for the same user alone), 'helper, others'.
   * @param newestMinor of the FUSE protocol that the server admits to know; 45 but for tests.
   */
  mount(
    path: string,
    how: 'direct' | 'helper' | 'helper, others',
    workers: number,
    newestMinor: number,
  ): Promise<NativeServer>;
  /**
   * Serves a device that is mounted already, whose descriptor is taken. `isNew`: nobody has served it yet. Otherwise what a
   * predecessor took and did not answer is asked again (FUSE_NOTIFY_RESEND, Linux 6.9), and who waits in poll(2) is woken.
   */
  serve(device: number, isNew: boolean, workers: number, newestMinor: number): Promise<NativeServer>;
  nodesUsed(): number;
  /** All nodes, as a predecessor left them. */
  nodes(): InheritedNode[];
  /** The piece behind a file, from its beginning to the value's end, or null. Once for each piece: it is given back by free(). */
  valueOf(node: number): ArrayBuffer | null;
  /** What a successor is to know, of no node, in place of what was kept before; empty: nothing. False: no room, nothing is kept. */
  keepNote(note: Uint8Array): boolean;
  /** Also a predecessor's; empty when there is none. */
  keptNote(): Buffer;
  /** Of the memory, for a successor; -1 when it has none. Whoever has it can read everything. */
  descriptor(): number;
  servedUntil(): number;
  /** Who accessed what since the last call, also what a predecessor has not told; null when nobody did. */
  collectAccesses(): NativeAccesses | null;
  /**
   * Gives values to units of systemd that connect to this listening socket, which is taken. `onWaiting` is called when somebody
   * waits, and again only once accept() gave nothing; it must not throw. @throws when no thread can be started.
   */
  serveCredentials(descriptor: number, onWaiting: () => void): NativeCredentials;
  /** From here on the memory is somebody else's: nothing is changed, given out or zeroed any more, also at the end. */
  letGo(): void;
}

/** Values for units of systemd (native/core/credentials.h). */
export interface NativeCredentials {
  /** Who waits first, or null. Each is to be answered in the same turn: by give() or refuse(). */
  accept(): NativeCredentialRequest | null;
  /** Sends a file's value, beside the event loop if it takes longer. One of accessOutcomes; but for `opened` nothing was sent yet. */
  give(connection: number, node: number): number;
  /** Sends more than systemd takes, so that the unit does not start: these words again and again. */
  refuse(connection: number, words: string): void;
  /** `cutOff`: those who did not read and had to make room for others. */
  facts(): { connections: number; cutOff: number };
  /** Those that read get the rest first, for a second at most; blocks meanwhile. Closes the socket. */
  stop(): void;
}

export interface NativeCredentialRequest {
  connection: number;
  uid: number;
  gid: number;
  /** 0: of another pid namespace. */
  pid: number;
  /** Root, or the user who runs this. */
  trusted: boolean;
  /** As systemd says it by its address; both '' for who is not systemd. */
  unit: string;
  id: string;
}

interface InheritedFacts {
  id: number;
  /** Permission bits. */
  mode: number;
  uid: number;
  gid: number;
  /** ms since 1970. */
  modifiedMs: number;
  size: number;
  note: Uint8Array;
}

export type InheritedNode = InheritedFacts &
  (
    | {
        kind: 'directory';
        parent: number;
        entries: [name: string, node: number][];
        gate: { readers: 'any' | Cgroup[]; note: Uint8Array };
      }
    | { kind: 'link'; text: string }
    | {
        kind: 'file';
        /** The same number for all files that show one piece. */
        value: number;
        skip: number;
        mappable: boolean;
        leaseShiftMs: number;
        /** ms of CLOCK_BOOTTIME, if a newer version replaced it. */
        readableUntilMs?: number;
      }
  );

/** The node that exists from the beginning: the root directory, 0700. */
export const rootNode = 1;

export interface NativeNode {
  id: number;
  kind: 'file' | 'link' | 'directory';
  /** Permission bits. */
  mode: number;
  uid: number;
  gid: number;
  /** Of a directory: what `..` is. */
  parent?: number;
  /** ms since 1970. */
  modifiedMs: number;
  /** Of a file: a piece of this arena, bytes in it before the value, bytes of the value. */
  piece?: ArrayBuffer;
  skip?: number;
  size?: number;
  /** The kernel may keep its pages: mmap(2), splice(2), sendfile(2) work. */
  mappable?: boolean;
  /** Of a file: how much later than the arena's lease (`serveUntil`) its own ends, ms; negative: earlier. */
  leaseShiftMs?: number;
  /** Of a link. */
  text?: string;
  /** For a successor, at most 1 MiB. */
  note?: Uint8Array;
  /** A directory that a successor keeps though no name leads to it. */
  kept?: boolean;
  /** A file that is readable whatever the lease says. */
  probe?: boolean;
  /** Of a file: the directory whose gate says who may open and read it; without one whoever its mode lets. */
  gated?: number;
}

/** Who passes the gate of a directory: processes of these cgroups and below, unless it is open. */
export interface NativeGating {
  directory: number;
  open: boolean;
  readers: readonly Cgroup[];
  /** For a successor. */
  note: Uint8Array;
}

/** Of the unified hierarchy. An id is never used twice. */
export interface Cgroup {
  cgroup: number;
  path: string;
}

/** native/core/access_book.h, in its order. */
export const accessOutcomes = ['opened', 'not attached', 'lease over', 'wiped', 'would be cached'] as const;

export interface NativeAccesses {
  accesses: {
    /** ms since 1970. */
    atMs: number;
    node: number;
    /** Of accessOutcomes. */
    outcome: number;
    uid: number;
    gid: number;
    /** 0: of another pid namespace. */
    thread: number;
    process: number;
    /** When the process began: proc_pid_stat(5), field 22. */
    startTicks: number;
    /** 0: unknown. */
    cgroup: number;
    /** proc_pid_comm(5). */
    name: string;
  }[];
  /** How often; `uid` is missing where they are of many. */
  counts: { node: number; cgroup: number; uid?: number; outcome: number; count: number; lastMs: number }[];
  /** Accesses that are only counted. */
  dropped: number;
  /** Paths of those above, where they are known. */
  cgroups: [cgroup: number, path: string][];
}

export interface ProcessFacts {
  process: number;
  startTicks: number;
  name: string;
  /** 0 when it cannot be told. */
  cgroup: number;
  cgroupPath: string;
}

export interface NativeStep {
  made: readonly NativeNode[];
  filled: readonly { directory: number; entries: readonly (readonly [name: string, node: number])[] }[];
  removed: readonly { directory: number; name: string }[];
  /** Files that a newer version replaced: open descriptors read on until `readableUntilMs` of CLOCK_BOOTTIME. */
  superseded: readonly number[];
  gatings: readonly NativeGating[];
  readableUntilMs: number;
  /** Nodes that nobody may use any more. */
  gone: readonly number[];
  /** ms since 1970. */
  changedMs: number;
}

export interface NativeServer {
  facts(): ServerFacts;
  /** The descriptor of /dev/fuse; open until stop(). */
  readonly device: number;
  /** Ends the threads and closes the connection: readers of what is still mounted somewhere get ENOTCONN. */
  stop(): void;
}

export interface ServerFacts {
  /** Of the FUSE protocol, as agreed with the kernel. */
  minor: number;
  requests: number;
  malformed: number;
  /** Replies pass through locked memory alone. */
  buffersLocked: boolean;
  connected: boolean;
  /** Why it is not, if by an error. */
  ended: string;
  /** Names that inotify was not told of. */
  droppedNames: number;
  /** Mapped files whose pages the kernel has not let go of yet. */
  pendingScrubs: number;
  lateScrubs: number;
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

export interface LockRoom {
  bytes: number;
  limitBytes: number;
}

export interface Addon {
  /**
   * Maps and locks `bytes` (rounded up to whole pages; at most 1 GiB). Throws only when there is no memory to map: a refused lock
   * is in the facts.
   * @param kind 'auto' takes memfd_secret where the kernel has it; 'mlock' is for tests of the fallback.
   */
  createArena(bytes: number, kind: 'auto' | 'mlock'): NativeArena;
  /** With room for `nodes` (at most 2^20) files, links and directories beside the `bytes`. */
  createArena(bytes: number, kind: 'auto' | 'mlock', nodes: number): NativeServedArena;
  /** Whether adoptArena would understand what is behind a descriptor, which stays the caller's: '' or why not. */
  inspectArena(descriptor: number): string;
  /**
   * The memory that another process left, from its descriptor, which is taken in any case: what nothing in it refers to is zeroed.
   * Throws with words when it is no image, a damaged one or one of another layout; it is then as it was.
   */
  adoptArena(descriptor: number): NativeServedArena;
  /**
   * Reads the file in every way that could leave its bytes in the page cache: '' when read(2) gives `content` and all else is
   * refused and leaves nothing, otherwise what happened.
   */
  strictSelfTest(path: string, content: string): Promise<string>;
  /** umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW). Returns 0 or an errno. */
  unmount(path: string): number;
  /** mount(2) for a server in another process: the descriptor of /dev/fuse. Throws as NativeServedArena.mount rejects. */
  mountDevice(path: string): number;
  /**
   * Lines such as READY=1 to the service manager (sd_notify(3)), with a descriptor beside them if one is given. Returns 0 or an
   * errno; ENOENT when no service manager listens.
   */
  notifyServiceManager(lines: string, descriptor?: number): number;
  /** Who a process is now, or null when there is none of this id. */
  processOf(pid: number): ProcessFacts | null;
  /** To the process that has this id since then. Returns 0 or an errno: ESRCH also when another process has the id by now. */
  signalProcess(pid: number, startTicks: number, signal: number): number;
  /** One datagram to a unix socket of another program. Returns 0 or an errno. */
  sendDatagram(path: string, bytes: Uint8Array): number;
  /** Waits until the service manager has taken in what was sent before, blocking. Returns 0 or an errno. */
  awaitServiceManager(ms: number): number;
  /** What the service manager's store handed to this process at its start (sd_listen_fds(3)); at a second call nothing. */
  takeStoredDescriptors(): { name: string; fd: number }[];
  /**
   * Sends descriptors to who listens on a unix socket, if that runs as this user or as root. Resolves to '' or why it failed.
   */
  passDescriptors(path: string, descriptors: readonly number[], ms: number): Promise<string>;
  /**
   * Listens on a unix socket (0600) at once, and resolves to what the first to connect sends, if that runs as this user or as
   * root. The socket goes then.
   */
  receiveDescriptors(path: string, ms: number): Promise<number[]>;
  /** A listening socket at the path, 0600, in the place of one that nobody listens on any more. Throws words. */
  listenForCredentials(path: string): number;
  /** Whether a descriptor is what listenForCredentials gave another process for this path, which is still there. */
  listensForCredentials(descriptor: number, path: string): boolean;
  /** fcntl(fd, F_SETFD, FD_CLOEXEC): children do not inherit it. Returns 0 or an errno. */
  closeOnExec(fd: number): number;
  /**
   * execve(2): the same process, another program. `environment` is `NAME=VALUE` texts. Descriptors up to `lastDescriptor` (2
   * unless given) stay open. Signals and limits that Node changed are as they were. Returns an errno, or never.
   */
  replaceProcess(
    path: string,
    args: readonly string[],
    environment: readonly string[],
    lastDescriptor?: number,
  ): number;
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
   * How many of `bytes` this process may lock beside what it has locked, in whole pages, found out by trying; and RLIMIT_MEMLOCK
   * (Infinity: none), which does not bind a process with CAP_IPC_LOCK. Raises the soft limit to the hard one where it is in the way.
   */
  lockable(bytes: number): LockRoom;
  /**
   * mallopt(M_PERTURB): freed heap blocks are overwritten at once. True where the C library has it. Seen on glibc 2.36: blocks of
   * up to 1,032 bytes that go to the thread's cache are NOT overwritten (all but 16 bytes stay) unless the process was started
   * with GLIBC_TUNABLES=glibc.malloc.tcache_count=0.
   */
  overwriteFreedHeap(): boolean;
}

/** The compiled file stands in dist/src/system. */
const native = new URL('../../../native/', import.meta.url);
let loaded: Addon | undefined;

/**
 * The addon; loaded at the first call, so that commands that need none start without it.
 * @throws not_supported where there is none for this platform, or it does not load.
 */
export function addon(): Addon {
  loaded ??= load();
  return loaded;
}

/** What was built here goes before what the package brings: an installation builds it where the other does not load. */
function load(): Addon {
  const platform = `${process.platform}-${process.arch}`;
  const remedy =
    'to build it, install g++, make and python3, then run: npm rebuild inro (in a checkout: npm run setup)';
  const path = ['build/Release/inro.node', `prebuilds/${platform}/inro.node`]
    .map((place) => fileURLToPath(new URL(place, native)))
    .find((place) => existsSync(place));
  if (path === undefined) {
    throw new InroError('not_supported', `this installation has no native addon for ${platform}`, { remedy });
  }
  try {
    return createRequire(import.meta.url)(path) as Addon;
  } catch (cause) {
    const reason = (cause as Error).message;
    throw new InroError('not_supported', `the native addon for ${platform} does not load: ${reason}`, {
      cause,
      remedy,
    });
  }
}
