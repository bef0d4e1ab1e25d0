/** The readers' rule between its word and its number on the wire. */
import { readersWords, type ReadersRule } from '../model/readers.js';
import { Readers } from './gen/inro/v1/common_pb.js';

/** One that this version does not know is the strictest. */
export function readersOf(wire: Readers): ReadersRule {
  return readersWords[wire] ?? 'attached';
}

export function wireReaders(rule: ReadersRule): Readers {
  return readersWords.indexOf(rule) as Readers;
}
