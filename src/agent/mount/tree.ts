/**
 * What a mount shows, as ONE table of nodes: every question a driver gets (attributes, listing, link, open)
 * is a lookup here and then a look at the node. No I/O; a driver asks it from its own requests.
 *
 * A change builds the new entries aside and swaps the directory's pointer to them. publish and withdraw are
 * synchronous, so no request ever falls between two swaps of one task.
 */
import type { Plaintext } from '../../crypto/plaintext.js';
import type { Generation, PublishedFile } from './driver.js';

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
}

export interface DirectoryNode extends NodeFacts {
  readonly kind: 'directory';
  readonly entries: ReadonlyMap<string, TreeNode>;
}

export interface LinkNode extends NodeFacts {
  readonly kind: 'link';
  readonly target: string;
}

export interface FileNode extends NodeFacts {
  readonly kind: 'file';
  /** Wiped in place when its time is over; an open handle on this node then has nothing to read. */
  readonly value: Plaintext;
  readonly grant: Grant;
}

/** A task's right to show one source under one target; all versions share it, so that losing it cuts all off. */
interface Grant {
  readonly source: string;
  withdrawn: boolean;
}

/** Whether a handle on this file may still be read: its value is there, and the task still has it. */
export function isReadable({ value, grant }: FileNode): boolean {
  return !value.wiped && !grant.withdrawn;
}

/** stat(2) st_mode, inode(7). */
const fileType = { directory: 0o040000, link: 0o120000, file: 0o100000 } as const;

const linkName = '..data';
const tasksName = '.task';

interface Service {
  readonly directory: Directory;
  /** The directory's name; undefined once a newer service of this name has taken it. */
  name: string | undefined;
  /** Its published tasks, oldest first publication first: the last one is shown. */
  readonly tasks: Task[];
}

interface Task {
  readonly service: Service;
  readonly directory: Directory;
  number: number;
  files: ReadonlyMap<string, FileNode>;
}

type Directory = DirectoryNode & {
  nlink: number;
  modifiedMs: number;
  entries: ReadonlyMap<string, TreeNode>;
};

export class Tree {
  readonly #owner: { uid: number; gid: number };
  readonly #now: () => number;
  readonly #root: Directory;
  readonly #taskRoot: Directory;
  readonly #services = new Map<string, Service>();
  readonly #tasks = new Map<string, Task>();
  #lastIno = 0;

  /** @param options.owner of every directory and link; options.now gives ms since 1970. */
  constructor(options: { owner: { uid: number; gid: number }; now: () => number }) {
    this.#owner = options.owner;
    this.#now = options.now;
    // Closed: what may read a secret is what had its service's directory bind-mounted.
    this.#root = this.#directory(0o700, new Map());
    this.#taskRoot = this.#directory(0o555, new Map());
    this.#fill(this.#root, new Map([[tasksName, this.#taskRoot]]));
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

  openService(serviceId: string, serviceName: string): void {
    this.#service(serviceId, serviceName);
  }

  publish(generation: Generation): void {
    const { taskId, number } = generation;
    const known = this.#tasks.get(taskId);
    const files = new Map(
      generation.files.map((file) => [file.target, this.#file(file, known?.files.get(file.target))]),
    );
    const task = known ?? this.#newTask(generation);
    for (const [target, { grant }] of task.files)
      if (files.get(target)?.grant !== grant) grant.withdrawn = true;
    task.number = number;
    task.files = files;
    this.#fill(task.directory, this.#generationEntries(task));
    if (known === undefined) {
      this.#fill(this.#taskRoot, new Map([...this.#taskRoot.entries, [taskId, task.directory]]));
    }
    if (task.service.tasks.at(-1) === task) this.#show(task.service);
  }

  withdraw(taskId: string): void {
    const task = this.#tasks.get(taskId);
    if (task === undefined) return;
    const { service } = task;
    const wasShown = service.tasks.at(-1) === task;
    service.tasks.splice(service.tasks.indexOf(task), 1);
    this.#tasks.delete(taskId);
    for (const { grant } of task.files.values()) grant.withdrawn = true;
    // A process may still stand in the directory: it is to see nothing there.
    this.#fill(task.directory, new Map());
    this.#fill(this.#taskRoot, without(this.#taskRoot.entries, taskId));
    if (wasShown) this.#show(service);
  }

  /** The service's directory; a new id takes the name over for good, so that two ids never alternate under one name. */
  #service(id: string, name: string): Service {
    const known = this.#services.get(id);
    if (known !== undefined) return known;
    const holder = [...this.#services.values()].find((service) => service.name === name);
    if (holder !== undefined) holder.name = undefined;
    const service: Service = { directory: this.#directory(0o555, new Map()), name, tasks: [] };
    this.#services.set(id, service);
    this.#fill(this.#root, new Map([...this.#root.entries, [name, service.directory]]));
    return service;
  }

  #newTask({ taskId, serviceId, serviceName, number }: Generation): Task {
    const service = this.#service(serviceId, serviceName);
    const task: Task = { service, directory: this.#directory(0o555, new Map()), number, files: new Map() };
    service.tasks.push(task);
    this.#tasks.set(taskId, task);
    return task;
  }

  #show(service: Service): void {
    const newest = service.tasks.at(-1);
    this.#fill(service.directory, newest === undefined ? new Map() : this.#generationEntries(newest));
  }

  #generationEntries({ files, number }: Task): Map<string, TreeNode> {
    const generationName = `..${number}`;
    return new Map<string, TreeNode>([
      ...files,
      [linkName, this.#link(generationName)],
      [generationName, this.#directory(0o555, files)],
    ]);
  }

  #file(file: PublishedFile, before: FileNode | undefined): FileNode {
    return {
      kind: 'file',
      ino: before?.value === file.value ? before.ino : this.#newIno(),
      mode: fileType.file | (file.mode & 0o777),
      uid: file.uid,
      gid: file.gid,
      nlink: 1,
      size: file.value.size,
      modifiedMs: file.modifiedMs,
      value: file.value,
      grant: before?.grant.source === file.source ? before.grant : { source: file.source, withdrawn: false },
    };
  }

  #link(target: string): LinkNode {
    const facts = { ino: this.#newIno(), ...this.#owner, nlink: 1, modifiedMs: this.#now() };
    return { kind: 'link', mode: fileType.link | 0o777, size: target.length, target, ...facts };
  }

  #directory(mode: number, entries: ReadonlyMap<string, TreeNode>): Directory {
    const facts = { ino: this.#newIno(), ...this.#owner, size: 0 };
    const changing = { nlink: linksTo(entries), modifiedMs: this.#now(), entries };
    return { kind: 'directory', mode: fileType.directory | mode, ...facts, ...changing };
  }

  #fill(directory: Directory, entries: ReadonlyMap<string, TreeNode>): void {
    directory.entries = entries;
    directory.nlink = linksTo(entries);
    directory.modifiedMs = this.#now();
  }

  #newIno(): number {
    return ++this.#lastIno;
  }
}

/** A directory's own two names and one `..` from each directory in it. */
function linksTo(entries: ReadonlyMap<string, TreeNode>): number {
  return 2 + [...entries.values()].filter((node) => node.kind === 'directory').length;
}

function without(entries: ReadonlyMap<string, TreeNode>, name: string): Map<string, TreeNode> {
  return new Map([...entries].filter(([other]) => other !== name));
}
