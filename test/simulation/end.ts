/** What must be so when nothing has failed, and nobody has changed anything, for a while. */
import { assignmentOf } from '../../src/manager/assignment.js';
import { isWanted } from '../../src/manager/service_tasks.js';
import { hasEnded } from '../../src/model/task.js';
import { TaskState, UpdateState } from '../../src/proto/gen/inro/v1/common_pb.js';
import { stateOf } from '../../src/proto/task_state.js';
import { decodeRecord, tables, versionKey } from '../../src/store/tables.js';
import { Violation } from './checks.js';
import type { ManagerHost } from './manager_host.js';
import type { Mirror } from './mirror.js';
import type { NodeHost } from './node_host.js';
import type { Wipes } from './wipes.js';

export interface EndParts {
  mirror: Mirror;
  manager: ManagerHost;
  hosts: readonly NodeHost[];
  wipes: Wipes;
  /** Some arena is too small for what may come: then tasks fail again and again. */
  isCramped: boolean;
}

export function checkEnd(parts: EndParts): void {
  for (const host of parts.hosts) endOf(host, parts);
  if (!parts.isCramped) endOfServices(parts);
  endOfWipes(parts);
}

function that(isSo: boolean, what: string): void {
  if (!isSo) throw new Violation(`at the end: ${what}`);
}

function endOf(host: NodeHost, { mirror, manager, isCramped }: EndParts): void {
  const { view } = mirror;
  const { name, nodeId, core } = host;
  that(view.nodes.has(nodeId), `${name} is no node`);
  that(
    core?.session.status.state === 'connected',
    `${name} has no session: ${core?.session.status.lastError?.message ?? ''}`,
  );
  that(manager.running?.core.dispatcher.statusOf(nodeId) === 'ready', `${name} is not ready`);
  const { versions, tasks } = assignmentOf(view, nodeId);
  const wanted = [...versions.keys()].sort();
  const held = (core?.vault.holdings() ?? []).map((one) => versionKey(one.secretId, one.version)).sort();
  const noted = view.holders
    .ofNode(nodeId)
    .map((one) => versionKey(one.secretId, one.version))
    .sort();
  // What does not fit is noted as long as it is wanted.
  const extra = noted.filter((key) => !held.includes(key) && !(isCramped && versions.has(key)));
  that(extra.length === 0, `${name} does not hold ${extra.join()}, which the manager has noted`);
  if (isCramped) return;
  that(held.join() === wanted.join(), `${name} holds ${held.join()}, and should hold ${wanted.join()}`);
  const shown = [...host.memory.tasks.keys()].sort();
  that(
    shown.join() === [...tasks.keys()].sort().join(),
    `${name} shows tasks ${shown.join()}, and should show ${[...tasks.keys()].sort().join()}`,
  );
  for (const [id, { references = [] }] of tasks)
    for (const { reference, version = 0 } of references) {
      const served = host.memory.tasks.get(id)?.files.get(reference?.target ?? '');
      that(
        served?.version === version && host.memory.read(served) !== undefined,
        `${name} does not serve ${reference?.target ?? ''} of task ${id}`,
      );
    }
}

function endOfServices({ mirror: { view } }: EndParts): void {
  for (const service of view.services.values()) {
    const tasks = view.tasksOfService(service.id);
    const ending = tasks.filter((task) => !hasEnded(stateOf(task.state)) && !isWanted(task));
    that(
      ending.length === 0,
      `tasks of ${service.name} still end: ${ending.map(({ id, nodeId }) => `${id} on ${nodeId}`).join(', ')}`,
    );
    const live = tasks.filter(isWanted);
    for (const { id, state, error } of live) {
      if (state === TaskState.NEW)
        that(error !== '', `task ${id} of ${service.name} waits, and does not say why`);
      else that(state === TaskState.RUNNING, `task ${id} of ${service.name} is ${stateOf(state)}`);
    }
    // An update waits for a task that finds no place.
    if (live.some(({ state }) => state === TaskState.NEW)) continue;
    if (!service.global)
      that(
        live.length === service.replicas,
        `${service.name} has ${live.length} tasks, not ${service.replicas}`,
      );
    const status = service.updateStatus?.state ?? UpdateState.UNSPECIFIED;
    if (live.length === 0 || status === UpdateState.PAUSED) continue;
    const isUnderWay = status === UpdateState.UPDATING || status === UpdateState.ROLLBACK_STARTED;
    that(!isUnderWay, `the update of ${service.name} is not done`);
    const old = live.filter(({ spec }) => spec !== service.spec);
    that(old.length === 0, `${old.length} tasks of ${service.name} were not replaced by its update`);
  }
}

function endOfWipes({ manager, wipes, mirror }: EndParts): void {
  const kept = new Map<string, number>();
  for (const [key, { value }] of manager.disk.entries) {
    if (!key.startsWith(tables.receipts.prefix)) continue;
    const { nodeId, secretId, version, wipedMs } = decodeRecord(tables.receipts, key, value);
    const name = `${nodeId}/${versionKey(secretId, version)} ${wipedMs}`;
    kept.set(name, (kept.get(name) ?? 0) + 1);
  }
  const told = new Map<string, number>();
  for (const { nodeId, secretId, version, wipedMs, reason } of wipes.open()) {
    if (!mirror.view.nodes.has(nodeId)) continue; // it was removed: nobody hears it any more
    const name = `${nodeId}/${versionKey(secretId, version)} ${wipedMs}`;
    told.set(name, (told.get(name) ?? 0) + 1);
    that(
      (kept.get(name) ?? 0) >= (told.get(name) ?? 0),
      `${name} was wiped (${reason}), and no receipt is kept`,
    );
  }
}
