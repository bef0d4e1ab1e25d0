/** What is to be done so that the cluster is as the file says: found by looking, and shown before it is done. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import { parseValueFormat } from '../../crypto/generate.js';
import { checkContainer } from '../../model/container.js';
import { constraintText, parseConstraint } from '../../model/constraint.js';
import { InroError } from '../../model/error.js';
import { newId } from '../../model/id.js';
import { parseLease } from '../../model/lease.js';
import { quoted } from '../../model/name.js';
import { onChangeText, parseOnChange } from '../../model/on_change.js';
import { checkTargetsDiffer, parseReference, type Reference } from '../../model/reference.js';
import { unitName } from '../../model/unit.js';
import { defaultUpdatePolicy } from '../../model/update_policy.js';
import { Control, type ChangeSchema, type Secret, type Service } from '../../proto/gen/inro/v1/control_pb.js';
import { readersOf, wireReaders } from '../../proto/readers.js';
import { wireRestart } from '../../proto/restart.js';
import { wirePolicy } from '../../proto/update_policy.js';
import { call, type Connection } from '../../rpc/client.js';
import { systemRandom } from '../../system/clock.js';
import type { ValueSource } from '../seal.js';
import type { Wanted, WantedReference, WantedSecret, WantedService } from './file.js';

type Change = NonNullable<MessageInitShape<typeof ChangeSchema>['change']>;
type Fields = Record<string, unknown>;

export interface Step {
  mark: '+' | '~' | '=';
  kind: 'secret' | 'service';
  name: string;
  /** What changes, in words. */
  words: string;
  /** Reads the value, if there is one: only once it is to be done. Missing: nothing is to be done. */
  change?: (manager: Connection) => Promise<Change>;
}

/** In the order in which it is to be done. @throws bad_input */
export async function planOf(wanted: Wanted, manager: Connection): Promise<Step[]> {
  const [{ secrets }, { services }] = await Promise.all([
    call(manager, Control, 'listSecrets', { filters: [] }),
    call(manager, Control, 'listServices', { filters: [] }),
  ]);
  const named = <T extends { name: string }>(all: readonly T[], name: string): T | undefined =>
    all.find((one) => one.name === name);
  return [
    ...wanted.secrets.map((one) => secretStep(one, named(secrets, one.name))),
    ...wanted.services.map((one) => serviceStep(one, named(services, one.name))),
  ];
}

function secretStep(wanted: WantedSecret, known: Secret | undefined): Step {
  const { name, labels, version } = wanted;
  const leaseMs = wanted.lease === undefined ? 0n : BigInt(parseLease(wanted.lease));
  const step = { kind: 'secret', name } as const;
  const { source, from } = sourceOf(wanted);
  const seal = async (manager: Connection, secretId: string, number: number) =>
    (await import('../seal.js')).sealFrom(source, manager, { secretId, version: number });
  if (known === undefined) {
    const id = newId(systemRandom);
    return {
      ...step,
      mark: '+',
      words: from,
      change: async (manager) => ({
        case: 'createSecret',
        value: { id, name, labels: labels ?? {}, leaseMs, ...(await seal(manager, id, 1)) },
      }),
    };
  }
  const { id, latestVersion } = known;
  const isNewer = version !== undefined && version > latestVersion;
  if (isNewer && version !== latestVersion + 1)
    throw new InroError(
      'bad_input',
      `secret ${quoted(name)} has version ${latestVersion}: the next one is not ${version}`,
      {
        remedy: `write version: ${latestVersion + 1}`,
      },
    );
  const { add, remove, words } = labelChange(known.labels, labels);
  const parts = [...(isNewer ? [`version ${latestVersion} -> ${version}, ${from}`] : []), ...words];
  if (parts.length === 0) return { ...step, mark: '=', words: `version ${latestVersion}` };
  return {
    ...step,
    mark: '~',
    words: parts.join('; '),
    change: async (manager) => ({
      case: 'updateSecret',
      value: {
        id,
        labelsAdd: add,
        labelsRemove: remove,
        labelsSeen: { labels: known.labels },
        ifVersion: known.version,
        ...(isNewer ? { version, leaseMs, ...(await seal(manager, id, version)) } : {}),
      },
    }),
  };
}

