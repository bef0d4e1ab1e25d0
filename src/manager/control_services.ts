/** What operators do with services and their tasks. */
import { clone, create, equals, type MessageInitShape } from '@bufbuild/protobuf';
import type { Random } from '../model/clock.js';
import { checkContainer } from '../model/container.js';
import { canShareNode, checkAttractsNothing, constraintText, parseConstraint } from '../model/constraint.js';
import { InroError } from '../model/error.js';
import { newId } from '../model/id.js';
import { limits } from '../model/limits.js';
import { checkLabels, checkName, quoted } from '../model/name.js';
import { canonicalOnChange } from '../model/on_change.js';
import { checkReference, checkTargetsDiffer } from '../model/reference.js';
import { hasEnded } from '../model/task.js';
import { checkAskable, unitName } from '../model/unit.js';
import { checkUpdatePolicy } from '../model/update_policy.js';
import {
  ContainerSpecSchema,
  RestartCondition,
  TaskState,
  UpdatePolicySchema,
  type ContainerSpec,
  type Reference,
} from '../proto/gen/inro/v1/common_pb.js';
import type {
  ContainerChange,
  Control,
  CreateServiceRequest,
  TaskSchema,
  UpdateServiceRequest,
} from '../proto/gen/inro/v1/control_pb.js';
import { ServiceRecordSchema, type ServiceRecord, type TaskRecord } from '../proto/gen/inro/v1/records_pb.js';
import { stateOf } from '../proto/task_state.js';
import { policyOf, wirePolicy } from '../proto/update_policy.js';
import type { Handlers } from '../rpc/server.js';
import {
  secretNamePrefix,
  serviceNamePrefix,
  serviceUnitPrefix,
  tables,
  versionKey,
} from '../store/tables.js';
import { transact, type Transaction } from '../store/transaction.js';
import { changedLabels } from './changed_labels.js';
import type { ControlParts } from './control_secrets.js';
import { callerOf, checkSees, checkSeesService, seesService, type Caller } from './caller.js';
import { find, matcher } from './find.js';
import { revokedNotice } from './revoked.js';
import { noteChange, versionOf } from './if_version.js';
import { beginRollback, beginUpdate } from './rollout.js';
import { isWanted } from './service_tasks.js';
import type { ClusterView } from './view.js';

type ControlHandlers = Handlers<typeof Control, 'operator'>;
type ServiceCalls =
  'createService' | 'updateService' | 'removeService' | 'getService' | 'listServices' | 'listTasks';

export function serviceHandlers(
  parts: ControlParts & { random: Random },
): Pick<ControlHandlers, ServiceCalls> {
  const { store, view, log } = parts;
  const changes = serviceChanges(parts);
  const findService = (typed: string, caller: Caller): ServiceRecord => findSeen(view, typed, caller);

  return {
    createService: async (request, { peer }) => {
      const caller = callerOf(view, peer);
      const { result, revision } = await transact(store, (tx) => changes.create(tx, request, caller));
      const { id, name } = result;
      log.info({ service: id, name }, 'service created');
      return { id, revision: BigInt(revision), serviceIds: [id] };
    },

    updateService: async (request, { peer }) => {
      const caller = callerOf(view, peer);
      const { result, revision } = await transact(store, (tx) => changes.update(tx, request, caller));
      const { id, name } = result;
      log.info({ service: id, name }, 'service updated');
      return { id, revision: BigInt(revision), nodeIds: [...view.nodesOfServices([id])], serviceIds: [id] };
    },

    removeService: async ({ name }, { peer }) => {
      const caller = callerOf(view, peer);
      const { id } = findService(name, caller);
      const nodeIds = [...view.nodesOfServices([id])];
      const { result, revision } = await transact(store, async (tx) => {
        const service = await tx.get(tables.services, id);
        if (service === undefined) throw new InroError('not_found', `no service ${quoted(name)}`);
        checkSeesService(caller, service);
        for (const secretName of new Set(service.references.map((r) => r.secretName)))
          await release(tx, service, secretName);
        await unbind(tx, service);
        for (const task of view.tasksOfService(id)) tx.delete(tables.tasks, task.id);
        tx.delete(tables.services, id);
        tx.deleteBytes(serviceNamePrefix + service.name);
        return service;
      });
      log.info({ service: id, name: result.name }, 'service removed');
      return { id, revision: BigInt(revision), nodeIds, serviceIds: [id] };
    },

    getService: async ({ name }, { peer }) => shownService(findService(name, callerOf(view, peer)), view),

    listServices: async ({ filters }, { peer }) => ({
      services: [...view.services.values()]
        .filter((service) => seesService(callerOf(view, peer), service))
        .filter(matcher(filters))
        .sort((a, b) => (a.name < b.name ? -1 : 1))
        .map((service) => shownService(service, view)),
    }),

    listTasks: async ({ name }, { peer }) => ({
      tasks: view
        .tasksOfService(findService(name, callerOf(view, peer)).id)
        .sort((a, b) => a.slot - b.slot || Number(b.createdMs - a.createdMs))
        .map((task) => shownTask(task, view)),
    }),
  };
}

