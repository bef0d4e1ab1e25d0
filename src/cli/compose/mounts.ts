/** A service's volumes and tmpfs in a Compose file. What comes from a folder of a host is refused. */
import type { WantedMount } from '../apply/file.js';
import type { Part } from './shape.js';

type Volumes = ReadonlyMap<string, string>;

const noFolders = "folders of a host are its administrator's to give: name a volume";

export function mountsOf(volumes: Part, tmpfs: Part, names: Volumes): WantedMount[] {
  const inMemory = tmpfs.isList() ? tmpfs.list() : tmpfs.isGiven ? [tmpfs] : [];
  return [
    ...volumes.list().flatMap((one) => (one.isMapping() ? long(one, names) : short(one, names)) ?? []),
    ...inMemory.flatMap((one) => {
      const target = one.text();
      if (target === undefined) return [];
      if (target.includes(':')) return one.refuse('options of a tmpfs are not known here') ?? [];
      return [{ type: 'tmpfs', target }];
    }),
  ];
}

/** `NAME:/PATH[:ro]` */
function short(part: Part, names: Volumes): WantedMount | undefined {
  const text = part.text();
  if (text === undefined) return undefined;
  const [source = '', target, access, ...more] = text.split(':');
  if (/^[./~]/.test(source))
    return part.refuse(target === undefined ? 'a volume without a name is not known here' : noFolders);
  if (target === undefined || more.length > 0 || !/^(r[ow])?$/.test(access ?? ''))
    return part.refuse('is to be NAME:/PATH, or NAME:/PATH:ro');
  return volume(part, names, source, { target, readOnly: access === 'ro' });
}

function long(part: Part, names: Volumes): WantedMount | undefined {
  const options = 'options of a mount are not known here';
  const keys = part.keys(['type', 'source', 'target', 'read_only'], {
    volume: options,
    tmpfs: options,
    bind: noFolders,
  });
  const type = keys.type.word(['volume', 'tmpfs'], (other) =>
    other === 'bind' ? noFolders : `${other} is not known here: volume and tmpfs are`,
  );
  const [source, target] = [keys.source.text(), keys.target.text()];
  const readOnly = keys.read_only.flag() ?? false;
  if (type === undefined) return keys.type.isGiven ? undefined : part.refuse('has no type');
  if (target === undefined) return part.refuse('has no target');
  if (type === 'tmpfs') return { type, target, readOnly };
  return volume(part, names, source, { target, readOnly });
}

function volume(
  part: Part,
  names: Volumes,
  key: string | undefined,
  where: { target: string; readOnly: boolean },
): WantedMount | undefined {
  if (key === undefined) return part.refuse('a volume without a name is not known here');
  const source = names.get(key);
  if (source === undefined) return part.refuse(`${key} does not stand under volumes`);
  return { type: 'volume', source, ...where };
}