/** @throws bad_input unless it comes from one place. */
function sourceOf({ name, file, fd, generate }: WantedSecret): { source: ValueSource; from: string } {
  const given = [file, fd, generate].filter((one) => one !== undefined);
  if (given.length !== 1)
    throw new InroError('bad_input', `secret ${quoted(name)} has ${given.length} sources of its value`, {
      remedy: 'write one of file: PATH, fd: NUMBER, generate: FORMAT',
    });
  if (generate !== undefined)
    return { source: { generate: parseValueFormat(generate) }, from: `generated: ${generate}` };
  if (fd !== undefined) return { source: { file: `/dev/fd/${fd}` }, from: `from descriptor ${fd}` };
  return { source: { file: file ?? '' }, from: `from ${file ?? ''}` };
}

function labelChange(known: Record<string, string>, wanted: Record<string, string> | undefined) {
  const add = Object.fromEntries(Object.entries(wanted ?? {}).filter(([key, value]) => known[key] !== value));
  const remove = wanted === undefined ? [] : Object.keys(known).filter((key) => !Object.hasOwn(wanted, key));
  const words = [
    ...Object.entries(add).map(([key, value]) => `label ${key}=${value}`),
    ...remove.map((key) => `no label ${key}`),
  ];
  return { add, remove, words };
}

function serviceStep(wanted: WantedService, known: Service | undefined): Step {
  const { name } = wanted;
  const step = { kind: 'service', name } as const;
  const references = (wanted.secrets ?? []).map(referenceOf);
  checkTargetsDiffer(references);
  const constraints = (wanted.constraints ?? []).map((text) => constraintText(parseConstraint(text)));
  const isGlobal = wanted.mode === 'global';
  if (isGlobal && wanted.replicas !== undefined)
    throw new InroError('bad_input', `service ${quoted(name)} is global, and has a number of replicas`, {
      remedy: 'leave one of them away',
    });
  const container = containerOf(wanted);
  const plain = {
    readers: wireReaders(wanted.readers ?? 'auto'),
    onChange: wanted.onChange === undefined ? '' : onChangeText(parseOnChange(wanted.onChange)),
    unit: wanted.unit === undefined ? '' : unitName(wanted.unit),
    maxReplicasPerNode: wanted.maxReplicasPerNode ?? 0,
  };
  if (known === undefined) {
    const value = {
      name,
      labels: wanted.labels ?? {},
      references: references.map(wireReference),
      global: isGlobal,
      replicas: isGlobal ? 0 : (wanted.replicas ?? 1),
      constraints,
      restart: wireRestart('any'),
      update: wirePolicy(defaultUpdatePolicy),
      ...plain,
      ...(container === undefined ? {} : { container }),
    };
    const count = isGlobal ? 'on each node' : `${value.replicas} ${value.replicas === 1 ? 'task' : 'tasks'}`;
    const secrets = references.map(({ target, source }) =>
      target === source ? source : `${source} as ${target}`,
    );
    return {
      ...step,
      mark: '+',
      words: [count, ...(secrets.length === 0 ? [] : [`secrets ${secrets.join(', ')}`])].join(', '),
      change: async () => ({ case: 'createService', value }),
    };
  }
  return changedService(wanted, known, { references, constraints, container, plain });
}

interface Decided {
  references: Reference[];
  constraints: string[];
  container: ReturnType<typeof containerOf>;
  plain: { readers: number; onChange: string; unit: string; maxReplicasPerNode: number };
}

