/** A step of the tree in the native addon's terms: nodes by their ids, values by their pieces. */
import type { NativeNode, NativeStep } from '../../system/addon.js';
import type { TreeNode, TreeStep } from './tree_nodes.js';

/** No node lives as long as this; a JavaScript number holds it. */
const forEverMs = Number.MAX_SAFE_INTEGER;
const permissionBits = 0o7777;

export function nativeStep(step: TreeStep): NativeStep {
  const inos = (nodes: readonly TreeNode[]) => nodes.map(({ ino }) => ino);
  return {
    made: step.made.map(nativeNode),
    filled: step.filled.map(({ directory, entries }) => ({
      directory: directory.ino,
      entries: [...entries].map(([name, { ino }]) => [name, ino] as const),
    })),
    removed: step.removed.map(({ directory, name }) => ({ directory: directory.ino, name })),
    superseded: inos(step.superseded),
    gatings: step.gatings.map(({ directory, gate: { readers, note } }) => ({
      directory: directory.ino,
      open: readers === 'any',
      readers: readers === 'any' ? [] : readers,
      note,
    })),
    readableUntilMs: Math.min(Math.round(step.readableUntilMs), forEverMs),
    gone: inos(step.gone),
    changedMs: step.changedMs,
  };
}

function nativeNode(node: TreeNode): NativeNode {
  const { ino: id, kind, uid, gid, modifiedMs } = node;
  const note = node.note === undefined ? {} : { note: node.note };
  const facts = { id, kind, uid, gid, modifiedMs, mode: node.mode & permissionBits, ...note };
  switch (node.kind) {
    case 'directory':
      return { ...facts, parent: node.parent?.ino ?? id, kept: node.kept ?? false };
    case 'link':
      return { ...facts, text: node.target };
    case 'file': {
      const { buffer: piece, skip } = node.value.piece();
      return {
        ...facts,
        piece,
        skip,
        size: node.size,
        mappable: node.mmap,
        leaseShiftMs: node.leaseShiftMs,
        probe: node.probe ?? false,
        gated: node.gated?.ino ?? 0,
      };
    }
  }
}
