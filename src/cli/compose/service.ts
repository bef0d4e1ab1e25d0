/** A service of a Compose file, in inro's words. */
import { restartConditions } from '../../model/container.js';
import { failureActions, updateOrders } from '../../model/update_policy.js';
import type { WantedSecret, WantedService } from '../apply/file.js';
import { serviceStep } from '../apply/service_step.js';
import { mountsOf } from './mounts.js';
import { deployReasons, serviceReasons } from './reasons.js';
import { referencesOf } from './references.js';
import type { Part } from './shape.js';
import type { Stack } from './stack.js';
import { wordsOf } from './words.js';

export interface Around {
  stack: Stack;
  secrets: ReadonlyMap<string, WantedSecret>;
  /** The engine's names by those of the file. */
  volumes: ReadonlyMap<string, string>;
  /** Of whoever deploys: what a variable without a value is. */
  environment: (name: string) => string | undefined;
}

const ofContainers = [
  'command',
  'environment',
  'user',
  'labels',
  'volumes',
  'tmpfs',
  'read_only',
  'working_dir',
  'stop_signal',
  'stop_grace_period',
  'restart',
] as const;
const taken = [...ofContainers, 'image', 'secrets', 'deploy', 'x-inro'] as const;

type Keys = Record<(typeof taken)[number], Part>;

/** undefined when it was refused. */
export function serviceOf(key: string, part: Part, around: Around): WantedService | undefined {
  const before = part.refused;
  const keys = part.keys(taken, serviceReasons);
  const name = part.try(() => around.stack.nameOf('service', key));
  if (!keys.image.isGiven)
    for (const one of ofContainers)
      if (keys[one].isGiven) keys[one].refuse('is of a container, and the service names no image');
  const wanted = {
    name: name ?? key,
    ...(keys.image.isGiven ? containerIn(keys, around) : {}),
    secrets: referencesOf(keys.secrets, around.secrets),
    ...deployed(keys, around.stack),
    ...own(keys['x-inro']),
  } as WantedService;
  if (part.refused > before || part.try(() => serviceStep(wanted, undefined)) === undefined) return undefined;
  return wanted;
}

function containerIn(keys: Keys, { volumes, environment }: Around) {
  return given({
    image: keys.image.text(),
    args: commandIn(keys.command),
    env: keys.environment.pairs(environment),
    user: keys.user.text(),
    workdir: keys.working_dir.text(),
    mounts: mountsOf(keys.volumes, keys.tmpfs, volumes),
    containerLabels: keys.labels.pairs(() => ''),
    readOnly: keys.read_only.flag(),
    stopSignal: keys.stop_signal.text(),
    stopGrace: keys.stop_grace_period.seconds(),
  });
}

function commandIn(command: Part): string[] | undefined {
  if (command.isList()) return command.list().map((one) => one.text() ?? '');
  const text = command.text();
  return text === undefined ? undefined : command.try(() => wordsOf(text));
}

function deployed({ deploy, restart }: Keys, stack: Stack) {
  const keys = deploy.keys(
    ['mode', 'replicas', 'labels', 'placement', 'update_config', 'restart_policy'],
    deployReasons,
  );
  const placement = keys.placement.keys(['constraints', 'max_replicas_per_node'], {
    preferences: 'inro spreads tasks over all nodes that it may use',
  });
  return given({
    mode: keys.mode.word(
      ['replicated', 'global'],
      (other) => `${other} is not known here: inro runs no jobs`,
    ),
    replicas: keys.replicas.whole(),
    constraints: placement.constraints.list().flatMap((one) => one.text() ?? []),
    maxReplicasPerNode: placement.max_replicas_per_node.whole(),
    labels: { ...keys.labels.pairs(() => ''), ...stack.labels },
    update: updateIn(keys.update_config),
    restart: restartIn(keys.restart_policy, restart),
  });
}

function updateIn(part: Part) {
  if (!part.isGiven) return undefined;
  const keys = part.keys(['parallelism', 'delay', 'order', 'failure_action', 'monitor', 'max_failure_ratio']);
  return given({
    parallelism: keys.parallelism.whole(),
    delay: keys.delay.seconds(),
    order: keys.order.word(updateOrders, (other) => `${other} is not ${updateOrders.join(' or ')}`),
    failureAction: keys.failure_action.word(
      failureActions,
      (other) => `${other} is not ${failureActions.join(', ')}`,
    ),
    monitor: keys.monitor.seconds(),
    maxFailureRatio: keys.max_failure_ratio.number(),
  });
}

/** Compose has two places for it: `restart` of one host, and `deploy.restart_policy` of many. */
function restartIn(policy: Part, simple: Part) {
  const { condition } = policy.keys(['condition'], {
    delay: 'inro waits the longer, the more often a task has failed',
    max_attempts: 'inro goes on, and waits longer each time',
    window: 'inro waits the longer, the more often a task has failed',
  });
  if (policy.isGiven && simple.isGiven) return simple.refuse('deploy.restart_policy says it already');
  if (policy.isGiven)
    return condition.word(restartConditions, (other) => `${other} is not ${restartConditions.join(', ')}`);
  const words = { no: 'none', always: 'any', 'unless-stopped': 'any', 'on-failure': 'on-failure' } as const;
  const word = simple.word(Object.keys(words) as (keyof typeof words)[], (other) =>
    other.startsWith('on-failure:')
      ? 'inro counts no attempts: write on-failure'
      : `${other} is not ${Object.keys(words).join(', ')}`,
  );
  return word === undefined ? undefined : words[word];
}

/** What Compose has no word for. */
function own(part: Part) {
  const keys = part.keys(['readers', 'onChange', 'unit', 'until', 'detachGrace', 'network']);
  return given({
    readers: keys.readers.word(
      ['auto', 'attached', 'any'],
      (other) => `${other} is not auto, attached or any`,
    ),
    onChange: keys.onChange.text(),
    unit: keys.unit.text(),
    until: keys.until.word(['removed', 'detached'], (other) => `${other} is not removed or detached`),
    detachGrace: keys.detachGrace.seconds(),
    network: keys.network.text(),
  });
}

function given<T extends object>(fields: T): Partial<T> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as Partial<T>;
}
