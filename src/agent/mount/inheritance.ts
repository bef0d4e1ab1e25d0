/**
 * What a predecessor left in the arena, read from the nodes and the notes beside them: the tree as it is served, and what
 * the agent is to know of it.
 */
import type { ServedArena } from '../../crypto/arena.js';
import type { Plaintext } from '../../crypto/plaintext.js';
import { InroError } from '../../model/error.js';
import { openGate, type Gate } from './driver.js';
import { rootNode, type InheritedNode } from '../../system/addon.js';
import { readNote, type Owner } from './notes.js';
import {
  fileType,
  linkName,
  linksTo,
  tasksName,
  type MutableDirectory,
  type MutableFile,
  type Service,
  type Task,
  type TreeNode,
  type View,
} from './tree_nodes.js';

export interface InheritedTree {
  root: MutableDirectory;
  taskRoot: MutableDirectory;
  services: ReadonlyMap<string, Service>;
  tasks: ReadonlyMap<string, Task>;
  /** Files that no task has any more. */
  useless: readonly TreeNode[];
}

/** For the agent. */
export interface Inheritance {
  /** Each task as it was published last. */
  generations: readonly { taskId: string; number: number; note: Uint8Array; gate: Gate }[];
  /** Each value once, with what was noted of it; a replaced one until when (ms of CLOCK_BOOTTIME) it may be read. */
  values: readonly { value: Plaintext; note: Uint8Array; modifiedMs: number; readableUntilMs: number }[];
}

export const noInheritance: Inheritance = { generations: [], values: [] };

/** @throws foreign_cluster when it is another node's, mount_failed when it is not what an agent leaves. */
export function readInheritance(
  arena: ServedArena,
  owner: Owner | undefined,
): { tree: InheritedTree; inheritance: Inheritance } {
  const nodes = arena.served.nodes();
  const values = new Map<number, Plaintext>();
  const noted = new Map<number, ReturnType<typeof readNote>>(
    nodes.map(({ id, note }) => [id, readNote(note)]),
  );
  const made = makeNodes(nodes, (node) => {
    const known = values.get(node.value);
    const value = known ?? arena.inherit(node.id, node.skip);
    if (value !== undefined) values.set(node.value, value);
    return value;
  });
  const root = directoryOf(made.get(rootNode));
  const taskRoot = directoryOf(root?.entries.get(tasksName));
  const agent = noted.get(taskRoot?.ino ?? 0);
  if (root === undefined || taskRoot === undefined || agent?.case !== 'agent')
    throw new InroError('mount_failed', 'what a former agent left in memory is not complete');
  const { clusterId, nodeId } = agent.value;
  if (owner !== undefined && (owner.clusterId !== clusterId || owner.nodeId !== nodeId))
    throw new InroError('foreign_cluster', `the former agent was node ${nodeId} of cluster ${clusterId}`);

  const services = new Map<string, Service>();
  const names = new Map([...root.entries].map(([name, { ino }]) => [ino, name]));
  for (const node of made.values()) {
    const note = noted.get(node.ino);
    const directory = directoryOf(node);
    if (directory === undefined || note?.case !== 'service') continue;
    services.set(note.value.serviceId, {
      directory,
      name: names.get(directory.ino),
      tasks: [],
      view: viewOf(directory),
    });
  }
  const tasks = new Map<string, Task>();
  const gates = new Map(
    nodes.flatMap((node) => (node.kind === 'directory' ? [[node.id, node.gate] as const] : [])),
  );
  const generations: Inheritance['generations'][number][] = [];
  // Ids grow: the task that was published first has the lowest.
  for (const [taskId, node] of [...taskRoot.entries].sort(([, a], [, b]) => a.ino - b.ino)) {
    const directory = directoryOf(node);
    const note = noted.get(node.ino);
    const service = note?.case === 'task' ? services.get(note.value.serviceId) : undefined;
    const view = directory === undefined ? undefined : viewOf(directory);
    const generation = noted.get(view?.nodes[0]?.ino ?? 0);
    if (directory === undefined || service === undefined || view === undefined) continue;
    if (generation?.case !== 'generation') continue;
    const gate = gates.get(directory.ino) ?? openGate;
    const task = { service, directory, files: filesOf(directory), view, gate };
    tasks.set(taskId, task);
    service.tasks.push(task);
    generations.push({ taskId, number: view.number, note: generation.value.task, gate });
  }

  const useless: TreeNode[] = [];
  for (const node of nodes) {
    if (node.kind !== 'file' || node.readableUntilMs === undefined) continue;
    const { id } = node;
    const file = made.get(id);
    const note = noted.get(id);
    if (file?.kind !== 'file') continue;
    const shown =
      note?.case === 'file' ? tasks.get(note.value.taskId)?.files.get(note.value.target) : undefined;
    if (shown?.grant.source === file.grant.source) {
      shown.grant.files.unshift(file);
      Object.assign(file, { grant: shown.grant });
    } else useless.push(file);
  }
  return {
    tree: { root, taskRoot, services, tasks, useless },
    inheritance: { generations, values: valuesOf([...made.values()], noted) },
  };
}