export interface ServiceChanges {
  /** @throws bad_input, already_exists, not_found, revoked. */
  create(tx: Transaction, request: CreateServiceRequest, caller: Caller): Promise<ServiceRecord>;
  /** @throws the same, and conflict. */
  update(tx: Transaction, request: UpdateServiceRequest, caller: Caller): Promise<ServiceRecord>;
}

/** What is done to services, as part of a transaction. */
export function serviceChanges({
  view,
  clock,
  random,
}: Pick<ControlParts, 'view' | 'clock'> & { random: Random }): ServiceChanges {
  return {
    async create(tx, request, caller) {
      const { name, labels, references, constraints, readers, container, restart } = request;
      const { global, maxReplicasPerNode } = request;
      const replicas = global ? 0 : request.replicas;
      const { untilDetached } = request;
      checkName('service', name);
      checkLabels(labels);
      const unit = request.unit === '' ? '' : unitName(request.unit);
      checkShape({ references, replicas, constraints, unit });
      checkNodes(constraints, view);
      if (container !== undefined) checkContainer(container);
      checkUntil(request);
      const update = wirePolicy(checkUpdatePolicy(policyOf(request.update)));
      const id = newId(random);
      if ((await tx.getBytes(serviceNamePrefix + name)) !== undefined) {
        throw new InroError('already_exists', `service ${quoted(name)} exists already`, {
          remedy: `change it with 'inro service update', or remove it with 'inro service rm ${name}'`,
        });
      }
      const now = BigInt(clock.now());
      const service = create(ServiceRecordSchema, {
        id,
        name,
        labels,
        replicas,
        global,
        maxReplicasPerNode,
        update,
        readers,
        ...(container === undefined ? {} : { container }),
        restart,
        unit,
        onChange: canonicalOnChange(request.onChange),
        ...(untilDetached === undefined ? {} : { untilDetached }),
        constraints: canonical(constraints),
        createdMs: now,
        updatedMs: now,
      });
      service.references = await resolve(tx, id, references, caller);
      await bind(tx, service);
      tx.put(tables.services, id, service);
      tx.putBytes(serviceNamePrefix + name, Buffer.from(id));
      return service;
    },

    async update(tx, request, caller) {
      const { id } = findSeen(view, request.name, caller);
      const service = await tx.get(tables.services, id);
      if (service === undefined) throw new InroError('not_found', `no service ${quoted(request.name)}`);
      checkSeesService(caller, service);
      noteChange(service, `service ${quoted(service.name)}`, request.ifVersion);
      for (const name of request.referencesRemove) await release(tx, service, name);
      const added = await resolve(tx, id, request.referencesAdd, caller);
      service.references = [...service.references, ...added];
      service.labels = changedLabels(service.labels, request);
      if (request.replicas !== undefined) {
        if (service.global)
          throw new InroError(
            'bad_input',
            `service ${quoted(service.name)} is global: it has one task on each node`,
            {
              remedy: 'constraints decide on which nodes it has one; for a number of tasks create it anew',
            },
          );
        service.replicas = request.replicas;
      }
      if (request.maxReplicasPerNode !== undefined) service.maxReplicasPerNode = request.maxReplicasPerNode;
      if (request.update !== undefined)
        service.update = create(UpdatePolicySchema, wirePolicy(checkUpdatePolicy(policyOf(request.update))));
      changeSpec(service, request, clock.now());
      if (request.restart !== RestartCondition.UNSPECIFIED) service.restart = request.restart;
      if (request.readers !== undefined) service.readers = request.readers;
      if (request.onChange !== undefined) service.onChange = canonicalOnChange(request.onChange);
      checkNodes(request.constraintsAdd, view);
      service.constraints = changedConstraints(service, request.constraintsAdd, request.constraintsRemove);
      if (request.unit !== undefined) {
        await unbind(tx, service);
        service.unit = request.unit === '' ? '' : unitName(request.unit);
      }
      checkShape(service);
      await bind(tx, service);
      service.updatedMs = BigInt(clock.now());
      tx.put(tables.services, id, service);
      return service;
    },
  };
}

