/** inro service create|update|ls|ps|inspect|rm */
import {
  checkContainer,
  parseMount,
  type ContainerSpec,
  type RestartCondition,
} from '../../model/container.js';
import { parseConstraint } from '../../model/constraint.js';
import { InroError } from '../../model/error.js';
import { checkLabels, checkName, quoted, type Labels } from '../../model/name.js';
import { onChangeText, parseOnChange } from '../../model/on_change.js';
import type { ReadersRule } from '../../model/readers.js';
import { checkTargetsDiffer, parseReference } from '../../model/reference.js';
import { unitName } from '../../model/unit.js';
import { checkUpdatePolicy, defaultUpdatePolicy } from '../../model/update_policy.js';
import { Control, type Service, type Task } from '../../proto/gen/inro/v1/control_pb.js';
import type { ContainerSpec as WireContainer, Reference } from '../../proto/gen/inro/v1/common_pb.js';
import { readersOf, wireReaders } from '../../proto/readers.js';
import { restartOf, wireRestart } from '../../proto/restart.js';
import { stateOf } from '../../proto/task_state.js';
import { policyOf, updateStateOf, wirePolicy } from '../../proto/update_policy.js';
import { call } from '../../rpc/client.js';
import { changedPolicy, givesPolicy, policyText, type PolicyOptions } from '../update_options.js';
import { removeEach, settle, withManager, type ManagerOption } from '../operator.js';
import {
  ago,
  iso,
  isoOrNull,
  labelText,
  octal,
  printFacts,
  printJson,
  printLine,
  printTable,
} from '../print.js';

const defaultDetachGraceSeconds = 10;

interface Common extends ManagerOption {
  json?: boolean;
  detach?: boolean;
}

interface CreateOptions extends Common, PolicyOptions {
  name: string;
  secret: string[];
  label: Labels;
  constraint: string[];
  mode?: 'replicated' | 'global';
  replicas?: number;
  maxReplicasPerNode?: number;
  readers?: ReadersRule;
  onChange?: string;
  until?: 'removed' | 'detached';
  detachGrace?: number;
  env: string[];
  mount: string[];
  containerLabel: Labels;
  user?: string;
  workdir?: string;
  network?: string;
  readOnly?: boolean;
  stopSignal?: string;
  stopGracePeriod?: number;
  restartCondition?: RestartCondition;
  unit?: string;
}

interface UpdateOptions extends Common, PolicyOptions {
  ifVersion?: number;
  secretAdd: string[];
  secretRm: string[];
  labelAdd: Labels;
  labelRm: string[];
  constraintAdd: string[];
  constraintRm: string[];
  replicas?: number;
  maxReplicasPerNode?: number;
  readers?: ReadersRule;
  onChange?: string;
  unit?: string;
  unitRm?: boolean;
  image?: string;
  arg?: string[];
  envAdd: string[];
  envRm: string[];
  user?: string;
  force?: boolean;
  rollback?: boolean;
}

export async function serviceCreate(
  image: string | undefined,
  args: string[],
  options: CreateOptions,
): Promise<void> {
  const container = containerOf(image, args, options);
  checkName('service', options.name);
  checkLabels(options.label);
  options.constraint.forEach(parseConstraint);
  const references = referencesOf(options.secret);
  const unit = options.unit === undefined ? '' : unitName(options.unit);
  const onChange = options.onChange === undefined ? '' : onChangeText(parseOnChange(options.onChange));
  const until = untilOf(options);
  const global = options.mode === 'global';
  if (global && options.replicas !== undefined)
    throw new InroError(
      'bad_input',
      'a global service has one task on each node, and no number of replicas',
      {
        remedy: 'leave --replicas or --mode global away',
      },
    );
  const update = wirePolicy(checkUpdatePolicy(changedPolicy(defaultUpdatePolicy, options)));
  await withManager(options, async (manager) => {
    const { name, label: labels, replicas = 1, maxReplicasPerNode = 0, constraint: constraints } = options;
    const changed = await call(manager, Control, 'createService', {
      name,
      labels,
      references,
      replicas: global ? 0 : replicas,
      global,
      maxReplicasPerNode,
      update,
      constraints,
      readers: wireReaders(options.readers ?? 'auto'),
      ...(container === undefined ? {} : { container }),
      restart: wireRestart(options.restartCondition ?? 'any'),
      unit,
      onChange,
      ...until,
    });
    await settle(manager, changed, options);
    if (options.json === true) printJson({ id: changed.id, name });
    else printLine(changed.id);
  });
}

