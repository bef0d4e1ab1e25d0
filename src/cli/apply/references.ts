/** A service's use of secrets: as it is to be, and beside what it is. */
import { parseReference, type Reference } from '../../model/reference.js';
import type { Service } from '../../proto/gen/inro/v1/control_pb.js';
import type { WantedReference } from './file.js';

/** In the words of --secret: what is checked there is checked here. @throws bad_input */
export function referenceOf(wanted: WantedReference): Reference {
  if (typeof wanted === 'string') return parseReference(wanted);
  const { source, version, mode, mmap, onChange, ...rest } = wanted;
  const fields = {
    source: version === undefined ? source : `${source}@${version}`,
    ...rest,
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

/** A secret whose use is another one in any way is taken away and given again, in one step. */
export function referenceChange(known: Service, wanted: readonly Reference[]) {
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

export function wireReference({ source, version, target, uid, gid, mode, mmap, onChange }: Reference) {
  return { secretName: source, version, target, uid, gid, mode, mmap, onChange };
}
