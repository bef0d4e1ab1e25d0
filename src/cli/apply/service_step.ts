/** A service as it is, beside how it is to be. */
import { constraintText, parseConstraint } from '../../model/constraint.js';
import { InroError } from '../../model/error.js';
import { checkLabels, quoted } from '../../model/name.js';
import { onChangeText, parseOnChange } from '../../model/on_change.js';
import { checkTargetsDiffer } from '../../model/reference.js';
import { unitName } from '../../model/unit.js';
import { checkUpdatePolicy, defaultUpdatePolicy, type UpdatePolicy } from '../../model/update_policy.js';
import type { Service } from '../../proto/gen/inro/v1/control_pb.js';
import { readersOf, wireReaders } from '../../proto/readers.js';
import { restartOf, wireRestart } from '../../proto/restart.js';
import { policyOf, wirePolicy } from '../../proto/update_policy.js';
import { policyText } from '../update_options.js';
import { containerChange, containerOf } from './container.js';
import type { WantedService } from './file.js';
import { labelChange } from './labels.js';
import { referenceChange, referenceOf, wireReference } from './references.js';
import type { Step } from './step.js';
import { timeMs } from './time.js';

const defaultDetachGraceMs = 10_000;

/** @throws bad_input */
export function serviceStep(wanted: WantedService, known: Service | undefined): Step {
  const decided = decide(wanted);
  return known === undefined ? newService(wanted, decided) : changedService(wanted, known, decided);
}

type Decided = ReturnType<typeof decide>;

/** A key that is left away has its default, but for what is undefined here: that is left as it is. */
function decide(wanted: WantedService) {
  const { name, replicas } = wanted;
  const isGlobal = wanted.mode === 'global';
  if (isGlobal && replicas !== undefined)
    throw new InroError('bad_input', `service ${quoted(name)} is global, and has a number of replicas`, {
      remedy: 'leave one of them away',
    });
  const references = (wanted.secrets ?? []).map(referenceOf);
  checkTargetsDiffer(references);
  checkLabels(wanted.labels ?? {});
  return {
    isGlobal,
    replicas,
    references,
    constraints: (wanted.constraints ?? []).map((text) => constraintText(parseConstraint(text))),
    container: containerOf(wanted),
    policy: policyIn(wanted),
    untilDetachedMs: untilIn(wanted),
    restart: wireRestart(wanted.restart ?? 'any'),
    readers: wireReaders(wanted.readers ?? 'auto'),
    onChange: wanted.onChange === undefined ? '' : onChangeText(parseOnChange(wanted.onChange)),
    unit: wanted.unit === undefined ? '' : unitName(wanted.unit),
    maxReplicasPerNode: wanted.maxReplicasPerNode ?? 0,
  };
}

function policyIn({ update = {} }: WantedService): UpdatePolicy {
  const { parallelism, delay, order, failureAction, monitor, maxFailureRatio } = update;
  const usual = defaultUpdatePolicy;
  return checkUpdatePolicy({
    parallelism: parallelism ?? usual.parallelism,
    delayMs: delay === undefined ? usual.delayMs : timeMs(delay),
    order: order ?? usual.order,
    failureAction: failureAction ?? usual.failureAction,
    monitorMs: monitor === undefined ? usual.monitorMs : timeMs(monitor),
    maxFailuresPermille:
      maxFailureRatio === undefined ? usual.maxFailuresPermille : Math.round(maxFailureRatio * 1000),
  });
}

/** null: until it is removed; undefined: nothing is said of it. @throws bad_input for a grace that nothing would end. */
function untilIn({ name, until, detachGrace }: WantedService): number | null | undefined {
  if (until === 'detached') return detachGrace === undefined ? defaultDetachGraceMs : timeMs(detachGrace);
  if (detachGrace !== undefined)
    throw new InroError('bad_input', `service ${quoted(name)} has a detach grace, and no until: detached`, {
      remedy: 'write until: detached, too',
    });
  return until === 'removed' ? null : undefined;
}

