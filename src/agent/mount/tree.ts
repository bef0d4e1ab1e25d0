/**
 * What a mount shows, as ONE table of nodes. A change is first put together as a step, which a driver's sink carries
 * out or refuses, and only then seen here: so a driver that answers by itself (the kernel driver) and one that looks
 * its answers up here (fuse-native) show the same, each step whole.
 */
import { openGate, type Gate, type Generation, type PublishedFile } from './driver.js';
import type { InheritedTree } from './inheritance.js';
import { agentNote, fileNote, generationNote, serviceNote, taskNote, type Owner } from './notes.js';
import {
  fileType,
  isReadable,
  linkName,
  linksTo,
  tasksName,
  type DirectoryNode,
  type FileNode,
  type LinkNode,
  type MutableDirectory,
  type MutableFile,
  type Service,
  type Task,
  type TreeNode,
  type TreeSink,
  type TreeStep,
  type View,
} from './tree_nodes.js';

interface BuildingStep extends TreeStep {
  made: TreeNode[];
  filled: { directory: MutableDirectory; entries: ReadonlyMap<string, TreeNode> }[];
  removed: { directory: MutableDirectory; name: string }[];
  gatings: { directory: DirectoryNode; gate: Gate }[];
  superseded: FileNode[];
  readableUntilMs: number;
  gone: TreeNode[];
}

const nothing: View = { number: 0, nodes: [] };

export class Tree {
  readonly #owner: { uid: number; gid: number };
  readonly #now: () => number;
  readonly #boottimeMs: () => number;
  readonly #sink: TreeSink;
  readonly #root: MutableDirectory;
  readonly #taskRoot: MutableDirectory;
  readonly #services: Map<string, Service>;
  readonly #tasks: Map<string, Task>;

