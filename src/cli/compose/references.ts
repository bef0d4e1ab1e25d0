/** A service's secrets in a Compose file: the short syntax and the long one. */
import { secretsFolder } from '../../model/container.js';
import type { WantedReference, WantedSecret } from '../apply/file.js';
import { referenceOf } from '../apply/references.js';
import type { Part } from './shape.js';

/** What cannot be shown under this name is refused by the rules of --secret. */
export function referencesOf(part: Part, secrets: ReadonlyMap<string, WantedSecret>): WantedReference[] {
  return part.list().flatMap((one) => {
    const reference = one.isMapping() ? long(one, secrets) : short(one, secrets);
    return reference === undefined || one.try(() => referenceOf(reference)) === undefined ? [] : [reference];
  });
}

function short(part: Part, secrets: ReadonlyMap<string, WantedSecret>): WantedReference | undefined {
  const key = part.text();
  const source = sourceOf(part, key, secrets);
  return source === undefined || key === undefined ? undefined : { source, target: key };
}

function long(part: Part, secrets: ReadonlyMap<string, WantedSecret>): WantedReference | undefined {
  const keys = part.keys(['source', 'target', 'uid', 'gid', 'mode', 'x-inro']);
  const extra = keys['x-inro'].keys(['version', 'mmap', 'onChange']);
  const key = keys.source.text();
  if (key === undefined) return part.refuse('has no source');
  const source = sourceOf(part, key, secrets);
  const target = targetOf(keys.target) ?? key;
  const [uid, gid, mode] = [keys.uid.text(), keys.gid.text(), modeOf(keys.mode)];
  const [version, mmap, onChange] = [extra.version.whole(), extra.mmap.flag(), extra.onChange.text()];
  if (source === undefined) return undefined;
  return {
    source,
    target,
    ...(uid === undefined ? {} : { uid }),
    ...(gid === undefined ? {} : { gid }),
    ...(mode === undefined ? {} : { mode }),
    ...(version === undefined ? {} : { version }),
    ...(mmap === undefined ? {} : { mmap }),
    ...(onChange === undefined ? {} : { onChange }),
  };
}

function sourceOf(
  part: Part,
  key: string | undefined,
  secrets: ReadonlyMap<string, WantedSecret>,
): string | undefined {
  if (key === undefined) return undefined;
  return secrets.get(key)?.name ?? part.refuse(`${key} does not stand under secrets`);
}

/** Compose takes a path, too: what lies in the folder of the secrets is a name there. */
function targetOf(part: Part): string | undefined {
  const target = part.text();
  if (target?.startsWith('/') !== true) return target;
  const inFolder = target.startsWith(`${secretsFolder}/`) ? target.slice(secretsFolder.length + 1) : '';
  if (inFolder !== '' && !inFolder.includes('/')) return inFolder;
  return part.refuse(`secrets are shown in ${secretsFolder}: write a file name`);
}

/** A mode is octal. What a YAML 1.1 reader would take for octal, and inro's, is a text by now; other numbers say too little. */
function modeOf(part: Part): string | undefined {
  const text = part.text();
  if (text === undefined || part.isText() || /^0+$/.test(text)) return text;
  return part.refuse(`${text} is decimal to Compose: write the mode as 0440 or "0440"`);
}
