/** What must hold after each step of a simulation, whatever has failed. */
import { hasEnded } from '../../src/model/task.js';
import { neverMs } from '../../src/model/lease.js';
import { UpdateOrder } from '../../src/proto/gen/inro/v1/common_pb.js';
import type { ServiceRecord, TaskRecord } from '../../src/proto/gen/inro/v1/records_pb.js';
import { stateOf } from '../../src/proto/task_state.js';
import { isWanted, slotOf } from '../../src/manager/service_tasks.js';
import type { Generation } from '../../src/agent/mount/driver.js';
import { readHeldNote } from '../../src/agent/inheritance_notes.js';
import { versionKey } from '../../src/store/tables.js';
import type { ServedFile } from './kept_memory.js';
import type { ManagerHost } from './manager_host.js';
import type { Mirror } from './mirror.js';
import type { NodeHost } from './node_host.js';
import type { World } from './world.js';

export class Violation extends Error {}

export interface ChecksParts {
  world: World;
  mirror: Mirror;
  manager: ManagerHost;
  hosts: readonly NodeHost[];
  /** By digest of its ciphertext, in hex. */
  values: ReadonlyMap<string, string>;
  /** How slow the slowest clock is: true seconds for one of its own. */
  slowest: number;
}

/** By the clock of a host, which rounds. */
const roundingMs = 2;
/** From a decision of the scheduler until it is written, on a slow disk. */
const decisionMs = 15_000;

export class Checks {
  readonly #parts: ChecksParts;
  /** By node: true time at which a manager took a word of it that extends leases. */
  readonly #heardMs = new Map<string, number>();
  /** By node: true time at which it was down last. */
  readonly #downMs = new Map<string, number>();
  /** Tasks that another took the place of while nobody could know when they would end. */
  readonly #excused = new Set<string>();
  /** Services whose updates start first, or did. */
  readonly #startFirst = new Set<string>();
  /** By node, service and target: the version that was read last. */
  readonly #read = new Map<string, number>();
  /** Secrets of which an earlier version may be served again. */
  readonly goneBack = new Set<string>();
  /** `node/secret@version` that a manager has said to be gone for ever. */
  readonly declaredGone = new Set<string>();
  count = 0;

  constructor(parts: ChecksParts) {
    this.#parts = parts;
  }

  heard(nodeId: string): void {
    this.#heardMs.set(nodeId, this.#parts.world.nowMs);
  }

  /** A manager takes it for down. */
  down(nodeId: string): void {
    this.#downMs.set(nodeId, this.#parts.world.nowMs);
  }