  /**
   * @param options.owner of every directory and link; options.now gives ms since 1970, options.boottimeMs ms of
   * CLOCK_BOOTTIME; options.rootIno is the root's inode, which no sink makes; options.of whose mount it is;
   * options.inherited what a predecessor left.
   */
  constructor(options: {
    owner: { uid: number; gid: number };
    now: () => number;
    boottimeMs: () => number;
    sink: TreeSink;
    rootIno: number;
    of?: Owner;
    inherited?: InheritedTree;
  }) {
    this.#owner = options.owner;
    this.#now = options.now;
    this.#boottimeMs = options.boottimeMs;
    this.#sink = options.sink;
    const { inherited } = options;
    this.#services = new Map(inherited?.services);
    this.#tasks = new Map(inherited?.tasks);
    // Closed: what may read a secret is what had its service's directory bind-mounted.
    this.#root = inherited?.root ?? this.#directory(0o700, undefined, { ino: options.rootIno });
    const step = this.#step();
    step.gone.push(...(inherited?.useless ?? []));
    for (const [name, node] of this.#root.entries)
      if (node.kind !== 'directory') step.removed.push({ directory: this.#root, name });
    if (inherited === undefined) {
      this.#taskRoot = this.#directory(0o555, this.#root, { note: agentNote(options.of) });
      step.made.push(this.#taskRoot);
      this.#fill(step, this.#root, new Map([[tasksName, this.#taskRoot]]));
    } else {
      this.#taskRoot = inherited.taskRoot;
      for (const [name, node] of this.#taskRoot.entries)
        if (!this.#tasks.has(name)) {
          step.removed.push({ directory: this.#taskRoot, name });
          step.gone.push(node);
        }
    }
    this.#commit(step);
  }

  /** The node at an absolute path (`/` is the root); links are not followed. */
  resolve(path: string): TreeNode | undefined {
    let node: TreeNode | undefined = this.#root;
    for (const name of path.split('/')) {
      if (name === '') continue;
      if (node?.kind !== 'directory') return undefined;
      node = node.entries.get(name);
    }
    return node;
  }

  /** The inode that shows a task's file now. */
  nodeOf(taskId: string, target: string): number | undefined {
    return this.#tasks.get(taskId)?.files.get(target)?.ino;
  }

  openService(serviceId: string, serviceName: string): void {
    if (this.#services.has(serviceId)) return;
    const step = this.#step();
    const service = this.#newService(step, serviceId, serviceName);
    this.#commit(step);
    this.#adopt(serviceId, service);
  }

  publish(generation: Generation): void {
    const { taskId, serviceId, serviceName, number, graceMs, gate = openGate } = generation;
    const step = this.#step();
    step.readableUntilMs = this.#boottimeMs() + graceMs;
    const known = this.#tasks.get(taskId);
    const service =
      known?.service ?? this.#services.get(serviceId) ?? this.#newService(step, serviceId, serviceName);
    const task = known ?? this.#newTask(step, service, serviceId, taskId);
    const files = new Map(
      generation.files.map((file) => [
        file.target,
        this.#file(step, { id: taskId, directory: task.directory }, file, task.files.get(file.target)),
      ]),
    );
    const lost = [...task.files].filter(([target, { grant }]) => files.get(target)?.grant !== grant);
    const replaced = [...task.files].filter(
      ([target, file]) => files.get(target)?.grant === file.grant && files.get(target) !== file,
    );
    step.gone.push(...lost.flatMap(([, { grant }]) => grant.files), ...task.view.nodes);
    step.superseded.push(...replaced.map(([, file]) => file));
    for (const shown of task.files.values())
      step.gone.push(
        ...shown.grant.files.filter((file) => file !== shown && !isReadable(file, this.#boottimeMs())),
      );

    if (!isSame(gate, task.gate)) step.gatings.push({ directory: task.directory, gate });
    const view = this.#show(step, task.directory, files, number, generationNote(generation.note));
    const isShown = known === undefined || service.tasks.at(-1) === task;
    const serviceView = isShown ? this.#showService(step, service, files, number) : service.view;
    this.#commit(step);

    this.#adopt(serviceId, service);
    if (known === undefined) service.tasks.push(task);
    this.#tasks.set(taskId, task);
    for (const [, { grant }] of lost) grant.withdrawn = true;
    for (const [, file] of replaced) file.readableUntilMs = step.readableUntilMs;
    for (const file of files.values()) {
      const alive = file.grant.files.filter((one) => isReadable(one, this.#boottimeMs()) && one !== file);
      file.grant.files = [...alive, file];
    }
    Object.assign(task, { files, view, gate });
    service.view = serviceView;
  }

  admit(taskId: string, gate: Gate): void {
    const task = this.#tasks.get(taskId);
    if (task === undefined || isSame(gate, task.gate)) return;
    const step = this.#step();
    step.gatings.push({ directory: task.directory, gate });
    this.#commit(step);
    task.gate = gate;
  }

  withdraw(taskId: string): void {
    const task = this.#tasks.get(taskId);
    if (task === undefined) return;
    const { service } = task;
    const step = this.#step();
    step.removed.push({ directory: this.#taskRoot, name: taskId });
    for (const { grant } of task.files.values()) step.gone.push(...grant.files);
    step.gone.push(task.directory, ...task.view.nodes);
    const next = service.tasks.at(-1) === task ? service.tasks.at(-2) : undefined;
    const wasShown = service.tasks.at(-1) === task;

    service.tasks.splice(service.tasks.indexOf(task), 1);
    this.#tasks.delete(taskId);
    for (const { grant } of task.files.values()) grant.withdrawn = true;
    if (!wasShown) return this.#commit(step);
    try {
      const view = this.#showService(step, service, next?.files, next?.view.number ?? 0);
      this.#commit(step);
      service.view = view;
    } catch {
      // No memory for the other task's entries: what must go goes all the same, and the directory is empty.
      const bare = { ...step, made: [], filled: [], gatings: [] };
      this.#fill(bare, service.directory, new Map());
      this.#commit(bare);
      service.view = { number: service.view.number, nodes: [] };
    }
  }

  /** Shows a file in the root until the function that it gives back is called. */
  showProbe(file: PublishedFile): () => void {
    const step = this.#step();
    const node = { ...this.#file(step, undefined, file, undefined), probe: true };
    step.made.splice(step.made.length - 1, 1, node);
    this.#fill(step, this.#root, new Map([...this.#root.entries, [file.target, node]]));
    this.#commit(step);
    return () => {
      const end = this.#step();
      end.removed.push({ directory: this.#root, name: file.target });
      end.gone.push(node);
      this.#commit(end);
    };
  }

  #step(): BuildingStep {
    const lists = { made: [], filled: [], removed: [], gatings: [], superseded: [], gone: [] };
    return { ...lists, readableUntilMs: 0, changedMs: this.#now() };
  }

  /** The sink first: if it refuses, nothing has changed here either. */
  #commit(step: BuildingStep): void {
    this.#sink.commit(step);
    for (const { directory, entries } of step.filled) changeEntries(directory, entries, step.changedMs);
    for (const { directory, name } of step.removed) {
      changeEntries(directory, without(directory.entries, name), step.changedMs);
    }
    for (const node of step.gone) {
      // A process may still stand in it: it is to see nothing there.
      if (node.kind === 'directory') (node as MutableDirectory).entries = new Map();
    }
  }

  #fill(step: BuildingStep, directory: MutableDirectory, entries: ReadonlyMap<string, TreeNode>): void {
    step.filled.push({ directory, entries });
  }

  /** A new id takes the name over for good, so that two ids never alternate under one name. */
  #newService(step: BuildingStep, id: string, name: string): Service {
    const directory = this.#directory(0o555, this.#root, { note: serviceNote(id), kept: true });
    step.made.push(directory);
    this.#fill(step, this.#root, new Map([...this.#root.entries, [name, directory]]));
    return { directory, name, tasks: [], view: nothing };
  }

  #adopt(id: string, service: Service): void {
    if (this.#services.has(id)) return;
    for (const other of this.#services.values()) if (other.name === service.name) other.name = undefined;
    this.#services.set(id, service);
  }

  #newTask(step: BuildingStep, service: Service, serviceId: string, taskId: string): Task {
    const directory = this.#directory(0o555, this.#taskRoot, { note: taskNote(serviceId) });
    step.made.push(directory);
    this.#fill(step, this.#taskRoot, new Map([...this.#taskRoot.entries, [taskId, directory]]));
    return { service, directory, files: new Map(), view: nothing, gate: openGate };
  }

  #showService(
    step: BuildingStep,
    service: Service,
    files: ReadonlyMap<string, FileNode> | undefined,
    taskNumber: number,
  ): View {
    step.gone.push(...service.view.nodes);
    const { number } = service.view;
    if (files !== undefined)
      return this.#show(step, service.directory, files, Math.max(number + 1, taskNumber));
    this.#fill(step, service.directory, new Map());
    return { number, nodes: [] };
  }

  #show(
    step: BuildingStep,
    directory: MutableDirectory,
    files: ReadonlyMap<string, FileNode>,
    number: number,
    note?: Uint8Array,
  ): View {
    const generationName = `..${number}`;
    const generation = this.#directory(0o555, directory, {
      entries: files,
      ...(note === undefined ? {} : { note }),
    });
    const link = this.#link(generationName);
    const entries = new Map<string, TreeNode>([...files, [linkName, link], [generationName, generation]]);
    step.made.push(generation, link);
    this.#fill(step, generation, files);
    this.#fill(step, directory, entries);
    return { number, nodes: [generation, link] };
  }

  #file(
    step: BuildingStep,
    task: { id: string; directory: DirectoryNode } | undefined,
    file: PublishedFile,
    before: MutableFile | undefined,
  ): MutableFile {
    const shown = {
      mode: fileType.file | (file.mode & 0o777),
      uid: file.uid,
      gid: file.gid,
      size: file.value.size,
      modifiedMs: file.modifiedMs,
      mmap: file.mmap,
      leaseShiftMs: file.leaseShiftMs ?? 0,
      value: file.value,
    };
    const isSameSource = before?.grant.source === file.source;
    if (
      isSameSource &&
      Object.entries(shown).every(([key, value]) => before[key as keyof FileNode] === value)
    )
      return before;
    const grant = isSameSource ? before.grant : { source: file.source, withdrawn: false, files: [] };
    const made: MutableFile = {
      kind: 'file',
      ino: this.#sink.newIno(),
      nlink: 1,
      readableUntilMs: Infinity,
      grant,
      note: fileNote(task?.id ?? '', file),
      ...(task === undefined ? {} : { gated: task.directory }),
      ...shown,
    };
    step.made.push(made);
    return made;
  }

  #link(target: string): LinkNode {
    const facts = { ino: this.#sink.newIno(), ...this.#owner, nlink: 1, modifiedMs: this.#now() };
    return { kind: 'link', mode: fileType.link | 0o777, size: target.length, target, ...facts };
  }

  #directory(
    mode: number,
    parent: DirectoryNode | undefined,
    {
      entries = new Map(),
      ino = this.#sink.newIno(),
      ...own
    }: Partial<Pick<DirectoryNode, 'entries' | 'ino' | 'note' | 'kept'>> = {},
  ): MutableDirectory {
    const facts = { ino, ...this.#owner, size: 0, parent, ...own };
    const changing = { nlink: linksTo(entries), modifiedMs: this.#now(), entries };
    return { kind: 'directory', mode: fileType.directory | mode, ...facts, ...changing };
  }
}

function changeEntries(
  directory: MutableDirectory,
  entries: ReadonlyMap<string, TreeNode>,
  nowMs: number,
): void {
  directory.entries = entries;
  directory.nlink = linksTo(entries);
  directory.modifiedMs = nowMs;
}

function without(entries: ReadonlyMap<string, TreeNode>, name: string): Map<string, TreeNode> {
  return new Map([...entries].filter(([other]) => other !== name));
}

function isSame(one: Gate, other: Gate): boolean {
  return (
    JSON.stringify(one.readers) === JSON.stringify(other.readers) &&
    Buffer.compare(one.note, other.note) === 0
  );
}
