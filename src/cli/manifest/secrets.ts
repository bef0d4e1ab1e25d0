/** Kubernetes Secrets as secrets of inro: each key of one is a secret, NAME_KEY. What is not taken is refused by its place. */
import type { Arena } from '../../crypto/arena.js';
import { checkName } from '../../model/name.js';
import type { WantedSecret } from '../apply/file.js';
import type { Refusals } from '../compose/refusals.js';
import type { Entry, Source } from './source.js';
import { refusalOfType } from './types.js';

/** Written by the API server into what it gives out, and not read from what it gets. */
const byServer = new Set([
  'creationTimestamp',
  'deletionTimestamp',
  'generation',
  'managedFields',
  'resourceVersion',
  'selfLink',
  'uid',
]);
const metadataReasons: Record<string, string> = {
  namespace: 'inro has no namespaces: leave it away, and name the secret apart',
  generateName: 'inro draws no names: write name',
  finalizers: 'inro has none',
  ownerReferences: 'inro has none',
};
/** What Kubernetes has no word for. */
const annotations = { version: 'inro/version', lease: 'inro/lease' } as const;
/** kubectl puts the whole manifest there, values and all. */
const applied = 'kubectl.kubernetes.io/last-applied-configuration';

export interface Reading {
  source: Source;
  refusals: Refusals;
  /** Has room for a value twice, to look at each. */
  arena: Arena;
}

/** @param place such as `document 2`. */
export function secretsOf(reading: Reading, node: unknown, place: string): WantedSecret[] {
  const { source, refusals } = reading;
  const entries = source.entries(node);
  if (entries === undefined) {
    refusals.add(place, 'is to be a mapping');
    return [];
  }
  const of = (key: string): Entry | undefined => entries.find((one) => one.key === key);
  const kind = source.text(of('kind')?.node) ?? '';
  const apiVersion = source.text(of('apiVersion')?.node) ?? '';
  if (apiVersion === 'v1' && (kind === 'List' || kind === 'SecretList')) {
    const items = source.items(of('items')?.node);
    if (items === undefined) refusals.add(`${place}.items`, 'is to be a list');
    return (items ?? []).flatMap((item, at) => secretsOf(reading, item, `${place}.items.${at}`));
  }
  if (kind !== 'Secret' || apiVersion !== 'v1') {
    const what = kind === '' ? 'has no kind' : `is a ${kind} of ${apiVersion || 'no apiVersion'}`;
    refusals.add(
      place,
      `${what}: inro takes a Secret of v1, and services from its own file or a Compose file`,
    );
    return [];
  }
  return secretOf(reading, entries, place);
}

function secretOf({ source, refusals, arena }: Reading, entries: Entry[], place: string): WantedSecret[] {
  const seen = new Map<string, Entry>();
  for (const entry of entries) {
    if (seen.has(entry.key)) refusals.add(`${place}.${entry.key}`, 'stands there twice');
    seen.set(entry.key, entry);
    if (!['apiVersion', 'kind', 'metadata', 'type', 'data', 'stringData', 'immutable'].includes(entry.key))
      refusals.add(`${place}.${entry.key}`, 'is not known here');
  }
  const immutable = seen.get('immutable')?.node;
  if (!source.isNull(immutable) && source.text(immutable) !== 'false')
    refusals.add(
      `${place}.immutable`,
      'a secret of inro can always have another version; each version is immutable',
    );
  const { name, labels, version, lease } = metadataOf(
    { source, refusals, arena },
    seen.get('metadata')?.node,
    place,
  );

  // What stands in stringData wins, as in Kubernetes.
  const values = new Map<string, { entry: Entry; encoding: 'base64' | 'text' }>();
  for (const [under, encoding] of [
    ['data', 'base64'],
    ['stringData', 'text'],
  ] as const) {
    const node = seen.get(under)?.node;
    const inner = source.isNull(node) ? [] : source.entries(node);
    if (inner === undefined) refusals.add(`${place}.${under}`, 'is to be a mapping');
    const keys = new Set<string>();
    for (const entry of inner ?? []) {
      if (keys.has(entry.key)) refusals.add(`${place}.${under}.${entry.key}`, 'stands there twice');
      keys.add(entry.key);
      values.set(entry.key, { entry, encoding });
    }
  }
  const type = source.text(seen.get('type')?.node) ?? 'Opaque';
  const why = refusalOfType(type, new Set(values.keys()));
  if (why !== undefined) refusals.add(`${place}.type`, why);
  if (values.size === 0 && why === undefined) refusals.add(place, 'has no value');
  if (name === undefined) return [];
  return [...values].flatMap(([key, { entry, encoding }]) => {
    const where = `${place}.${encoding === 'base64' ? 'data' : 'stringData'}.${key}`;
    // Kubernetes' own names have no _: two keys never come to one name.
    const full = refusals.try(where, () => checkName('secret', `${name}_${key}`));
    refusals.try(where, () => source.value(entry, encoding, arena).wipe());
    if (full === undefined) return [];
    const read = (home: Arena) => source.value(entry, encoding, home);
    return [{ name: full, labels, ...version, ...lease, value: { read, from: `${place}, ${key}` } }];
  });
}

function metadataOf({ source, refusals }: Reading, node: unknown, place: string) {
  const labels: Record<string, string> = {};
  const found: { name?: string; version?: { version: number }; lease?: { lease: string } } = {};
  for (const entry of source.entries(node) ?? []) {
    const where = `${place}.metadata.${entry.key}`;
    if (entry.key === 'name') {
      const name = source.text(entry.node);
      if (name !== undefined && !name.includes('_')) found.name = name;
      else refusals.add(where, 'is no name of Kubernetes');
    } else if (entry.key === 'labels') {
      for (const one of textsOf(source, refusals, entry.node, where))
        labels[one.key] = source.text(one.node) ?? '';
    } else if (entry.key === 'annotations') {
      for (const one of textsOf(source, refusals, entry.node, where)) annotate(one, `${where}.${one.key}`);
    } else if (!byServer.has(entry.key)) {
      refusals.add(where, metadataReasons[entry.key] ?? 'is not known here');
    }
  }
  if (found.name === undefined) refusals.add(`${place}.metadata.name`, 'is missing');
  return { ...found, labels };

  function annotate({ key, node: value }: Entry, where: string): void {
    if (key === annotations.lease) found.lease = { lease: source.text(value) ?? '' };
    else if (key === annotations.version) {
      const version = Number(source.text(value));
      if (Number.isInteger(version) && version >= 1) found.version = { version };
      else refusals.add(where, 'is to be a number from 1');
    } else if (key === applied) refusals.add(where, 'has the values once more: take it out of the file');
    else
      refusals.add(
        where,
        `inro keeps no annotations; labels are taken, and ${Object.values(annotations).join(', ')}`,
      );
  }
}

function textsOf(source: Source, refusals: Refusals, node: unknown, place: string): Entry[] {
  if (source.isNull(node)) return [];
  const entries = source.entries(node);
  if (entries === undefined) refusals.add(place, 'is to be a mapping');
  return entries ?? [];
}
