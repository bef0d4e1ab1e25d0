/**
 * A Compose file as what `inro apply` knows: secrets by reference to files, services, labels. What inro cannot do as the file says is
 * refused by its place, all of it at once.
 */
import type { Wanted } from '../apply/file.js';
import { folderOf, readText } from '../apply/text.js';
import { parseYaml } from '../apply/yaml.js';
import { interpolateAll } from './interpolate.js';
import { topReasons } from './reasons.js';
import { Refusals } from './refusals.js';
import { secretsOf, volumesOf } from './secrets.js';
import { serviceOf } from './service.js';
import { Part } from './shape.js';
import { stackOf, type Stack } from './stack.js';

export interface ComposeOptions {
  /** Of the stack; undefined: what the file says under `name`, or none. */
  name: string | undefined;
  environment: (name: string) => string | undefined;
  /** For variables that are not set. */
  warn: (text: string) => void;
}

/** @param path `-` for standard input. @throws bad_input */
export function readCompose(path: string, options: ComposeOptions): Wanted {
  const document = parseYaml(path, readText(path), { merge: true });
  return composed(document ?? {}, path, options);
}

/** @throws bad_input with everything that is not taken. */
export function composed(document: unknown, path: string, options: ComposeOptions): Wanted {
  const { environment, warn } = options;
  const refusals = new Refusals();
  const missing = new Set<string>();
  const variables = { get: environment, missing: (name: string) => void missing.add(name) };
  const filled = interpolateAll(document, variables, (place, { message, remedy }) =>
    refusals.add(place, remedy === undefined ? message : `${message} (${remedy})`),
  );
  refusals.check(path);
  const whole = new Part(filled, '', refusals);
  const keys = whole.keys(['version', 'name', 'services', 'secrets', 'volumes'], topReasons);
  const stack = stackIn(keys.name, options.name);
  const secrets = secretsOf(keys.secrets, stack, folderOf(path));
  const around = { stack, secrets, volumes: volumesOf(keys.volumes, stack), environment };
  const services = keys.services.entries().flatMap(([key, part]) => serviceOf(key, part, around) ?? []);
  refusals.check(path);
  for (const name of missing) warn(`variable ${name} is not set: it stands for nothing`);
  return { secrets: [...secrets.values()], services };
}

/** @throws bad_input for a name on the command line that is none. */
function stackIn(part: Part, name: string | undefined): Stack {
  if (name !== undefined) return stackOf(name);
  return part.try(() => stackOf(part.text())) ?? stackOf(undefined);
}