/** @throws bad_input for a grace that nothing would end. */
function untilOf({ until, detachGrace }: CreateOptions): { untilDetached?: { graceMs: number } } {
  if (until === 'detached')
    return { untilDetached: { graceMs: (detachGrace ?? defaultDetachGraceSeconds) * 1000 } };
  if (detachGrace !== undefined)
    throw new InroError('bad_input', 'a detach grace is of a service that lasts until it is detached', {
      remedy: 'add --until detached',
    });
  return {};
}

/** @throws bad_input, also for what only a container could use. */
function containerOf(
  image: string | undefined,
  args: string[],
  options: CreateOptions,
): ContainerSpec | undefined {
  const { env, mount, containerLabel: labels, user = '', workdir = '', network = '' } = options;
  const spec = {
    image: image ?? '',
    args,
    env,
    labels,
    mounts: mount.map(parseMount),
    user,
    workingDirectory: workdir,
    network,
    readOnly: options.readOnly ?? false,
    stopSignal: options.stopSignal ?? '',
    stopGraceMs: (options.stopGracePeriod ?? 0) * 1000,
  };
  if (image !== undefined) return checkContainer(spec);
  const { image: _none, args: _noArgs, ...others } = spec;
  const isGiven = (value: unknown): boolean =>
    typeof value === 'object'
      ? Object.keys(value ?? {}).length > 0
      : value !== '' && value !== 0 && value !== false;
  if (Object.values(others).some(isGiven) || options.restartCondition !== undefined)
    throw new InroError('bad_input', 'this service runs no image, and options of a container are given', {
      remedy: `name the image behind the options: inro service create --name ${options.name} ... IMAGE [ARG...]`,
    });
  return undefined;
}

export async function serviceUpdate(name: string, options: UpdateOptions): Promise<void> {
  options.constraintAdd.forEach(parseConstraint);
  const change = {
    referencesAdd: referencesOf(options.secretAdd),
    referencesRemove: options.secretRm,
    labelsAdd: checkLabels(options.labelAdd),
    labelsRemove: options.labelRm,
    constraintsAdd: options.constraintAdd,
    constraintsRemove: options.constraintRm,
    ...(options.replicas === undefined ? {} : { replicas: options.replicas }),
    ...(options.readers === undefined ? {} : { readers: wireReaders(options.readers) }),
    ...(options.onChange === undefined ? {} : { onChange: onChangeText(parseOnChange(options.onChange)) }),
    ...(options.maxReplicasPerNode === undefined ? {} : { maxReplicasPerNode: options.maxReplicasPerNode }),
    ...unitChange(options),
    ...containerChange(options),
    ...(options.force === true ? { force: true } : {}),
    ...(options.rollback === true ? { rollback: true } : {}),
  };
  // Added and removed things stand beside what others add and remove; these take the place of what was there.
  const replaces = replacing.some((key) => Object.hasOwn(change, key)) || givesPolicy(options);
  await withManager(options, async (manager) => {
    const { labels, version, update } = await call(manager, Control, 'getService', { name });
    const ifVersion = options.ifVersion ?? (replaces ? version : 0);
    const policy = givesPolicy(options)
      ? { update: wirePolicy(checkUpdatePolicy(changedPolicy(policyOf(update), options))) }
      : {};
    const seen = { ifVersion, labelsSeen: { labels } };
    const changed = await call(manager, Control, 'updateService', { name, ...change, ...policy, ...seen });
    await settle(manager, changed, options);
    if (options.json === true) printJson({ id: changed.id, name });
    else printLine(name);
  });
}

const replacing = ['replicas', 'maxReplicasPerNode', 'readers', 'onChange', 'unit', 'container', 'rollback'];

/** @param changes as SERVICE=REPLICAS. */
export async function serviceScale(changes: readonly string[], options: Common): Promise<void> {
  const wanted = changes.map((text) => {
    const [, name = '', replicas = ''] = /^(.+)=([0-9]{1,6})$/.exec(text) ?? [];
    if (name === '')
      throw new InroError('bad_input', `${quoted(text)} is not SERVICE=REPLICAS`, {
        remedy: 'such as web=3',
      });
    return { name, replicas: Number(replicas) };
  });
  await withManager(options, async (manager) => {
    const scaled: { id: string; name: string; replicas: number }[] = [];
    for (const { name, replicas } of wanted) {
      const { version: ifVersion } = await call(manager, Control, 'getService', { name });
      const changed = await call(manager, Control, 'updateService', { name, replicas, ifVersion });
      await settle(manager, changed, options);
      scaled.push({ id: changed.id, name, replicas });
      if (options.json !== true) printLine(`${name} scaled to ${replicas}`);
    }
    if (options.json === true) printJson(scaled);
  });
}

