/** A file of text that says what there is to be. */
import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { InroError } from '../../model/error.js';
import { quoted } from '../../model/name.js';

const maxFileBytes = 1024 * 1024;

/** What paths in a file are relative to. */
export function folderOf(path: string): string {
  return path === '-' ? process.cwd() : dirname(resolve(path));
}

/** @param path `-` for standard input. @throws bad_input */
export function readText(path: string): string {
  try {
    const bytes = readFileSync(path === '-' ? 0 : path);
    if (bytes.length > maxFileBytes) throw refusedFile(path, 'is larger than 1 MiB');
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (error) {
    if (error instanceof InroError) throw error;
    throw refusedFile(path, `cannot be read: ${(error as Error).message}`);
  }
}

export function refusedFile(path: string, why: string): InroError {
  return new InroError('bad_input', `${quoted(path)}: ${why}`, {
    remedy: 'docs/configuration.md has the keys, with an example',
  });
}