  /** Of everything. */
  all(): void {
    const { hosts, mirror } = this.#parts;
    for (const id of mirror.view.nodes.keys()) if (this.#isDownNow(id)) this.down(id);
    for (const host of hosts) this.host(host);
  }

  host(host: NodeHost): void {
    this.count += 1;
    const { mirror } = this.#parts;
    for (const { secretId, version } of host.runs ? (host.core?.vault.holdings() ?? []) : []) {
      const key = versionKey(secretId, version);
      this.#that(
        mirror.justified.has(`${host.nodeId}/${key}`),
        host,
        `holds ${key}, which no task of it ever was to have`,
      );
      this.#isNoted(host, secretId, version, 'holds');
    }
    for (const file of host.memory.readable()) this.#readable(host, file);
    for (const [taskId, { generation, files }] of host.memory.tasks) {
      const state = mirror.view.tasks.get(taskId)?.state;
      if (state === undefined || [...files.values()].every((file) => host.memory.read(file) === undefined))
        continue;
      const name = stateOf(state);
      this.#that(
        !hasEnded(name) || name === 'ORPHANED',
        host,
        `shows task ${taskId} of ${generation.serviceName}, which is ${name}`,
      );
    }
  }

  /** The files that a task shows from now on. */
  published(host: NodeHost, { taskId, serviceName, files }: Generation): void {
    const shown = files.map(({ target, note }) => ({ target, ...readHeldNote(note ?? new Uint8Array()) }));
    const words = shown.map(({ target, secretId, version }) => `${target}=${versionKey(secretId, version)}`);
    this.#that(
      this.#parts.mirror.wasToBe(taskId, shown),
      host,
      `shows of ${serviceName} a mixture: ${words.join(' ')}`,
    );
  }

  /** A commit has changed these. */
  tasksOf(serviceIds: Iterable<string>): void {
    const { view } = this.#parts.mirror;
    for (const id of serviceIds) {
      const service = view.services.get(id);
      if (service !== undefined) this.#slots(service, view.tasksOfService(id));
    }
  }

  #slots(service: ServiceRecord, tasks: readonly TaskRecord[]): void {
    if (service.update?.order === UpdateOrder.START_FIRST) this.#startFirst.add(service.id);
    const most = this.#startFirst.has(service.id) ? 2 : 1;
    const live = tasks.filter((task) => !hasEnded(stateOf(task.state)));
    for (const slot of new Set(live.map((task) => slotOf(service, task)))) {
      const inSlot = live.filter((task) => slotOf(service, task) === slot);
      const wanted = inSlot.filter(isWanted).length;
      this.#that(
        wanted <= most,
        undefined,
        `slot ${slot} of ${service.name} has ${wanted} tasks that are to run`,
      );
      for (const task of inSlot) if (!isWanted(task) && this.#isDown(task.nodeId)) this.#excused.add(task.id);
      const placed = inSlot.filter(({ id, nodeId }) => nodeId !== '' && !this.#excused.has(id));
      const words = placed.map(
        ({ id, nodeId, state, desiredState }) =>
          `${id} on ${nodeId} ${stateOf(state)} -> ${stateOf(desiredState)}`,
      );
      this.#that(
        placed.length <= most,
        undefined,
        `slot ${slot} of ${service.name} has ${placed.length} live tasks: ${words.join(', ')}`,
      );
    }
  }

  /** Or was it when that was decided: what is decided takes its time to be written. */
  #isDown(nodeId: string): boolean {
    const { world } = this.#parts;
    return this.#isDownNow(nodeId) || world.nowMs - (this.#downMs.get(nodeId) ?? -Infinity) < decisionMs;
  }

  #isDownNow(nodeId: string): boolean {
    return this.#parts.manager.running?.core.dispatcher.contactWith(nodeId) === 'down';
  }

  #readable(host: NodeHost, served: ServedFile): void {
    const { mirror, values, world, slowest, manager } = this.#parts;
    const { secretId, version, file } = served;
    const key = versionKey(secretId, version);
    const text = new TextDecoder().decode(host.memory.read(served));
    this.#that(text === values.get(mirror.digests.get(key) ?? ''), host, `shows for ${key} not its value`);
    this.#isNoted(host, secretId, version, 'serves');
    const leaseMs = mirror.leases.get(key) ?? 0;
    const sinceMs = world.nowMs - (this.#heardMs.get(host.nodeId) ?? -Infinity);
    const isOver = leaseMs !== neverMs && sinceMs > leaseMs * slowest + roundingMs;
    this.#that(
      !isOver,
      host,
      `serves ${key} ${Math.round(sinceMs)} ms after it was heard last; its lease is ${leaseMs} ms`,
    );
    this.#that(
      !this.declaredGone.has(`${host.nodeId}/${key}`),
      host,
      `serves ${key}, which the manager has said to be gone`,
    );
    const { running, clock } = manager;
    const untilMs = running?.core.dispatcher.holdsUntilMs(host.nodeId, secretId, version) ?? Infinity;
    this.#that(
      untilMs >= clock.boottimeMs() - roundingMs,
      host,
      `serves ${key} ${Math.round(clock.boottimeMs() - untilMs)} ms later than the manager says`,
    );
    if (served.readableUntilMs !== Infinity || this.goneBack.has(secretId)) return;
    const place = `${host.nodeId}/${served.taskId}/${file.target}/${secretId}`;
    this.#that(
      version >= (this.#read.get(place) ?? 0),
      host,
      `shows ${key} after version ${this.#read.get(place)}`,
    );
    this.#read.set(place, version);
  }

  /** Who has a copy stands in the manager's notes before he has it, for as long as he has. */
  #isNoted(host: NodeHost, secretId: string, version: number, does: string): void {
    const holder = this.#parts.mirror.view.holders.get(host.nodeId, secretId, version);
    this.#that(
      holder !== undefined,
      host,
      `${does} ${versionKey(secretId, version)}, and no manager knows of it`,
    );
  }

  #that(isSo: boolean, host: NodeHost | undefined, what: string): void {
    if (!isSo) throw new Violation(`${host === undefined ? '' : `${host.name} (${host.nodeId}) `}${what}`);
  }
}
