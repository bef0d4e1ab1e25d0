/**
 * What a mounted tree answers to libfuse's requests. A handler gives back its answer; `answered` sees to it
 * that exactly one answer goes out, whatever the handler does.
 */
import { constants as files } from 'node:fs';
import { constants as os } from 'node:os';
import { dirname } from 'node:path';
import { HandleTable } from './handle_table.js';
import type { AnyOperation, Operations, Stat } from './library.js';
import type { Tree } from './tree.js';
import { isReadable, type FileNode, type TreeNode } from './tree_nodes.js';

export interface RequestOptions {
  tree: Tree;
  /** Asked at each open and read: until when these may be answered, and what time it is, both ms of CLOCK_BOOTTIME. */
  serveUntilMs: () => number;
  boottimeMs: () => number;
  /** Told of whatever a handler threw; its reader gets EIO. */
  onError: (error: unknown, operation: string) => void;
  maxOpenHandles: number;
}

export interface Requests {
  operations: Operations & Record<string, AnyOperation>;
  /** From now on every request fails with ESTALE. */
  close(): void;
}

type Answer<Results extends unknown[]> = [error: number, ...results: Partial<Results>];

const { EBADF, EIO, EISDIR, EINVAL, ELOOP, ENFILE, ENOENT, ENOTDIR, EROFS, ESTALE } = os.errno;

/** Every way to change something. The kernel refuses them itself on a read-only mount; these hold if root remounts it. */
const writingOperations = [
  'chmod',
  'chown',
  'create',
  'ftruncate',
  'link',
  'mkdir',
  'mknod',
  'rename',
  'rmdir',
  'symlink',
  'truncate',
  'unlink',
  'utimens',
  'write',
];

// Not implemented, so that the kernel asks once and never again: flush and fsync (nothing to write: success),
// and the extended attributes (there are none: EOPNOTSUPP, which ls and cp -a take for exactly that).
export function answerRequests(options: RequestOptions): Requests {
  const { tree, serveUntilMs, boottimeMs, onError, maxOpenHandles } = options;
  const handles = new HandleTable<FileNode>(maxOpenHandles);
  let closed = false;

  /** Answers exactly once, whatever the handler does: a reader that gets no answer hangs for ever. */
  function answered<Args extends unknown[], Results extends unknown[]>(
    operation: string,
    handler: (...args: Args) => Answer<Results>,
  ) {
    return (...request: [...Args, (...answer: Answer<Results>) => void]): void => {
      const args = request.slice(0, -1) as Args;
      const done = request.at(-1) as (...answer: Answer<Results>) => void;
      let answer: Answer<Results>;
      try {
        answer = closed ? failed(ESTALE) : handler(...args);
      } catch (error) {
        answer = failed(EIO);
        report(error, operation);
      }
      done(...answer);
    };
  }

  function mayRead(node: FileNode): boolean {
    const nowMs = boottimeMs();
    const untilMs = serveUntilMs();
    return untilMs > 0 && nowMs < untilMs + node.leaseShiftMs && isReadable(node, nowMs);
  }

  function report(error: unknown, operation: string): void {
    try {
      onError(error, operation);
    } catch {
      // A throw from here would end the process and with it the mount; there is nobody left to tell.
    }
  }

  function find<Results extends unknown[]>(
    path: string,
    answer: (node: TreeNode) => Answer<Results>,
  ): Answer<Results> {
    const node = tree.resolve(path);
    return node === undefined ? failed(ENOENT) : answer(node);
  }

  const operations: Operations = {
    getattr: answered('getattr', (file) => {
      if (typeof file === 'string') return find(file, (node) => [0, statOf(node)]);
      const node = handles.get(file);
      return node === undefined ? failed(EBADF) : [0, statOf(node)];
    }),

    readdir: answered('readdir', (path) =>
      find(path, (node) => {
        if (node.kind !== 'directory') return failed(ENOTDIR);
        const parent = tree.resolve(dirname(path)) ?? node;
        const listing: [string, TreeNode][] = [['.', node], ['..', parent], ...node.entries];
        return [0, listing.map(([name]) => name), listing.map(([, entry]) => statOf(entry))];
      }),
    ),

    readlink: answered('readlink', (path) =>
      find(path, (node) => (node.kind === 'link' ? [0, node.target] : failed(EINVAL))),
    ),

    // Mode bits are the kernel's business (default_permissions), which then never asks this.
    access: answered('access', (path, mode) =>
      find(path, () => ((mode & files.W_OK) === 0 ? [0] : failed(EROFS))),
    ),

    // No blocks in use and none free, as /proc says it: df shows the mount, no disk-space alarm counts it.
    statfs: answered('statfs', (_path) => [0, { bsize: 4096, frsize: 4096, blocks: 0, namemax: 255 }]),

    open: answered('open', (path, flags) =>
      find(path, (node) => {
        if (node.kind !== 'file') return failed(node.kind === 'link' ? ELOOP : EISDIR);
        if ((flags & (files.O_WRONLY | files.O_RDWR | files.O_TRUNC)) !== 0) return failed(EROFS);
        if (!mayRead(node)) return failed(ESTALE);
        const handle = handles.add(node);
        return handle === undefined ? failed(ENFILE) : [0, handle];
      }),
    ),

    // From the arena into libfuse's buffer: the only copy that this program makes.
    read: answered('read', (_path, handle, buffer, length, offset) => {
      const node = handles.get(handle);
      if (node === undefined) return failed(EBADF);
      if (!mayRead(node)) return failed(ESTALE);
      const piece = node.value.expose().subarray(offset, offset + length);
      buffer.set(piece);
      return [piece.length];
    }),

    release: answered('release', (_path, handle) => {
      handles.remove(handle);
      return [0];
    }),
  };

  const refusals = writingOperations.map((name) => [name, answered(name, () => failed(EROFS))] as const);
  return {
    operations: { ...Object.fromEntries(refusals), ...operations },
    close: () => {
      closed = true;
      handles.clear();
    },
  };
}

function failed<Results extends unknown[]>(errno: number): Answer<Results> {
  return [-errno] as unknown as Answer<Results>;
}

function statOf({ mode, uid, gid, nlink, size, ino, modifiedMs }: TreeNode): Stat {
  const times = { atime: modifiedMs, mtime: modifiedMs, ctime: modifiedMs };
  return { mode, uid, gid, nlink, size, ino, blksize: 4096, blocks: Math.ceil(size / 512), ...times };
}
