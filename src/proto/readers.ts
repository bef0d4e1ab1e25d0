/** The readers' rule between its word and its number on the wire. */
import type { ReadersRule } from '../model/readers.js';
import { Readers } from './gen/inro/v1/common_pb.js';

const wire = { auto: Readers.AUTO, attached: Readers.ATTACHED, any: Readers.ANY } as const;

/** One that this version does not know is the strictest. */
export function readersOf(readers: Readers): ReadersRule {
  if (readers === Readers.UNSPECIFIED || readers === Readers.AUTO) return 'auto';
  return readers === Readers.ANY ? 'any' : 'attached';
}

export function wireReaders(rule: ReadersRule): Readers {
  return wire[rule];
}
