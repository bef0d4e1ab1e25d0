/** What a service's tasks run: as it is to be, and beside what it is. */
import {
  checkContainer,
  parseMount,
  type ContainerMount,
  type ContainerSpec,
} from '../../model/container.js';
import { InroError } from '../../model/error.js';
import { quoted } from '../../model/name.js';
import type { Service } from '../../proto/gen/inro/v1/control_pb.js';
import type { WantedMount, WantedService } from './file.js';
import { labelChange } from './labels.js';
import { timeMs } from './time.js';

/** Keys that mean nothing without an image. */
const ofContainers = [
  'args',
  'env',
  'user',
  'workdir',
  'network',
  'mounts',
  'containerLabels',
  'readOnly',
  'stopSignal',
  'stopGrace',
  'restart',
] as const satisfies readonly (keyof WantedService)[];

/** @throws bad_input */
export function containerOf(wanted: WantedService): ContainerSpec | undefined {
  const { name, image, args = [], env = {}, user = '', workdir = '', network = '' } = wanted;
  if (image === undefined) {
    const given = ofContainers.filter((key) => wanted[key] !== undefined);
    if (given.length === 0) return undefined;
    throw new InroError('bad_input', `service ${quoted(name)} runs no image, and has ${given.join(', ')}`, {
      remedy: 'name the image, too',
    });
  }
  return checkContainer({
    image,
    args,
    env: Object.entries(env).map(([key, value]) => `${key}=${value}`),
    labels: wanted.containerLabels ?? {},
    mounts: (wanted.mounts ?? []).map(mountOf),
    user,
    workingDirectory: workdir,
    network,
    readOnly: wanted.readOnly ?? false,
    stopSignal: wanted.stopSignal ?? '',
    stopGraceMs: wanted.stopGrace === undefined ? 0 : timeMs(wanted.stopGrace),
  });
}

/** Whole, when anything of it is another. @throws bad_input */
export function containerChange(name: string, known: Service, wanted: ContainerSpec | undefined) {
  const before = known.container;
  if ((before === undefined) !== (wanted === undefined))
    throw new InroError(
      'bad_input',
      `service ${quoted(name)} runs ${before === undefined ? 'no' : 'an'} image: that does not change`,
      { remedy: `remove it first: inro service rm ${name}` },
    );
  if (before === undefined || wanted === undefined) return { change: {}, words: [] };
  const words = wordsOf(before, wanted);
  return words.length === 0 ? { change: {}, words } : { change: { container: { whole: wanted } }, words };
}

function wordsOf(before: ContainerSpec, wanted: ContainerSpec): string[] {
  const words: string[] = [];
  const differs = (key: keyof ContainerSpec): boolean =>
    JSON.stringify(before[key]) !== JSON.stringify(wanted[key]);
  const keyOf = (text: string): string => text.slice(0, text.indexOf('='));
  if (differs('image')) words.push(`image ${before.image} -> ${wanted.image}`);
  if (differs('args')) words.push(`arguments ${wanted.args.join(' ') || "the image's"}`);
  if (differs('user')) words.push(`user ${wanted.user || "the image's"}`);
  const added = wanted.env.filter((one) => !before.env.includes(one));
  const gone = before.env.map(keyOf).filter((key) => !wanted.env.some((one) => keyOf(one) === key));
  words.push(...added.map((one) => `env ${one}`), ...gone.map((key) => `no env ${key}`));
  words.push(...labelChange(before.labels, wanted.labels).words.map((one) => `container ${one}`));
  words.push(...mountWords(before.mounts, wanted.mounts));
  if (differs('workingDirectory')) words.push(`workdir ${wanted.workingDirectory || "the image's"}`);
  if (differs('network')) words.push(`network ${wanted.network || "the engine's"}`);
  if (differs('readOnly')) words.push(wanted.readOnly ? 'read-only' : 'not read-only');
  if (differs('stopSignal')) words.push(`stop signal ${wanted.stopSignal || "the image's"}`);
  if (differs('stopGraceMs'))
    words.push(`stop grace ${wanted.stopGraceMs === 0 ? 'the usual' : `${wanted.stopGraceMs / 1000} s`}`);
  return words;
}

function mountWords(before: readonly ContainerMount[], wanted: readonly ContainerMount[]): string[] {
  const textOf = ({ type, source, target, readOnly }: ContainerMount): string =>
    `${source || type} at ${target}${readOnly ? ', read-only' : ''}`;
  const [were, are] = [before.map(textOf), wanted.map(textOf)];
  return [
    ...are.filter((one) => !were.includes(one)).map((one) => `mount ${one}`),
    ...were.filter((one) => !are.includes(one)).map((one) => `no mount ${one}`),
  ];
}

/** In the words of --mount: what is checked there is checked here. */
function mountOf(wanted: WantedMount): ContainerMount {
  if (typeof wanted === 'string') return parseMount(wanted);
  const { type = 'volume', source = '', target, readOnly = false } = wanted;
  return { type, source, target, readOnly };
}