function findSeen(view: ClusterView, typed: string, caller: Caller): ServiceRecord {
  const service = find('service', view.services, typed, ({ name }) => name);
  checkSeesService(caller, service);
  return service;
}

/** @throws bad_input for too much of anything, a file name, owner or mode that no node can show, one target twice. */
function checkShape({
  references,
  replicas,
  constraints,
  unit,
}: Pick<ServiceRecord, 'references' | 'replicas' | 'constraints' | 'unit'>): void {
  if (references.length > limits.maxReferencesPerService) {
    throw new InroError(
      'bad_input',
      `${references.length} references are more than ${limits.maxReferencesPerService}`,
    );
  }
  if (replicas > limits.maxReplicas) {
    throw new InroError('bad_input', `${replicas} replicas are more than ${limits.maxReplicas}`);
  }
  if (constraints.length > limits.maxConstraints) {
    throw new InroError(
      'bad_input',
      `${constraints.length} constraints are more than ${limits.maxConstraints}`,
    );
  }
  for (const constraint of constraints) parseConstraint(constraint);
  if (references.length > 0) checkAttractsNothing(constraints);
  for (const reference of references) checkReference(reference);
  checkTargetsDiffer(references.map(({ target, secretName }) => ({ target, source: secretName })));
  checkAskable(
    unit,
    references.map(({ target }) => target),
  );
}

/** What its tasks are made of. @throws bad_input for what a service without an image cannot have; conflict with nothing to go back to. */
function changeSpec(service: ServiceRecord, request: UpdateServiceRequest, now: number): void {
  const { container: change, force, rollback } = request;
  if (rollback) {
    if (change !== undefined || force)
      throw new InroError('bad_input', 'a service is either changed or rolled back');
    if (beginRollback(service, now, '')) return;
    throw new InroError(
      'conflict',
      `service ${quoted(service.name)} has not been updated yet: there is nothing to go back to`,
    );
  }
  if (change === undefined && !force) return;
  if (change === undefined) return beginUpdate(service, service.container, now);
  if (service.container === undefined)
    throw new InroError('bad_input', `service ${quoted(service.name)} runs no image`, {
      remedy: 'create another one with an image, and remove this one',
    });
  const changed = changedContainer(service.container, change);
  checkContainer(changed);
  if (force || !equals(ContainerSpecSchema, changed, service.container)) beginUpdate(service, changed, now);
}

function changedContainer(spec: ContainerSpec, change: ContainerChange): ContainerSpec {
  if (change.whole !== undefined) return clone(ContainerSpecSchema, change.whole);
  const changed = clone(ContainerSpecSchema, spec);
  if (change.image !== '') changed.image = change.image;
  if (change.args !== undefined) changed.args = change.args.args;
  if (change.user !== undefined) changed.user = change.user;
  const keyOf = (text: string): string => text.slice(0, Math.max(0, text.indexOf('=')));
  const unknown = change.envRemove.find((key) => !spec.env.some((text) => keyOf(text) === key));
  if (unknown !== undefined)
    throw new InroError('not_found', `there is no variable ${quoted(unknown)} in its environment`);
  const gone = new Set([...change.envRemove, ...change.envAdd.map(keyOf)]);
  changed.env = [...spec.env.filter((text) => !gone.has(keyOf(text))), ...change.envAdd];
  return changed;
}

