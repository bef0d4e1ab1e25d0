/** What a service's tasks run: rules that operators' terminals, managers and nodes hold it to alike. */
import { InroError } from './error.js';
import { limits } from './limits.js';
import { checkLabels, hasControl, quoted, type Labels } from './name.js';

export interface ContainerMount {
  type: string;
  source: string;
  target: string;
  readOnly: boolean;
}

export interface ContainerSpec {
  image: string;
  args: string[];
  env: string[];
  labels: Labels;
  mounts: ContainerMount[];
  user: string;
  workingDirectory: string;
  network: string;
  readOnly: boolean;
  stopSignal: string;
  stopGraceMs: number;
}

export const restartConditions = ['any', 'on-failure', 'none'] as const;
export type RestartCondition = (typeof restartConditions)[number];

/** Where a container finds its secrets, as in Docker Swarm. */
export const secretsFolder = '/run/secrets';

const defaultStopGraceMs = 10_000;
const mountTypes = ['volume', 'tmpfs'];
const volumeName = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;

/** @throws bad_input naming what is wrong. */
export function checkContainer<C extends ContainerSpec>(spec: C): C {
  const { image, args, env, labels, mounts, user, workingDirectory, network, stopSignal, stopGraceMs } = spec;
  if (image === '' || image.length > 512 || /\s/.test(image) || hasControl(image) || image.startsWith('-'))
    throw new InroError('bad_input', `${quoted(image)} is no name of an image`, {
      remedy: 'such as redis:alpine',
    });
  for (const text of [...args, ...env, user, workingDirectory, network])
    if (text.length > limits.maxContainerTextChars || text.includes('\0'))
      throw new InroError('bad_input', `${quoted(text.slice(0, 32))}... is too long for a container`);
  if (args.length + env.length + mounts.length > limits.maxContainerTexts)
    throw new InroError(
      'bad_input',
      `a container takes ${limits.maxContainerTexts} words, variables and mounts at most`,
    );
  for (const each of env)
    if (!/^[^=\s]+=/.test(each))
      throw new InroError('bad_input', `${quoted(each)} is not KEY=VALUE`, {
        remedy: 'such as --env TZ=UTC',
      });
  checkLabels(labels);
  for (const mount of mounts) checkMount(mount);
  if (workingDirectory !== '' && !workingDirectory.startsWith('/'))
    throw new InroError('bad_input', `the working directory ${quoted(workingDirectory)} is not absolute`);
  if (/^(host|container:.*)$/.test(network))
    throw new InroError('bad_input', `network ${quoted(network)} is not the service's own`, {
      remedy: 'name a network of the engine, or none',
    });
  if (!/^(SIG[A-Z0-9+]{2,12}|[0-9]{1,2})?$/.test(stopSignal))
    throw new InroError('bad_input', `${quoted(stopSignal)} is no signal`, { remedy: 'such as SIGINT' });
  if (stopGraceMs > limits.maxStopGraceMs)
    throw new InroError(
      'bad_input',
      `a stop grace of ${stopGraceMs} ms is more than ${limits.maxStopGraceMs}`,
    );
  return spec;
}

function checkMount({ type, source, target }: ContainerMount): void {
  if (!mountTypes.includes(type))
    throw new InroError('bad_input', `mounts of type ${quoted(type)} are not possible`, {
      remedy: `use ${mountTypes.join(' or ')}; folders of a host are its administrator's to give`,
    });
  if (type === 'volume' && !volumeName.test(source))
    throw new InroError('bad_input', `${quoted(source)} is no name of a volume`);
  if (!target.startsWith('/') || hasControl(target) || target.split('/').includes('..'))
    throw new InroError('bad_input', `the target ${quoted(target)} of a mount is not an absolute path`);
  if (`${target}/`.startsWith(`${secretsFolder}/`))
    throw new InroError('bad_input', `${secretsFolder} is where the secrets are`, {
      remedy: 'mount it elsewhere',
    });
}

/** Parses `type=volume,source=NAME,target=PATH[,readonly]`. @throws bad_input */
export function parseMount(text: string): ContainerMount {
  const fields = new Map<string, string>();
  for (const part of text.split(',')) {
    const at = part.indexOf('=');
    fields.set(at < 0 ? part : part.slice(0, at), at < 0 ? 'true' : part.slice(at + 1));
  }
  const names: Record<string, string> = {
    src: 'source',
    dst: 'target',
    destination: 'target',
    ro: 'readonly',
  };
  const known = new Map([...fields].map(([key, value]) => [names[key] ?? key, value]));
  for (const key of known.keys())
    if (!['type', 'source', 'target', 'readonly'].includes(key))
      throw new InroError('bad_input', `${quoted(key)} in --mount ${quoted(text)} is not known`, {
        remedy: 'write --mount type=volume,source=NAME,target=PATH[,readonly]',
      });
  const mount = {
    type: known.get('type') ?? 'volume',
    source: known.get('source') ?? '',
    target: known.get('target') ?? '',
    readOnly: known.get('readonly') === 'true',
  };
  checkMount(mount);
  return mount;
}

/** How long a container has between its stop signal and SIGKILL; what Docker gives, unless something else is said. */
export function stopGraceMs(container: { stopGraceMs: number } | undefined): number {
  return container?.stopGraceMs || defaultStopGraceMs;
}
