/** What an operator typed -> the one thing he means: a full id, a name, or the beginning of one id. */
import { InroError } from '../model/error.js';
import { quoted } from '../model/name.js';

/** @throws not_found; bad_input when several ids begin so. */
export function find<R extends { id: string }>(
  kind: string,
  records: Map<string, R>,
  typed: string,
  nameOf: (record: R) => string,
): R {
  const byId = records.get(typed);
  if (byId !== undefined) return byId;
  const all = [...records.values()];
  const byName = all.filter((record) => nameOf(record) === typed);
  const found =
    byName.length > 0 ? byName : typed.length >= 4 ? all.filter(({ id }) => id.startsWith(typed)) : [];
  const [first] = found;
  if (found.length > 1) {
    throw new InroError('bad_input', `${quoted(typed)} fits ${found.length} ${kind}s`, {
      remedy: 'use the full id',
    });
  }
  if (first === undefined) {
    throw new InroError('not_found', `no ${kind} ${quoted(typed)}`, {
      remedy: `'inro ${kind} ls' lists them`,
    });
  }
  return first;
}

export interface Filterable {
  id: string;
  name: string;
  labels: Record<string, string>;
}

/**
 * Docker's filters: `name=` and `id=` match beginnings and are alternatives; `label=K` or `label=K=V` must all hold.
 * @throws bad_input for another key.
 */
export function matcher(filters: readonly string[]): (record: Filterable) => boolean {
  const wanted: Record<string, string[]> = { name: [], id: [], label: [] };
  for (const filter of filters) {
    const at = filter.indexOf('=');
    const key = filter.slice(0, Math.max(at, 0));
    const list = Object.hasOwn(wanted, key) ? wanted[key] : undefined;
    if (list === undefined) {
      throw new InroError('bad_input', `filter ${quoted(filter)} is not understood`, {
        remedy: 'write --filter name=BEGINNING, id=BEGINNING, label=KEY or label=KEY=VALUE',
      });
    }
    list.push(filter.slice(at + 1));
  }
  const { name = [], id = [], label = [] } = wanted;
  return (record) =>
    (name.length === 0 || name.some((beginning) => record.name.startsWith(beginning))) &&
    (id.length === 0 || id.some((beginning) => record.id.startsWith(beginning))) &&
    label.every((text) => hasLabel(record.labels, text));
}

function hasLabel(labels: Record<string, string>, text: string): boolean {
  const at = text.indexOf('=');
  if (at < 0) return Object.hasOwn(labels, text);
  return Object.hasOwn(labels, text.slice(0, at)) && labels[text.slice(0, at)] === text.slice(at + 1);
}