/** @throws bad_input for a grace that is too long, and for a task that ends with its container anyway. */
function checkUntil({ untilDetached, container }: CreateServiceRequest): void {
  if (untilDetached === undefined) return;
  if (container !== undefined)
    throw new InroError('bad_input', 'a task that runs an image ends with its container', {
      remedy: 'leave --until away',
    });
  if (untilDetached.graceMs > limits.maxDetachGraceMs)
    throw new InroError(
      'bad_input',
      `a detach grace of ${untilDetached.graceMs} ms is more than ${limits.maxDetachGraceMs}`,
    );
}

/** Notes the service beside its unit. @throws already_exists when another one could have a task on the same node for that unit. */
async function bind(tx: Transaction, service: ServiceRecord): Promise<void> {
  const { id, unit } = service;
  if (unit === '') return;
  const others = (await boundTo(tx, unit)).filter((other) => other !== id);
  const own = service.constraints.map(parseConstraint);
  for (const otherId of others) {
    const other = await tx.get(tables.services, otherId);
    if (other === undefined || !canShareNode(own, other.constraints.map(parseConstraint))) continue;
    throw new InroError(
      'already_exists',
      `unit ${quoted(unit)} gets the secrets of service ${quoted(other.name)} already, and both may run on one node`,
      {
        remedy: `take it from there with 'inro service update --unit-rm ${other.name}', or keep them apart: --constraint node.id==ID`,
      },
    );
  }
  tx.putBytes(serviceUnitPrefix + unit, Buffer.from([...others, id].join('\n')));
}

async function unbind(tx: Transaction, { id, unit }: ServiceRecord): Promise<void> {
  if (unit === '') return;
  const others = (await boundTo(tx, unit)).filter((other) => other !== id);
  if (others.length === 0) tx.deleteBytes(serviceUnitPrefix + unit);
  else tx.putBytes(serviceUnitPrefix + unit, Buffer.from(others.join('\n')));
}

/** Ids of services. */
async function boundTo(tx: Transaction, unit: string): Promise<string[]> {
  const bytes = await tx.getBytes(serviceUnitPrefix + unit);
  return bytes === undefined ? [] : Buffer.from(bytes).toString().split('\n');
}

/** Names become ids, and each secret learns who uses it: so it cannot be removed in between. */
async function resolve(
  tx: Transaction,
  serviceId: string,
  references: readonly Reference[],
  caller: Caller,
): Promise<Reference[]> {
  const resolved: Reference[] = [];
  for (const reference of references) {
    checkName('secret', reference.secretName);
    checkSees(caller, reference.secretName);
    const id = await tx.getBytes(secretNamePrefix + reference.secretName);
    const secret = id === undefined ? undefined : await tx.get(tables.secrets, Buffer.from(id).toString());
    if (secret === undefined) {
      throw new InroError('not_found', `no secret ${quoted(reference.secretName)}`, {
        remedy: `create it first: inro secret create ${reference.secretName} -`,
      });
    }
    const { version } = reference;
    const served = await tx.get(tables.versions, versionKey(secret.id, version || secret.currentVersion));
    if (served === undefined)
      throw new InroError('not_found', `secret ${quoted(secret.name)} has no version ${version}`, {
        remedy: `'inro secret history ${secret.name}' shows those that it has`,
      });
    if (served.revokedMs > 0n && version > 0)
      throw new InroError('revoked', `version ${version} of secret ${quoted(secret.name)} is revoked`, {
        remedy: `'inro secret history ${secret.name}' shows those that are not`,
      });
    if (served.revokedMs > 0n) {
      throw new InroError('revoked', `secret ${quoted(secret.name)} is revoked: it has no value to serve`, {
        remedy: `give it a new one first: inro secret update ${secret.name} -`,
      });
    }
    if (!secret.serviceIds.includes(serviceId)) secret.serviceIds.push(serviceId);
    tx.put(tables.secrets, secret.id, secret);
    resolved.push({ ...reference, onChange: canonicalOnChange(reference.onChange), secretId: secret.id });
  }
  return resolved;
}