function changedService(wanted: WantedService, known: Service, decided: Decided): Step {
  const { references, constraints, container, plain } = decided;
  const { name } = wanted;
  const step = { kind: 'service', name } as const;
  if ((wanted.mode === 'global') !== known.global)
    throw new InroError(
      'bad_input',
      `service ${quoted(name)} is ${known.global ? 'global' : 'replicated'}: that does not change`,
      {
        remedy: `remove it first: inro service rm ${name}`,
      },
    );
  const words: string[] = [];
  const fields: Fields = {};
  const set = (key: string, value: unknown, before: unknown, text: string): void => {
    if (value === before) return;
    fields[key] = value;
    words.push(text);
  };
  const { replicas } = wanted;
  if (!known.global && replicas !== undefined)
    set('replicas', replicas, known.replicas, `replicas ${known.replicas} -> ${replicas}`);
  set('readers', plain.readers, wireReaders(readersOf(known.readers)), `readers ${wanted.readers ?? 'auto'}`);
  set('onChange', plain.onChange, known.onChange, `on change ${plain.onChange || 'none'}`);
  set('unit', plain.unit, known.unit, `unit ${plain.unit || 'none'}`);
  const { maxReplicasPerNode: most } = plain;
  set('maxReplicasPerNode', most, known.maxReplicasPerNode, `at most ${most || 'any number'} on a node`);
  const labels = labelChange(known.labels, wanted.labels);
  const added = constraints.filter((one) => !known.constraints.includes(one));
  const gone = known.constraints.filter((one) => !constraints.includes(one));
  words.push(
    ...labels.words,
    ...added.map((one) => `constraint ${one}`),
    ...gone.map((one) => `no constraint ${one}`),
  );
  const secrets = referenceChange(known, references);
  words.push(...secrets.words);
  const runs = containerChange(name, known, container);
  words.push(...runs.words);
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

/** A secret whose use is another one in any way is taken away and given again, in one step. */
function referenceChange(known: Service, wanted: readonly Reference[]) {
  const textOf = (one: Omit<Reference, 'source'>): string =>
    [one.target, one.version, one.uid, one.gid, one.mode, one.mmap, one.onChange].join(' ');
  const names = new Set([
    ...wanted.map(({ source }) => source),
    ...known.references.map((r) => r.secretName),
  ]);
  const add: Reference[] = [];
  const remove: string[] = [];
  const words: string[] = [];
  for (const name of names) {
    const before = known.references.filter(({ secretName }) => secretName === name);
    const after = wanted.filter(({ source }) => source === name);
    if (before.map(textOf).sort().join('\n') === after.map(textOf).sort().join('\n')) continue;
    if (before.length > 0) remove.push(name);
    add.push(...after);
    words.push(
      after.length === 0
        ? `no secret ${name}`
        : `secret ${after.map(({ target }) => `${name} as ${target}`).join(', ')}`,
    );
  }
  return { add, remove, words };
}

function containerChange(name: string, known: Service, wanted: ReturnType<typeof containerOf>) {
  const before = known.container;
  if ((before === undefined) !== (wanted === undefined))
    throw new InroError(
      'bad_input',
      `service ${quoted(name)} runs ${before === undefined ? 'no' : 'an'} image: that does not change`,
      {
        remedy: `remove it first: inro service rm ${name}`,
      },
    );
  if (before === undefined || wanted === undefined) return { change: {}, words: [] };
  const words: string[] = [];
  const keyOf = (text: string): string => text.slice(0, text.indexOf('='));
  const envAdd = wanted.env.filter((one) => !before.env.includes(one));
  const envRemove = before.env.map(keyOf).filter((key) => !wanted.env.some((one) => keyOf(one) === key));
  if (before.image !== wanted.image) words.push(`image ${before.image} -> ${wanted.image}`);
  const isOtherArgs = JSON.stringify(before.args) !== JSON.stringify(wanted.args);
  if (isOtherArgs) words.push(`arguments ${wanted.args.join(' ')}`);
  if (before.user !== wanted.user) words.push(`user ${wanted.user || "the image's"}`);
  words.push(...envAdd.map((one) => `env ${one}`), ...envRemove.map((key) => `no env ${key}`));
  if (words.length === 0) return { change: {}, words };
  const container = {
    image: wanted.image,
    args: { args: wanted.args },
    user: wanted.user,
    envAdd,
    envRemove,
  };
  return { change: { container }, words };
}

/** @throws bad_input */
function containerOf({ name, image, args = [], env = {}, user = '' }: WantedService) {
  if (image === undefined) {
    if (args.length > 0 || Object.keys(env).length > 0 || user !== '')
      throw new InroError('bad_input', `service ${quoted(name)} runs no image, and has args, env or user`, {
        remedy: 'name the image, too',
      });
    return undefined;
  }
  return checkContainer({
    image,
    args,
    env: Object.entries(env).map(([key, value]) => `${key}=${value}`),
    labels: {},
    mounts: [],
    user,
    workingDirectory: '',
    network: '',
    readOnly: false,
    stopSignal: '',
    stopGraceMs: 0,
  });
}

/** In the words of --secret: what is checked there is checked here. */
function referenceOf(wanted: WantedReference): Reference {
  if (typeof wanted === 'string') return parseReference(wanted);
  const { source, version, mode, mmap, onChange, ...rest } = wanted;
  const fields = {
    source: version === undefined ? source : `${source}@${version}`,
    ...rest,
    // YAML reads 0440 as a number: 440.
    ...(mode === undefined ? {} : { mode: String(mode) }),
    ...(mmap === undefined ? {} : { mmap: String(mmap) }),
    ...(onChange === undefined ? {} : { 'on-change': onChange }),
  };
  return parseReference(
    Object.entries(fields)
      .map(([key, value]) => `${key}=${value}`)
      .join(','),
  );
}

function wireReference({ source, version, target, uid, gid, mode, mmap, onChange }: Reference) {
  return { secretName: source, version, target, uid, gid, mode, mmap, onChange };
}
