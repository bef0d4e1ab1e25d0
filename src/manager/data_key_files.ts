/**
 * The data key on disk. `data-next.key` is there from the moment the next one is used until nothing is under the former one any more; it
 * then takes the place of `data.key`. A manager that was killed in between goes on at its next start: each content key opens under one of
 * the two.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Arena } from '../crypto/arena.js';
import { overwriting } from '../crypto/at_rest.js';
import { readKeyFile, writeKeyFile } from '../crypto/key_file.js';
import type { Plaintext } from '../crypto/plaintext.js';
import { moveFile, removeFile } from '../system/files.js';

export interface DataKeys {
  present: Plaintext;
  /** What may still be under it. */
  former?: Plaintext;
}

const fileIn = (folder: string): string => join(folder, 'data.key');
const nextIn = (folder: string): string => join(folder, 'data-next.key');

/** @throws state_unusable */
export function readDataKeys(folder: string, arena: Arena): DataKeys {
  const former = readKeyFile(fileIn(folder), arena);
  if (!existsSync(nextIn(folder))) return { present: former };
  return { present: readKeyFile(nextIn(folder), arena), former };
}

/** The first one of a folder. */
export function writeDataKey(folder: string, key: Plaintext, arena: Arena): void {
  writeKeyFile(fileIn(folder), key, arena);
}

/** From its return on both are read. */
export function writeNextDataKey(folder: string, key: Plaintext, arena: Arena): void {
  writeKeyFile(nextIn(folder), key, arena);
}

/** It was never used. */
export function dropNextDataKey(folder: string): void {
  removeFile(nextIn(folder));
}

/** Nothing is under the former one any more: it is gone from its place on the disk. */
export function settleDataKey(folder: string): void {
  overwriting(fileIn(folder), () => moveFile(nextIn(folder), fileIn(folder)));
}