type InheritedFile = Extract<InheritedNode, { kind: 'file' }>;

function makeNodes(
  nodes: readonly InheritedNode[],
  valueOf: (file: InheritedFile) => Plaintext | undefined,
): Map<number, TreeNode> {
  const made = new Map<number, TreeNode>();
  for (const node of nodes) {
    const { id: ino, kind, uid, gid, modifiedMs, note } = node;
    const facts = { ino, uid, gid, modifiedMs, nlink: 1, note, mode: fileType[kind] | node.mode };
    if (kind === 'directory')
      made.set(ino, { kind, ...facts, size: 0, parent: undefined, entries: new Map() });
    if (kind === 'link') made.set(ino, { kind, ...facts, size: node.size, target: node.text });
    if (kind !== 'file') continue;
    const value = valueOf(node);
    if (value === undefined) continue; // wiped: its name leads nowhere
    const read = readNote(note);
    const source = read.case === 'file' ? read.value.source : '';
    const file: MutableFile = {
      kind,
      ...facts,
      size: node.size,
      value,
      mmap: node.mappable,
      leaseShiftMs: node.leaseShiftMs,
      grant: { source, withdrawn: false, files: [] },
      readableUntilMs: node.readableUntilMs ?? Infinity,
    };
    file.grant.files.push(file);
    made.set(ino, file);
  }
  for (const node of nodes) {
    const directory = directoryOf(made.get(node.id));
    if (node.kind !== 'directory' || directory === undefined) continue;
    const entries = new Map<string, TreeNode>();
    for (const [name, id] of node.entries) {
      const entry = made.get(id);
      if (entry !== undefined) entries.set(name, entry);
    }
    const parent = node.id === rootNode ? undefined : directoryOf(made.get(node.parent));
    Object.assign(directory, { entries, nlink: linksTo(entries), parent });
  }
  return made;
}

function directoryOf(node: TreeNode | undefined): MutableDirectory | undefined {
  return node?.kind === 'directory' ? node : undefined;
}

/** `..data`, and the generation that it points to. */
function viewOf(directory: MutableDirectory): View {
  const link = directory.entries.get(linkName);
  const generation = link?.kind === 'link' ? directory.entries.get(link.target) : undefined;
  if (link?.kind !== 'link' || generation === undefined) return { number: 0, nodes: [] };
  return { number: Number(link.target.slice(2)), nodes: [generation, link] };
}

function filesOf(directory: MutableDirectory): Map<string, MutableFile> {
  const files = [...directory.entries].filter(([, { kind }]) => kind === 'file');
  return new Map(files as [string, MutableFile][]);
}

function valuesOf(
  nodes: readonly TreeNode[],
  noted: ReadonlyMap<number, ReturnType<typeof readNote>>,
): Inheritance['values'] {
  const values = new Map<Plaintext, Inheritance['values'][number]>();
  for (const node of nodes) {
    const note = noted.get(node.ino);
    if (node.kind !== 'file' || note?.case !== 'file') continue;
    const before = values.get(node.value);
    const readableUntilMs = Math.max(before?.readableUntilMs ?? 0, node.readableUntilMs);
    values.set(node.value, {
      value: node.value,
      note: note.value.value,
      modifiedMs: node.modifiedMs,
      readableUntilMs,
    });
  }
  return [...values.values()];
}
