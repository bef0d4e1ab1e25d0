/** Which node a task goes to, and which it has to leave. */
import { parseConstraint, satisfies, type Constraint } from '../model/constraint.js';
import type { NodeRecord, ServiceRecord, TaskRecord } from '../proto/gen/inro/v1/records_pb.js';
import { hasFailed, isOver, type ServiceTasks, type Slot } from './service_tasks.js';
import type { ClusterView } from './view.js';

/** How it stands with the nodes, as far as records do not say it. */
export interface NodeStates {
  /** Those that a task can be given to: heard of, staying, and steady. */
  ready(): Iterable<string>;
  /** It has not been heard for a while: nobody knows when it will do what it is told. */
  isDown(nodeId: string): boolean;
  /** And others have been heard all the time: its tasks are to be elsewhere, if they can. */
  isLost(nodeId: string): boolean;
}

interface Candidate {
  id: string;
  /** The slot's last two tasks have failed there. */
  fails: boolean;
  /** Live tasks there, of this service and of all others. */
  mine: number;
  others: number;
}

export class Placement {
  readonly #service: ServiceRecord;
  readonly #view: ClusterView;
  readonly #nodes: NodeStates;
  readonly #constraints: Constraint[];
  #found: readonly string[] | undefined;

  constructor(service: ServiceRecord, view: ClusterView, nodes: NodeStates) {
    this.#service = service;
    this.#view = view;
    this.#nodes = nodes;
    this.#constraints = service.constraints.map(parseConstraint);
  }

  /** Looked for when it is needed first: most decisions need none. */
  get #fitting(): readonly string[] {
    this.#found ??= [...this.#nodes.ready()].filter((id) => this.#isActive(id) && this.#fits(id));
    return this.#found;
  }

  /** Where a global service has a task from now on. */
  everyNode(): readonly string[] {
    return this.#fitting;
  }

  /**
   * Spread: the node with the fewest live tasks of this service, then with the fewest at all. One where what was to be in this slot
   * has failed again and again comes after the others.
   */
  choose(tasks: ServiceTasks, slot?: Slot): string | undefined {
    const failing = slot === undefined ? undefined : failingNode(tasks, slot);
    let best: Candidate | undefined;
    for (const id of this.#fitting) {
      const mine = tasks.liveOn(id);
      if (this.#isFull(mine)) continue;
      // The view does not know yet what this transaction places.
      const candidate = {
        id,
        fails: id === failing,
        mine,
        others: this.#view.liveTasksOn(id) - tasks.liveBefore(id),
      };
      if (best === undefined || isBefore(candidate, best)) best = candidate;
    }
    return best?.id;
  }

  whyNone(tasks: ServiceTasks): string {
    const all = [...this.#nodes.ready()];
    if (all.length === 0) return 'no node is ready';
    const reasons: string[] = [];
    const notActive = all.filter((id) => !this.#isActive(id));
    if (notActive.length > 0)
      reasons.push(`${notActive.length} of ${all.length} ready nodes take no new tasks`);
    const active = all.length - notActive.length;
    const words = this.#service.constraints.join(', ');
    if (active > 0 && this.#fitting.length === 0)
      reasons.push(`none of ${active} ready nodes satisfies ${words}`);
    const full = this.#fitting.filter((id) => this.#isFull(tasks.liveOn(id))).length;
    if (full > 0)
      reasons.push(
        `${full} ${full === 1 ? 'node has' : 'nodes have'} ${this.#service.maxReplicasPerNode} of its tasks, which is the most`,
      );
    return reasons.join('; ') || 'no node is ready';
  }

  /** Why a task may not be on this node any more; undefined: it may. */
  whyNot(nodeId: string): string | undefined {
    const node = this.#view.nodes.get(nodeId);
    if (node?.availability === 'drain') return 'its node is drained';
    if (this.#fits(nodeId)) return undefined;
    return `its node does not satisfy ${this.#service.constraints.join(', ')} any more`;
  }

  /** Why a task has to leave its node; undefined: it has not. From a lost one it goes only if there is a place for another. */
  whyLeave({ nodeId }: TaskRecord, tasks: ServiceTasks): string | undefined {
    const why = this.whyNot(nodeId);
    if (why !== undefined) return why;
    // One of a global service could be nowhere else.
    if (this.#service.global || !this.#nodes.isLost(nodeId)) return undefined;
    return this.choose(tasks) === undefined ? undefined : 'its node is down';
  }

  #isFull(mine: number): boolean {
    const { maxReplicasPerNode } = this.#service;
    return maxReplicasPerNode > 0 && mine >= maxReplicasPerNode;
  }

  #isActive(id: string): boolean {
    return isActive(this.#view.nodes.get(id));
  }

  #fits(id: string): boolean {
    const node = this.#view.nodes.get(id);
    const place = {
      id,
      hostname: node?.description?.hostname ?? '',
      role: node?.role ?? '',
      labels: node?.labels ?? {},
    };
    return satisfies(place, this.#constraints);
  }
}

export function isActive(node: Pick<NodeRecord, 'availability'> | undefined): boolean {
  return (node?.availability ?? '') === '' || node?.availability === 'active';
}

function failingNode(tasks: ServiceTasks, slot: Slot): string | undefined {
  const [last, before] = tasks
    .in(slot)
    .filter(isOver)
    .sort((a, b) => Number(b.updatedMs - a.updatedMs));
  if (last === undefined || before === undefined || last.nodeId !== before.nodeId) return undefined;
  return hasFailed(last) && hasFailed(before) ? last.nodeId : undefined;
}

function isBefore(a: Candidate, b: Candidate): boolean {
  if (a.fails !== b.fails) return b.fails;
  if (a.mine !== b.mine) return a.mine < b.mine;
  return a.others === b.others ? a.id < b.id : a.others < b.others;
}
