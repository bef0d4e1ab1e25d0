/** What a mount's nodes are, the steps by which they change, and who carries those out. */
import type { Plaintext } from '../../crypto/plaintext.js';
import type { Gate } from './driver.js';

export type TreeNode = DirectoryNode | LinkNode | FileNode;

/** What stat(2) shows. */
export interface NodeFacts {
  /** Stable for the life of the node; another version of a file is another node. Never used twice. */
  readonly ino: number;
  /** File type and permission bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly nlink: number;
  readonly size: number;
  /** ms since 1970. */
  readonly modifiedMs: number;
  /** What a successor is to know of it, a NodeNote; the mount itself does not look at it. */
  readonly note?: Uint8Array;
}

export interface DirectoryNode extends NodeFacts {
  readonly kind: 'directory';
  readonly parent: DirectoryNode | undefined;
  readonly entries: ReadonlyMap<string, TreeNode>;
  /** It stays for a successor though no name leads to it, because a bind mount may. */
  readonly kept?: boolean;
}

export interface LinkNode extends NodeFacts {
  readonly kind: 'link';
  readonly target: string;
}

export interface FileNode extends NodeFacts {
  readonly kind: 'file';
  /** Wiped in place when its time is over; an open handle on this node then has nothing to read. */
  readonly value: Plaintext;
  readonly mmap: boolean;
  /** How much later than the node's lease its own ends, ms. */
  readonly leaseShiftMs: number;
  /** No secret: readable whatever the lease says. */
  readonly probe?: boolean;
  /** The directory whose gate says who may open it; without one whoever its mode lets. */
  readonly gated?: DirectoryNode;
  readonly grant: Grant;
  /** Once a newer version is shown: until when (ms of CLOCK_BOOTTIME) descriptors may read on. */
  readonly readableUntilMs: number;
}

/** A task's right to show one source under one target; all versions share it, so that losing it cuts all off. */
export interface Grant {
  readonly source: string;
  withdrawn: boolean;
  /** The shown version and those before it that may still be read. */
  files: MutableFile[];
}

/** A change that is seen whole or not at all. */
export interface TreeStep {
  /** Nodes that nothing has shown before. */
  made: readonly TreeNode[];
  /** Directories that show other entries from now on. */
  filled: readonly { directory: DirectoryNode; entries: ReadonlyMap<string, TreeNode> }[];
  /** Names taken out of directories. */
  removed: readonly { directory: DirectoryNode; name: string }[];
  superseded: readonly FileNode[];
  readableUntilMs: number;
  /** Directories whose gate lets others pass from now on. */
  gatings: readonly { directory: DirectoryNode; gate: Gate }[];
  /** Nodes that nobody may use any more. */
  gone: readonly TreeNode[];
  /** ms since 1970: when the directories changed. */
  changedMs: number;
}

export interface TreeSink {
  /** @throws arena_full when no more nodes can be shown. */
  newIno(): number;
  /** Carries the step out, or throws and has done nothing. One that makes nothing, fills with nothing and opens no gate never throws. */
  commit(step: TreeStep): void;
}

/** Whether a handle on this file may still be read: its value is there, and the task still has it. */
export function isReadable({ value, grant, readableUntilMs }: FileNode, boottimeMs: number): boolean {
  return !value.wiped && !grant.withdrawn && boottimeMs < readableUntilMs;
}

/** stat(2) st_mode, inode(7). */
export const fileType = { directory: 0o040000, link: 0o120000, file: 0o100000 } as const;

export const linkName = '..data';
export const tasksName = '.task';

export interface Service {
  readonly directory: MutableDirectory;
  /** The directory's name; undefined once a newer service of this name has taken it. */
  name: string | undefined;
  /** Its published tasks, oldest first publication first: the last one is shown. */
  readonly tasks: Task[];
  view: View;
}

export interface Task {
  readonly service: Service;
  readonly directory: MutableDirectory;
  files: ReadonlyMap<string, MutableFile>;
  view: View;
  gate: Gate;
}

/** A directory's `..data` and what it points to: of their own for each directory, because a directory has one name. */
export interface View {
  number: number;
  nodes: readonly TreeNode[];
}

export type MutableDirectory = DirectoryNode & {
  nlink: number;
  modifiedMs: number;
  entries: ReadonlyMap<string, TreeNode>;
};
export type MutableFile = FileNode & { readableUntilMs: number };

/** A directory's own two names and one `..` from each directory in it. */
export function linksTo(entries: ReadonlyMap<string, TreeNode>): number {
  return 2 + [...entries.values()].filter((node) => node.kind === 'directory').length;
}