/** Takes every reference of the service to this secret away. @throws not_found when it has none. */
async function release(tx: Transaction, service: ServiceRecord, secretName: string): Promise<void> {
  const gone = service.references.filter((reference) => reference.secretName === secretName);
  const [first] = gone;
  if (first === undefined) {
    throw new InroError(
      'not_found',
      `service ${quoted(service.name)} does not use secret ${quoted(secretName)}`,
      {
        remedy: `'inro service inspect ${service.name}' shows what it uses`,
      },
    );
  }
  service.references = service.references.filter((reference) => !gone.includes(reference));
  const secret = await tx.get(tables.secrets, first.secretId);
  if (secret === undefined) return;
  secret.serviceIds = secret.serviceIds.filter((id) => id !== service.id);
  tx.put(tables.secrets, secret.id, secret);
}

/** @throws not_found for one to remove that the service does not have; bad_input for one that is not understood. */
function changedConstraints(
  { name, constraints }: ServiceRecord,
  add: readonly string[],
  remove: readonly string[],
): string[] {
  const gone = canonical(remove);
  const unknown = gone.find((constraint) => !constraints.includes(constraint));
  if (unknown !== undefined) {
    throw new InroError('not_found', `service ${quoted(name)} has no constraint ${quoted(unknown)}`, {
      remedy: `'inro service inspect ${name}' shows what it has`,
    });
  }
  return [...new Set([...constraints.filter((constraint) => !gone.includes(constraint)), ...canonical(add)])];
}

/** A node's id is drawn when it joins: one that there is not will never be. @throws not_found */
function checkNodes(constraints: readonly string[], view: ClusterView): void {
  for (const { key, operator, value } of constraints.map(parseConstraint)) {
    if (key !== 'node.id' || operator !== '==' || view.nodes.has(value)) continue;
    throw new InroError('not_found', `no node has the id ${quoted(value)}`, {
      remedy: "write the whole id, as 'inro node ls' shows it",
    });
  }
}

function canonical(constraints: readonly string[]): string[] {
  return constraints.map((text) => constraintText(parseConstraint(text)));
}

function shownService(service: ServiceRecord, view: ClusterView) {
  const tasks = view.tasksOfService(service.id);
  const { id, name, labels, references, replicas, constraints, readers, createdMs, updatedMs } = service;
  const { unit, container, restart, onChange, untilDetached } = service;
  const wanted = tasks.filter(isWanted);
  const running = wanted.filter(({ state }) => state === TaskState.RUNNING).length;
  const { global, maxReplicasPerNode, updateStatus } = service;
  const rolls = {
    global,
    desiredTasks: global ? wanted.length : replicas,
    maxReplicasPerNode,
    update: wirePolicy(policyOf(service.update)),
    updatedTasks: wanted.filter(({ spec }) => spec === service.spec).length,
    ...(updateStatus === undefined ? {} : { updateStatus }),
  };
  const runs = container === undefined ? {} : { container };
  const shown = {
    id,
    name,
    labels,
    references,
    replicas,
    constraints,
    readers,
    unit,
    createdMs,
    updatedMs,
    running,
  };
  const until = untilDetached === undefined ? {} : { untilDetached };
  return { ...shown, ...rolls, ...runs, ...until, restart, onChange, version: versionOf(service) };
}

function shownTask(task: TaskRecord, view: ClusterView): MessageInitShape<typeof TaskSchema> {
  const { id, serviceId, slot, nodeId, state, createdMs, updatedMs, change, exitCode } = task;
  const service = view.services.get(serviceId);
  const isLive = !hasEnded(stateOf(state)) && task.desiredState === TaskState.RUNNING;
  const error = task.error || (isLive ? revokedNotice(view, service?.references ?? [], task) : '');
  return {
    id,
    serviceId,
    serviceName: service?.name ?? task.serviceName,
    slot,
    nodeId,
    nodeHostname: view.nodes.get(nodeId)?.description?.hostname ?? '',
    state,
    desiredState: hasEnded(stateOf(state)) ? TaskState.SHUTDOWN : task.desiredState,
    error,
    createdMs,
    updatedMs,
    ...(change === undefined ? {} : { change }),
    ...(exitCode === undefined ? {} : { exitCode }),
  };
}
