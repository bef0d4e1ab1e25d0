/**
 * What a mount driver is: it shows published generations read-only under one mount point. The agent pushes
 * what is to be seen; readers are the driver's own business, so that a native driver can answer them without
 * JavaScript. Layout (docs/layout.md):
 *
 *   <service>/<target>          the newest published task of that service here
 *   <service>/..data            symlink to the current generation's directory `..<generation>`
 *   .task/<task>/<target>       one task's own files
 */
import type { Plaintext } from '../../crypto/plaintext.js';
import type { Cgroup } from '../../system/addon.js';
import type { Accesses } from './accesses.js';
import type { Inheritance } from './inheritance.js';

/** One file of a generation. Its bytes stay where they are: the driver reads them at each request. */
export interface PublishedFile {
  target: string;
  /**
   * What it shows, for comparing alone: the secret's id. While a target goes on showing the same source, an
   * open descriptor reads on from the version it opened; when it does not any more, the descriptor is cut off.
   */
  source: string;
  uid: number;
  gid: number;
  /** Permission bits; the driver adds the file type. Nothing is ever writable. */
  mode: number;
  /** When the shown version was made, ms since 1970: mtime and ctime. */
  modifiedMs: number;
  /** May be mapped, spliced and sent by sendfile(2): the kernel then keeps copies in its page cache until the wipe. */
  mmap: boolean;
  /** How much later than the node's lease its own ends, ms; negative: earlier. Missing: with it. */
  leaseShiftMs?: number;
  /** Once it is wiped, reads of a descriptor that is open on it fail with ESTALE. */
  value: Plaintext;
  /** For a successor: what the value is. */
  note?: Uint8Array;
  /** What the records of accesses say it is. */
  about?: { serviceName: string; secretName: string; version: number };
}

/** Who may open and read the files of a task. */
export interface Gate {
  /** Processes of these cgroups and below, root among them or not; 'any': whoever a file's mode lets. */
  readers: 'any' | readonly Cgroup[];
  /** For a successor. */
  note: Uint8Array;
}

export const openGate: Gate = { readers: 'any', note: new Uint8Array() };

/** A task's whole set of files at one moment. */
export interface Generation {
  taskId: string;
  serviceId: string;
  serviceName: string;
  /** Grows with each generation of this task; part of the directory name that `..data` points to. */
  number: number;
  /** How long descriptors that are open on a file's former version may read on. */
  graceMs: number;
  files: readonly PublishedFile[];
  /** In force when the files can be seen first; openGate where it is missing. */
  gate?: Gate;
  /** For a successor: what the task is. */
  note?: Uint8Array;
}

/** What a driver can promise on this host, as `inro agent status` shows it. */
export interface DriverFacts {
  name: 'fuse-native' | 'kernel';
  /** Each read asks the driver: no plaintext of read(2) stays in the page cache. */
  directIo: boolean;
  /** mmap, splice and sendfile cannot fill the page cache. */
  strict: boolean;
  callerIdentity: boolean;
  handover: boolean;
  /** Why readers of the mount get nothing, where the driver knows it. */
  notServed?: string;
  /** What an operator should know, one short sentence each. */
  notes: readonly string[];
}

export interface MountedDevice {
  fd: number;
  isNew: boolean;
}

export interface Handover {
  /** What a successor needs. @throws mount_failed when nothing is mounted. */
  descriptors(): { arena: number; device: number };
  /** What was found in the memory that was taken over; empty when it is new. */
  readonly inheritance: Inheritance;
  /** Ends the answers, and leaves mount and memory as they are to whoever has the descriptors. */
  letGo(): void;
}

export interface MountDriver {
  facts(): DriverFacts;
  /**
   * @param options.device a mount that is there already: one that a predecessor served, or (`isNew`) nobody yet. It is taken
   * in any case.
   * @throws mount_failed, no_fuse, not_supported, already_running.
   */
  mount(options: { path: string; device?: MountedDevice }): Promise<void>;
  /**
   * The lease: at and after this moment (ms of CLOCK_BOOTTIME), or so much later as the file has it, each open and read fails with ESTALE; 0 or less: all of them. Nothing is served
   * before the first call.
   */
  serveUntil(boottimeMs: number): void;
  /** Makes the service's directory appear, empty until a task of it is published. Idempotent. */
  openService(serviceId: string, serviceName: string): void;
  /**
   * Replaces all files of the task in one step: no reader sees a mixture. When it throws, nothing has changed.
   * @throws arena_full, not_supported (a file that this host cannot serve as it must be).
   */
  publish(generation: Generation): void;
  /**
   * Takes the task's files away and cuts open descriptors off, whoever else uses the values; the service's directory then
   * shows the newest other task of it, or is empty. Never fails.
   */
  withdraw(taskId: string): void;
  /**
   * Changes who may read a task's files, also by descriptors that are open; nothing for a task that is not published. To let
   * nobody pass, with an empty note, never fails. Undefined where the driver cannot tell who reads.
   * @throws arena_full; then the gate is as it was.
   */
  admit?(taskId: string, gate: Gate): void;
  /** The node that shows a task's file now, for who is given it by another way than the mount. Undefined where there are none. */
  nodeOf?(taskId: string, target: string): number | undefined;
  /** Who accessed what since the last call; undefined when nobody did. */
  collectAccesses?(): Accesses | undefined;
  /** Unmounts; open descriptors fail from then on. */
  unmount(): Promise<void>;
  /** How another process can go on with this mount; undefined where none can. */
  readonly handover?: Handover;
}