export async function serviceRollback(name: string, options: Common & { ifVersion?: number }): Promise<void> {
  await withManager(options, async (manager) => {
    const ifVersion = options.ifVersion ?? (await call(manager, Control, 'getService', { name })).version;
    const changed = await call(manager, Control, 'updateService', { name, rollback: true, ifVersion });
    await settle(manager, changed, options);
    if (options.json === true) printJson({ id: changed.id, name });
    else printLine(name);
  });
}

export async function serviceLs(options: Common & { filter: string[]; quiet?: boolean }): Promise<void> {
  const { services } = await withManager(options, (manager) =>
    call(manager, Control, 'listServices', { filters: options.filter }),
  );
  if (options.json === true) return printJson(services.map(serviceJson));
  if (options.quiet === true) return services.forEach(({ id }) => printLine(id));
  const rows = services.map((s) => [
    s.id,
    s.name,
    modeOf(s),
    `${s.running}/${s.desiredTasks}`,
    s.references.map((r) => r.secretName).join(',') || '-',
    ago(s.updatedMs),
  ]);
  printTable(['ID', 'NAME', 'MODE', 'REPLICAS', 'SECRETS', 'UPDATED'], rows);
}

export async function servicePs(names: string[], options: Common & { quiet?: boolean }): Promise<void> {
  const lists = await withManager(options, (manager) =>
    Promise.all(names.map((name) => call(manager, Control, 'listTasks', { name }))),
  );
  const tasks = lists.flatMap((list) => list.tasks);
  if (options.json === true) return printJson(tasks.map(taskJson));
  if (options.quiet === true) return tasks.forEach(({ id }) => printLine(id));
  const hasChanges = tasks.some(({ change }) => change !== undefined);
  const rows = tasks.map((t) => [
    t.id,
    `${t.serviceName}.${t.slot || t.nodeId}`,
    t.nodeHostname || t.nodeId || '-',
    stateOf(t.desiredState),
    stateOf(t.state),
    ago(t.updatedMs),
    t.error || '-',
    ...(hasChanges ? [changeWords(t)] : []),
  ]);
  const heads = ['ID', 'NAME', 'NODE', 'DESIRED', 'STATE', 'SINCE', 'ERROR'];
  printTable(hasChanges ? [...heads, 'LAST CHANGE'] : heads, rows);
}

export async function serviceInspect(names: string[], options: Common): Promise<void> {
  const services = await withManager(options, (manager) =>
    Promise.all(names.map((name) => call(manager, Control, 'getService', { name }))),
  );
  if (options.json === true) return printJson(services.map(serviceJson));
  for (const service of services) {
    printFacts([
      ['ID', service.id],
      ['Name', service.name],
      ['Labels', labelText(service.labels)],
      ['Mode', modeOf(service)],
      ['Replicas', replicasText(service)],
      ['Update', updateText(service)],
      ['Constraints', service.constraints.join(', ') || '-'],
      ['Readers', readersOf(service.readers)],
      ...(service.container === undefined
        ? []
        : ([
            ['Image', [service.container.image, ...service.container.args].join(' ')],
            ['Restart', restartOf(service.restart)],
          ] as const)),
      ['Unit', service.unit || '-'],
      ['On change', service.onChange || 'none'],
      ['Until', untilText(service)],
      ['Created', `${iso(service.createdMs)} (${ago(service.createdMs)})`],
      ['Updated', `${iso(service.updatedMs)} (${ago(service.updatedMs)})`],
    ]);
    const rows = service.references.map((r) => [
      r.secretName,
      r.target,
      r.uid,
      r.gid,
      octal(r.mode),
      r.onChange || '-',
    ]);
    printTable(['SECRET', 'TARGET', 'UID', 'GID', 'MODE', 'ON CHANGE'], rows);
  }
}

export async function serviceRm(names: string[], options: Common): Promise<void> {
  await withManager(options, (manager) =>
    removeEach(names, options, async (name) => {
      const changed = await call(manager, Control, 'removeService', { name });
      await settle(manager, changed, options);
      return changed.id;
    }),
  );
}

function containerChange(options: UpdateOptions) {
  const { image, arg: args, envAdd, envRm: envRemove, user } = options;
  if (
    image === undefined &&
    args === undefined &&
    user === undefined &&
    envAdd.length + envRemove.length === 0
  )
    return {};
  const container = {
    image: image ?? '',
    ...(args === undefined ? {} : { args: { args } }),
    envAdd,
    envRemove,
    ...(user === undefined ? {} : { user }),
  };
  return { container };
}

function modeOf({ global }: Service): string {
  return global ? 'global' : 'replicated';
}

