/** What is to be added to labels and taken from them. */
import type { Labels } from '../../model/name.js';

/** @param wanted all of them; missing: they are left as they are. */
export function labelChange(known: Labels, wanted: Labels | undefined) {
  const add = Object.fromEntries(Object.entries(wanted ?? {}).filter(([key, value]) => known[key] !== value));
  const remove = wanted === undefined ? [] : Object.keys(known).filter((key) => !Object.hasOwn(wanted, key));
  const words = [
    ...Object.entries(add).map(([key, value]) => `label ${key}=${value}`),
    ...remove.map((key) => `no label ${key}`),
  ];
  return { add, remove, words };
}
