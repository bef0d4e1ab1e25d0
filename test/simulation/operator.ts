/**
 * Operators of a simulated cluster: they change things at random, some at the same time, and hold the manager to its word. What
 * they decide on changes by them alone; what was acknowledged is so; what a command says to be done, is done.
 */
import { digestOf, sealValue, submitContentKey } from '../../src/crypto/envelope.js';
import type { ManagerHost, Operate } from './manager_host.js';
import { UpdateOrder, type Reference } from '../../src/proto/gen/inro/v1/common_pb.js';
import type { ServiceRecord } from '../../src/proto/gen/inro/v1/records_pb.js';
import { InroError } from '../../src/model/error.js';
import { neverMs } from '../../src/model/lease.js';
import { newId } from '../../src/model/id.js';
import { versionKey } from '../../src/store/tables.js';
import type { Chance } from './chance.js';
import { Violation, type Checks } from './checks.js';
import { clusterId, keyArena, sealingKey } from './cluster_keys.js';
import type { Mirror } from './mirror.js';
import type { NodeHost } from './node_host.js';
import type { World } from './world.js';

/** What a terminal waits for an answer, and for the nodes. */
const answerMs = 10_000;
const waitMs = 30_000;
const names = ['a', 'b', 'c', 'd', 'e'];
const leases = [10_000, 20_000, 60_000, 300_000, 0, 0, neverMs];

export interface OperatorParts {
  world: World;
  chance: Chance;
  manager: ManagerHost;
  mirror: Mirror;
  checks: Checks;
  hosts: readonly NodeHost[];
  values: Map<string, string>;
  say: (words: string) => void;
}

type Outcome<T> = { is: 'done'; answer: T } | { is: 'refused'; error: InroError } | { is: 'unknown' };
/** What commands that change something are answered, as far as it counts here. */
interface Answer extends Changed {
  changed?: Changed;
  revokedMs?: bigint;
}
interface Changed {
  revision?: bigint;
  nodeIds?: readonly string[];
  serviceIds?: readonly string[];
}

export class Operator {
  readonly #parts: OperatorParts;
  /** What somebody changes just now, or may: keys of objects. */
  readonly #busy = new Map<string, number>();
  /** By object: what operators have decided on it. */
  readonly #decided = new Map<string, string>();
  readonly #broken: string[] = [];
  isDone = false;
  counts: Record<string, number> = {};

  constructor(parts: OperatorParts) {
    this.#parts = parts;
    parts.mirror.view.onChange(() => this.#look());
  }

  /** What was found wrong between two events. */
  check(): void {
    const [first] = this.#broken;
    if (first !== undefined) throw new Violation(first);
  }

  /** One terminal: one thing after the other, until `isDone`. */
  async run(pauseMs: number): Promise<void> {
    const { world, chance } = this.#parts;
    for (;;) {
      await new Promise<void>((resolve) => world.in(chance.wait(pauseMs), resolve));
      if (this.isDone) return;
      await this.#act();
    }
  }

  async #act(): Promise<void> {
    const { chance } = this.#parts;
    const what = chance.weighted({
      createSecret: 5,
      updateSecret: 14,
      rollbackSecret: 2,
      revokeSecret: 3,
      pruneSecret: 1,
      removeSecret: 2,
      createService: 6,
      scale: 4,
      references: 5,
      constraints: 2,
      force: 3,
      rollbackService: 1,
      removeService: 3,
      availability: 5,
      label: 2,
      removeNode: 0.5,
      apply: 2,
    });
    this.counts[what] = (this.counts[what] ?? 0) + 1;
    try {
      await this.#acts[what]();
    } catch (error) {
      if (!(error instanceof Violation)) throw error;
      this.#broken.push(error.message);
    }
  }