function newService({ name, labels = {} }: WantedService, decided: Decided): Step {
  const { isGlobal, references, constraints, container, policy, untilDetachedMs: graceMs } = decided;
  const { restart, readers, onChange, unit, maxReplicasPerNode } = decided;
  const value = {
    name,
    labels,
    references: references.map(wireReference),
    global: isGlobal,
    replicas: isGlobal ? 0 : (decided.replicas ?? 1),
    constraints,
    restart,
    readers,
    onChange,
    unit,
    maxReplicasPerNode,
    update: wirePolicy(policy),
    ...(container === undefined ? {} : { container }),
    ...(graceMs === undefined || graceMs === null ? {} : { untilDetached: { graceMs } }),
  };
  const count = isGlobal ? 'on each node' : `${value.replicas} ${value.replicas === 1 ? 'task' : 'tasks'}`;
  const secrets = references.map(({ target, source }) =>
    target === source ? source : `${source} as ${target}`,
  );
  const words = [
    count,
    ...(container === undefined ? [] : [`image ${container.image}`]),
    ...(secrets.length === 0 ? [] : [`secrets ${secrets.join(', ')}`]),
  ];
  return {
    kind: 'service',
    name,
    mark: '+',
    words: words.join(', '),
    change: async () => ({ case: 'createService', value }),
  };
}

function changedService(wanted: WantedService, known: Service, decided: Decided): Step {
  const { name } = wanted;
  const { references, constraints, policy, maxReplicasPerNode: most } = decided;
  checkStays(name, known, decided);
  const words: string[] = [];
  const fields: Record<string, unknown> = {};
  const set = (key: string, value: unknown, before: unknown, text: string): void => {
    if (value === before) return;
    fields[key] = value;
    words.push(text);
  };
  const { replicas } = decided;
  if (!known.global && replicas !== undefined)
    set('replicas', replicas, known.replicas, `replicas ${known.replicas} -> ${replicas}`);
  set(
    'readers',
    decided.readers,
    wireReaders(readersOf(known.readers)),
    `readers ${wanted.readers ?? 'auto'}`,
  );
  set('onChange', decided.onChange, known.onChange, `on change ${decided.onChange || 'none'}`);
  set('unit', decided.unit, known.unit, `unit ${decided.unit || 'none'}`);
  set('maxReplicasPerNode', most, known.maxReplicasPerNode, `at most ${most || 'any number'} on a node`);
  set(
    'restart',
    decided.restart,
    wireRestart(restartOf(known.restart)),
    `restart ${wanted.restart ?? 'any'}`,
  );
  if (JSON.stringify(policy) !== JSON.stringify(policyOf(known.update))) {
    fields['update'] = wirePolicy(policy);
    words.push(`update ${policyText(policy)}`);
  }
  const labels = labelChange(known.labels, wanted.labels);
  const added = constraints.filter((one) => !known.constraints.includes(one));
  const gone = known.constraints.filter((one) => !constraints.includes(one));
  const secrets = referenceChange(known, references);
  const runs = containerChange(name, known, decided.container);
  words.push(
    ...labels.words,
    ...added.map((one) => `constraint ${one}`),
    ...gone.map((one) => `no constraint ${one}`),
    ...secrets.words,
    ...runs.words,
  );
  const step = { kind: 'service', name } as const;
  if (words.length === 0) return { ...step, mark: '=', words: `${known.running} running` };
  const value = {
    name,
    ...fields,
    labelsAdd: labels.add,
    labelsRemove: labels.remove,
    constraintsAdd: added,
    constraintsRemove: gone,
    referencesAdd: secrets.add.map(wireReference),
    referencesRemove: secrets.remove,
    ...runs.change,
    ifVersion: known.version,
  };
  return {
    ...step,
    mark: '~',
    words: words.join('; '),
    change: async () => ({ case: 'updateService', value }),
  };
}

/** @throws bad_input for what a service is all its life. */
function checkStays(name: string, known: Service, { isGlobal, untilDetachedMs: graceMs }: Decided): void {
  const graceNow = known.untilDetached?.graceMs ?? null;
  const is = (what: string): InroError =>
    new InroError('bad_input', `service ${quoted(name)} is ${what}: that does not change`, {
      remedy: `remove it first: inro service rm ${name}`,
    });
  if (isGlobal !== known.global) throw is(known.global ? 'global' : 'replicated');
  if (graceMs !== undefined && graceMs !== graceNow)
    throw is(
      graceNow === null ? 'there until it is removed' : `there until ${graceNow / 1000} s after detaching`,
    );
}
