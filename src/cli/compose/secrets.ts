/** The secrets and volumes of a Compose file, under the keys by which its services name them. */
import { resolve } from 'node:path';
import type { WantedSecret } from '../apply/file.js';
import { secretReasons, volumeReasons } from './reasons.js';
import type { Part } from './shape.js';
import type { Stack } from './stack.js';

/** @param folder what paths are relative to. */
export function secretsOf(part: Part, stack: Stack, folder: string): Map<string, WantedSecret> {
  const secrets = new Map<string, WantedSecret>();
  const names = new Map<string, string>();
  for (const [key, one] of part.entries()) {
    const secret = secretOf(key, one, stack, folder);
    if (secret === undefined) continue;
    const other = names.get(secret.name);
    if (other !== undefined) one.refuse(`has the name of secrets.${other}, ${secret.name}`);
    names.set(secret.name, key);
    secrets.set(key, secret);
  }
  return secrets;
}

function secretOf(key: string, part: Part, stack: Stack, folder: string): WantedSecret | undefined {
  const taken = ['file', 'external', 'name', 'labels', 'x-inro'] as const;
  const before = part.refused;
  const keys = part.keys(taken, secretReasons);
  const extra = keys['x-inro'].keys(['version', 'generate', 'lease', 'expires', 'withdraw']);
  const file = keys.file.text();
  const generate = extra.generate.text();
  const isExternal = keys.external.isMapping()
    ? keys.external.refuse('write external: true, and the name as name: NAME')
    : keys.external.flag();
  const given = keys.name.text();
  if (isExternal === true) {
    for (const one of [keys.file, keys.labels, ...Object.values(extra)])
      if (one.isGiven) one.refuse('an external secret is left as it is');
    const name = part.try(() => given ?? key);
    return name === undefined ? undefined : { name, external: true };
  }
  if (part.refused === before && (file === undefined) === (generate === undefined))
    part.refuse('is to have one of file: PATH, external: true, x-inro: { generate: FORMAT }');
  const name = part.try(() => given ?? stack.nameOf('secret', key));
  if (name === undefined) return undefined;
  const version = extra.version.whole();
  const [lease, expires, withdraw] = [extra.lease.text(), extra.expires.text(), extra.withdraw.flag()];
  return {
    name,
    ...(file === undefined ? {} : { file: resolve(folder, file) }),
    ...(generate === undefined ? {} : { generate }),
    labels: { ...keys.labels.pairs(() => ''), ...stack.labels },
    ...(version === undefined ? {} : { version }),
    ...(lease === undefined ? {} : { lease }),
    ...(expires === undefined ? {} : { expires }),
    ...(withdraw === undefined ? {} : { withdraw }),
  };
}

/** The engine's name of each volume, by its key. */
export function volumesOf(part: Part, stack: Stack): Map<string, string> {
  const volumes = new Map<string, string>();
  for (const [key, one] of part.entries()) {
    const { external, name } = one.keys(['external', 'name'], volumeReasons);
    const isExternal = external.flag() ?? false;
    const given = name.text();
    volumes.set(key, given ?? (isExternal ? key : (one.try(() => stack.nameOf('volume', key)) ?? key)));
  }
  return volumes;
}