  readonly #acts = {
    createSecret: async () => {
      const name = this.#unused('secret');
      if (name === undefined) return;
      const { request, id } = this.#newSecret(name);
      await this.#change([`secret ${name}`], 'createSecret', request, () => {
        this.#that(this.#secret(name)?.id === id, `secret ${name} is acknowledged, and not there`);
      });
    },

    updateSecret: async () => {
      const secret = this.#someSecret();
      if (secret === undefined) return;
      const { id, name, serviceIds } = secret;
      const version = Math.max(secret.latestVersion, secret.currentVersion) + 1;
      const request = {
        id,
        version,
        ...this.#sealed(id, version),
        leaseMs: BigInt(this.#parts.chance.pick(leases)),
      };
      const changed = await this.#change(
        [`secret ${name}`, ...this.#servicesOf(serviceIds)],
        'updateSecret',
        request,
        () => {
          this.#that(
            this.#parts.mirror.view.version(id, version) !== undefined,
            `version ${version} of ${name} is acknowledged, and not there`,
          );
        },
      );
      if (changed === undefined || !(await this.#isSettled(changed))) return;
      // Somebody may have gone on with it meanwhile.
      if (
        this.#secret(name)?.currentVersion !== version ||
        this.#parts.mirror.revoked.has(versionKey(id, version))
      )
        return;
      for (const host of this.#hostsOf(changed.nodeIds))
        for (const served of host.memory.readable())
          if (
            served.secretId === id &&
            served.readableUntilMs === Infinity &&
            !this.#isPinned(served.taskId, served.file.target)
          )
            this.#that(
              served.version >= version,
              `the update of ${name} is said to be done, and ${host.name} serves version ${served.version}, not ${version}`,
            );
    },

    rollbackSecret: async () => {
      const secret = this.#someSecret();
      if (secret === undefined || secret.currentVersion < 2) return;
      this.#parts.checks.goneBack.add(secret.id);
      const changed = await this.#change([`secret ${secret.name}`], 'rollbackSecret', {
        name: secret.name,
        version: 0,
      });
      if (changed !== undefined) await this.#isSettled(changed);
    },

    revokeSecret: async () => {
      const { mirror, checks, manager } = this.#parts;
      const secret = this.#someSecret();
      if (secret === undefined) return;
      const { id, name, currentVersion: version } = secret;
      const key = versionKey(id, version);
      const done = await this.#change(
        [`secret ${name}`],
        'revokeSecret',
        { name, version, operator: 'somebody' },
        () => {
          this.#that(
            mirror.revoked.has(key) || mirror.view.secrets.get(id) === undefined,
            `${key} is said to be revoked, and is not`,
          );
        },
      );
      if (done === undefined) return;
      const { nodeIds = [], revokedMs = 0n } = done;
      const request = { secretId: id, version, nodeIds: [...nodeIds], sinceMs: revokedMs, timeoutMs: waitMs };
      const waited = await this.#ask(manager.operate('waitForWipes', request), waitMs + answerMs);
      for (const { nodeId, outcome } of waited.is === 'done' ? waited.answer.nodes : [])
        if (outcome.case === 'wiped' || outcome.case === 'gone' || outcome.case === 'expired')
          checks.declaredGone.add(`${nodeId}/${key}`);
    },

    pruneSecret: async () => {
      const secret = this.#someSecret();
      if (secret !== undefined)
        await this.#change([`secret ${secret.name}`], 'pruneSecret', { name: secret.name, keep: 2 });
    },

    removeSecret: async () => {
      const secret = this.#someSecret();
      if (secret === undefined) return;
      await this.#change([`secret ${secret.name}`], 'removeSecret', { name: secret.name }, () =>
        this.#that(
          this.#secret(secret.name)?.id !== secret.id,
          `secret ${secret.name} is said to be removed, and is there`,
        ),
      );
    },

    createService: async () => {
      const name = this.#unused('service');
      if (name === undefined) return;
      const request = this.#newService(name);
      const changed = await this.#change(
        [`service ${name}`, ...this.#secretsIn(request)],
        'createService',
        request,
        () => this.#that(this.#service(name) !== undefined, `service ${name} is acknowledged, and not there`),
      );
      if (changed !== undefined) await this.#isSettled(changed);
    },

    scale: async () => {
      const service = this.#someService();
      if (service === undefined || service.global) return;
      const { name } = service;
      const replicas = this.#parts.chance.below(5);
      const changed = await this.#change([`service ${name}`], 'updateService', { name, replicas }, () =>
        this.#that(
          this.#service(name)?.replicas === replicas,
          `service ${name} is not scaled as was acknowledged`,
        ),
      );
      if (changed !== undefined) await this.#isSettled(changed);
    },

    references: async () => {
      const { chance } = this.#parts;
      const service = this.#someService();
      const secret = this.#someSecret();
      if (service === undefined || secret === undefined) return;
      const { name } = service;
      const has = service.references.some(({ secretId }) => secretId === secret.id);
      const remove = has && chance.is(0.7);
      const request = {
        name,
        referencesAdd: remove ? [] : [this.#reference(secret.name, service.references.length)],
        referencesRemove: remove ? [secret.name] : [],
      };
      const changed = await this.#change(
        [`service ${name}`, `secret ${secret.name}`],
        'updateService',
        request,
      );
      if (changed === undefined || !(await this.#isSettled(changed)) || !remove) return;
      if (this.#service(name)?.references.some(({ secretId }) => secretId === secret.id) === true) return;
      for (const host of this.#hostsOf(changed.nodeIds))
        for (const task of host.memory.tasks.values())
          if (task.generation.serviceId === service.id)
            this.#that(
              ![...task.files.values()].some(({ secretId }) => secretId === secret.id),
              `${host.name} still shows ${secret.name} in ${name}`,
            );
    },

    constraints: async () => {
      const { chance, mirror } = this.#parts;
      const service = this.#someService();
      const node = this.#someNode();
      if (service === undefined || node === undefined) return;
      const { name, constraints } = service;
      const wanted = chance.pick([
        `node.id==${node}`,
        `node.id!=${node}`,
        'node.labels.rack==1',
        'node.labels.rack!=2',
      ]);
      const change =
        constraints.length > 0 && chance.is(0.7)
          ? { constraintsRemove: [...constraints] }
          : { constraintsAdd: [wanted] };
      const changed = await this.#change([`service ${name}`], 'updateService', { name, ...change });
      if (changed !== undefined && mirror.view.services.has(service.id)) await this.#isSettled(changed);
    },

    force: async () => {
      const service = this.#someService();
      if (service === undefined) return;
      const { chance } = this.#parts;
      const order = chance.is(0.5) ? UpdateOrder.START_FIRST : UpdateOrder.STOP_FIRST;
      const update = {
        order,
        parallelism: chance.below(3),
        delayMs: chance.below(2) * 2_000,
        monitorMs: 1_000,
      };
      const request = { name: service.name, force: true, ...(chance.is(0.3) ? { update } : {}) };
      const changed = await this.#change([`service ${service.name}`], 'updateService', request);
      if (changed !== undefined) await this.#isSettled(changed);
    },

    rollbackService: async () => {
      const service = this.#someService();
      if (service === undefined) return;
      await this.#change([`service ${service.name}`], 'updateService', {
        name: service.name,
        rollback: true,
      });
    },

    removeService: async () => {
      const service = this.#someService();
      if (service === undefined) return;
      const { id, name } = service;
      const changed = await this.#change(
        [`service ${name}`, ...this.#secretsOf(service)],
        'removeService',
        { name },
        () =>
          this.#that(this.#service(name)?.id !== id, `service ${name} is said to be removed, and is there`),
      );
      if (changed === undefined || !(await this.#isSettled(changed))) return;
      for (const host of this.#hostsOf(changed.nodeIds))
        for (const task of host.memory.tasks.values())
          this.#that(
            task.generation.serviceId !== id,
            `${host.name} still shows service ${name}, which is removed`,
          );
    },

    availability: async () => {
      const { chance, manager } = this.#parts;
      const node = this.#someNode();
      if (node === undefined) return;
      const availability = chance.pick(['active', 'active', 'active', 'pause', 'drain', 'drain']);
      const outcome = await this.#change([`node ${node}`], 'updateNode', { name: node, availability });
      if (
        outcome?.changed === undefined ||
        availability !== 'drain' ||
        !(await this.#isSettled(outcome.changed))
      )
        return;
      if (this.#parts.mirror.view.nodes.get(node)?.availability !== 'drain') return;
      if (manager.running?.core.dispatcher.contactWith(node) !== 'ready') return;
      // What somebody else has removed meanwhile is his to wait for.
      const { tasks } = this.#parts.mirror.view;
      for (const host of this.#hostsOf([node]))
        for (const { taskId, readableUntilMs } of host.memory.readable())
          this.#that(
            readableUntilMs !== Infinity || !tasks.has(taskId),
            `${host.name} is said to be drained, and serves`,
          );
    },

    label: async () => {
      const node = this.#someNode();
      if (node === undefined) return;
      const labelsAdd = { rack: String(1 + this.#parts.chance.below(2)) };
      await this.#change([`node ${node}`], 'updateNode', { name: node, labelsAdd });
    },

    removeNode: async () => {
      const node = this.#someNode();
      if (node === undefined || this.#parts.mirror.view.nodes.size < 3) return;
      const force = this.#parts.chance.is(0.3);
      await this.#change([`node ${node}`], 'removeNode', { name: node, force }, () =>
        this.#that(
          !this.#parts.mirror.view.nodes.has(node),
          `node ${node} is said to be removed, and is there`,
        ),
      );
    },

    apply: async () => {
      const [secretName, serviceName] = [this.#unused('secret'), this.#unused('service')];
      if (secretName === undefined || serviceName === undefined) return;
      const { request } = this.#newSecret(secretName);
      const service = { ...this.#newService(serviceName), references: [this.#reference(secretName, 0)] };
      const changes = [
        { change: { case: 'createSecret' as const, value: request } },
        { change: { case: 'createService' as const, value: service } },
      ];
      const keys = [`secret ${secretName}`, `service ${serviceName}`];
      const changed = await this.#change(keys, 'apply', { changes }, () => {
        const both = this.#secret(secretName) !== undefined && this.#service(serviceName) !== undefined;
        this.#that(both, `what was applied together is not there: ${keys.join(', ')}`);
      });
      if (changed !== undefined) await this.#isSettled(changed);
      else if (!this.#isBusy(keys))
        this.#that(
          (this.#secret(secretName) === undefined) === (this.#service(serviceName) === undefined),
          `of what was applied together one part is there: ${keys.join(', ')}`,
        );
    },
  };

  /** @returns the answer; undefined where it was refused, or nobody knows. @param isSo looked at when it is acknowledged. */
  async #change(
    keys: readonly string[],
    name: Parameters<Operate>[0],
    request: object,
    isSo: () => void = () => undefined,
  ): Promise<Answer | undefined> {
    const { manager, say } = this.#parts;
    if (this.#isBusy(keys)) return undefined;
    const { process } = manager;
    for (const key of keys) this.#busy.set(key, (this.#busy.get(key) ?? 0) + 1);
    const free = (): void => {
      for (const key of keys) {
        const left = (this.#busy.get(key) ?? 1) - 1;
        if (left === 0) this.#busy.delete(key);
        else this.#busy.set(key, left);
      }
    };
    const call = manager.operate(name, request) as Promise<never>;
    const outcome = await this.#ask<Answer>(call, name === 'removeNode' ? 2 * answerMs : answerMs);
    say(
      `operator: ${name} ${keys.join(', ')}: ${outcome.is}${outcome.is === 'refused' ? ` (${outcome.error.message})` : ''}`,
    );
    if (outcome.is === 'done') isSo();
    if (outcome.is !== 'unknown') free();
    // The next manager goes on with it.
    else if (name === 'removeNode') return undefined;
    // As long as that manager lives it may still be done.
    else if (process?.isAlive !== true) free();
    else {
      let isFree = false;
      const once = (): void => {
        if (!isFree) free();
        isFree = true;
      };
      process.onDeath(once);
      call.then(once, once);
    }
    return outcome.is === 'done' ? outcome.answer : undefined;
  }

  async #ask<T>(call: Promise<T>, ms: number): Promise<Outcome<T>> {
    const { world } = this.#parts;
    const late = new Promise<Outcome<T>>((resolve) => world.in(ms, () => resolve({ is: 'unknown' })));
    const answered = call.then(
      (answer): Outcome<T> => ({ is: 'done', answer }),
      (error: unknown): Outcome<T> => {
        if (!(error instanceof InroError))
          return { is: 'refused', error: new InroError('unreachable', String(error)) };
        if (error.code === 'internal') throw error;
        return { is: 'refused', error };
      },
    );
    return Promise.race([answered, late]);
  }

  /** Whether the nodes have done it, by the manager's word. */
  async #isSettled({ revision = 0n, nodeIds = [], serviceIds = [] }: Changed): Promise<boolean> {
    const { manager, say } = this.#parts;
    const request = { revision, nodeIds: [...nodeIds], serviceIds: [...serviceIds], timeoutMs: waitMs };
    const outcome = await this.#ask(manager.operate('wait', request), waitMs + answerMs);
    if (outcome.is === 'done' && outcome.answer.missing.length > 0)
      say(
        `operator: missing ${outcome.answer.missing.map(({ nodeHostname, reason }) => `${nodeHostname} ${reason}`).join(', ')}`,
      );
    return outcome.is === 'done' && outcome.answer.missing.length === 0;
  }

  /** What operators have decided on changes by them alone. */
  #look(): void {
    const { view } = this.#parts.mirror;
    const now = new Map<string, string>();
    for (const { name, id, currentVersion, stage, labels } of view.secrets.values()) {
      const versions = view
        .versionsOf(id)
        .map(({ version, revokedMs }) => `${version}${revokedMs > 0n ? 'r' : ''}`);
      now.set(`secret ${name}`, JSON.stringify([id, currentVersion, stage?.version, labels, versions]));
    }
    for (const { name, id, replicas, global, references, constraints, labels } of view.services.values()) {
      const files = references.map(({ secretId, target, version }) => [secretId, target, version]);
      now.set(`service ${name}`, JSON.stringify([id, replicas, global, files, constraints, labels]));
    }
    for (const { id, availability, labels } of view.nodes.values())
      now.set(`node ${id}`, JSON.stringify([availability, labels]));
    for (const key of new Set([...now.keys(), ...this.#decided.keys()])) {
      const [before, after] = [this.#decided.get(key), now.get(key)];
      const isFirst = before === undefined && key.startsWith('node ');
      if (before !== after && !isFirst && !this.#busy.has(key))
        this.#broken.push(
          `${key} was changed by no operator: ${before ?? 'missing'} -> ${after ?? 'missing'}`,
        );
      if (after === undefined) this.#decided.delete(key);
      else this.#decided.set(key, after);
    }
  }

  #newSecret(name: string) {
    const { chance } = this.#parts;
    const id = newId(chance.bytes);
    return { id, request: { id, name, ...this.#sealed(id, 1), leaseMs: BigInt(chance.pick(leases)) } };
  }

  #newService(name: string) {
    const { chance, mirror } = this.#parts;
    const secrets = [...mirror.view.secrets.values()].filter(() => chance.is(0.5)).slice(0, 3);
    const global = chance.is(0.2);
    const order = chance.is(0.3) ? UpdateOrder.START_FIRST : UpdateOrder.STOP_FIRST;
    return {
      name,
      references: secrets.map(({ name: secretName }, n) => this.#reference(secretName, n)),
      global,
      replicas: global ? 0 : chance.below(4),
      maxReplicasPerNode: chance.is(0.2) ? 1 : 0,
      update: { order, parallelism: chance.below(3), delayMs: 0, monitorMs: 1_000 },
    };
  }

  #reference(secretName: string, n: number) {
    const { chance } = this.#parts;
    const version = chance.is(0.1) ? (this.#secret(secretName)?.currentVersion ?? 0) : 0;
    return { secretName, target: `file${n}`, version, uid: '0', gid: '0', mode: 0o444 };
  }

  #sealed(secretId: string, version: number) {
    const { chance, values } = this.#parts;
    const text = `value of ${secretId}@${version} ${'.'.repeat(chance.below(80))}`;
    const value = keyArena.take(text.length);
    value.expose().set(Buffer.from(text));
    const { ciphertext, contentKey } = sealValue(value, keyArena);
    const ciphertextDigest = digestOf(ciphertext);
    values.set(Buffer.from(ciphertextDigest).toString('hex'), text);
    const binding = { clusterId, secretId, version, ciphertextDigest };
    const sealedKey = submitContentKey(contentKey, binding, sealingKey.publicKey, keyArena);
    value.wipe();
    contentKey.wipe();
    return { ciphertext, sealedKey };
  }

  #secret(name: string) {
    return [...this.#parts.mirror.view.secrets.values()].find((one) => one.name === name);
  }

  #service(name: string) {
    return [...this.#parts.mirror.view.services.values()].find((one) => one.name === name);
  }

  #someSecret() {
    return this.#some([...this.#parts.mirror.view.secrets.values()]);
  }

  #someService() {
    return this.#some([...this.#parts.mirror.view.services.values()]);
  }

  #someNode(): string | undefined {
    return this.#some([...this.#parts.mirror.view.nodes.keys()]);
  }

  #some<T>(all: readonly T[]): T | undefined {
    return all.length === 0 ? undefined : this.#parts.chance.pick(all);
  }

  #unused(kind: 'secret' | 'service'): string | undefined {
    const used = (name: string): boolean =>
      this.#busy.has(`${kind} ${name}`) ||
      (kind === 'secret' ? this.#secret(name) : this.#service(name)) !== undefined;
    return this.#some(names.filter((name) => !used(name)));
  }

  #isBusy(keys: readonly string[]): boolean {
    return keys.some((key) => this.#busy.has(key));
  }

  #hostsOf(nodeIds: readonly string[] = []): NodeHost[] {
    return this.#parts.hosts.filter(({ nodeId }) => nodeIds.includes(nodeId));
  }

  #servicesOf(ids: readonly string[]): string[] {
    const { services } = this.#parts.mirror.view;
    return ids.flatMap((id) => services.get(id) ?? []).map(({ name }) => `service ${name}`);
  }

  #secretsOf({ references }: ServiceRecord): string[] {
    return [...new Set(references.map(({ secretName }) => `secret ${secretName}`))];
  }

  #secretsIn({ references }: { references: readonly { secretName: string }[] }): string[] {
    return [...new Set(references.map(({ secretName }) => `secret ${secretName}`))];
  }

  #isPinned(taskId: string, target: string): boolean {
    const { view } = this.#parts.mirror;
    const service = view.services.get(view.tasks.get(taskId)?.serviceId ?? '');
    const reference: Reference | undefined = service?.references.find((one) => one.target === target);
    // One that is gone may have been.
    return reference === undefined || reference.version > 0;
  }

  #that(isSo: boolean, what: string): void {
    if (!isSo) throw new Violation(what);
  }
}