function replicasText({ desiredTasks, running, maxReplicasPerNode }: Service): string {
  const bound = maxReplicasPerNode === 0 ? '' : `, at most ${maxReplicasPerNode} on a node`;
  return `${desiredTasks} (${running} running)${bound}`;
}

function updateText({ update, updateStatus, updatedTasks, desiredTasks }: Service): string {
  const policy = policyText(policyOf(update));
  if (updateStatus === undefined) return policy;
  const { state, startedMs, endedMs, message } = updateStatus;
  const since = endedMs === 0n ? `since ${ago(startedMs)}` : ago(endedMs);
  const words = [`${updateStateOf(state)} ${since}`, `${updatedTasks} of ${desiredTasks} tasks`];
  return `${words.join(', ')}${message === '' ? '' : `: ${message}`} (${policy})`;
}

function updateJson({ update, updateStatus, updatedTasks }: Service) {
  const policy = policyOf(update);
  const status =
    updateStatus === undefined
      ? null
      : {
          state: updateStateOf(updateStatus.state),
          updatedTasks,
          message: updateStatus.message,
          startedAt: iso(updateStatus.startedMs),
          endedAt: isoOrNull(updateStatus.endedMs),
        };
  return {
    updateConfig: {
      parallelism: policy.parallelism,
      delaySeconds: policy.delayMs / 1000,
      order: policy.order,
      failureAction: policy.failureAction,
      monitorSeconds: policy.monitorMs / 1000,
      maxFailureRatio: policy.maxFailuresPermille / 1000,
    },
    updateStatus: status,
  };
}

function unitChange({ unit, unitRm }: UpdateOptions): { unit?: string } {
  if (unitRm === true) return { unit: '' };
  return unit === undefined ? {} : { unit: unitName(unit) };
}

function referencesOf(texts: readonly string[]) {
  const references = texts.map(parseReference);
  checkTargetsDiffer(references);
  return references.map(({ source, version, target, uid, gid, mode, mmap, onChange }) => ({
    secretName: source,
    version,
    target,
    uid,
    gid,
    mode,
    mmap,
    onChange,
  }));
}

function serviceJson(service: Service) {
  return {
    id: service.id,
    name: service.name,
    labels: service.labels,
    mode: modeOf(service),
    replicas: service.desiredTasks,
    maxReplicasPerNode: service.maxReplicasPerNode,
    ...updateJson(service),
    running: service.running,
    constraints: service.constraints,
    readers: readersOf(service.readers),
    container: service.container === undefined ? null : containerJson(service.container),
    restartCondition: restartOf(service.restart),
    unit: service.unit,
    onChange: service.onChange || 'none',
    untilDetached:
      service.untilDetached === undefined ? null : { graceSeconds: service.untilDetached.graceMs / 1000 },
    secrets: service.references.map(referenceJson),
    createdAt: iso(service.createdMs),
    updatedAt: iso(service.updatedMs),
    version: service.version,
  };
}

function containerJson(spec: WireContainer) {
  const { image, args, env, labels, mounts, user, workingDirectory, network, readOnly, stopSignal } = spec;
  return {
    image,
    args,
    env,
    labels,
    mounts: mounts.map((mount) => ({
      type: mount.type,
      source: mount.source,
      target: mount.target,
      readOnly: mount.readOnly,
    })),
    user,
    workingDirectory,
    network,
    readOnly,
    stopSignal,
    stopGraceSeconds: spec.stopGraceMs / 1000,
  };
}

function referenceJson({ secretId, secretName, version, target, uid, gid, mode, mmap, onChange }: Reference) {
  return { secretId, source: secretName, version, target, uid, gid, mode: octal(mode), mmap, onChange };
}

function taskJson(task: Task) {
  return {
    id: task.id,
    service: task.serviceName,
    serviceId: task.serviceId,
    slot: task.slot,
    node: task.nodeHostname,
    nodeId: task.nodeId,
    state: stateOf(task.state),
    desiredState: stateOf(task.desiredState),
    error: task.error,
    exitCode: task.exitCode ?? null,
    change: changeJson(task),
    createdAt: iso(task.createdMs),
    updatedAt: iso(task.updatedMs),
  };
}

function changeJson({ change }: Task) {
  return change === undefined ? null : { action: change.action, error: change.error, at: iso(change.atMs) };
}

function changeWords({ change }: Task): string {
  if (change === undefined) return '-';
  const words = `${change.action} ${ago(change.atMs)}`;
  return change.error === '' ? words : `${words} FAILED: ${change.error}`;
}

function untilText({ untilDetached }: Service): string {
  return untilDetached === undefined ? 'removed' : `detached, ${untilDetached.graceMs / 1000} s after it`;
}
