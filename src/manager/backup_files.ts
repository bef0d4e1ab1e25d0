/** What a backup has beside the store: the files of a manager's folder that cannot be made anew. */
import { basename, join } from 'node:path';
import { privateFilesIn } from './private_files.js';

const publicNames = ['ca.crt', 'ca-next.crt', 'manager.crt'];

export function publicFilesIn(folder: string): string[] {
  return publicNames.map((name) => join(folder, name));
}

/** @returns undefined for a name that no file of such a folder has. */
export function fileOfBackup(folder: string, name: string): { path: string; isPrivate: boolean } | undefined {
  const isNamed = (path: string): boolean => basename(path) === name;
  const own = privateFilesIn(folder).find(isNamed);
  if (own !== undefined) return { path: own, isPrivate: true };
  const path = publicFilesIn(folder).find(isNamed);
  return path === undefined ? undefined : { path, isPrivate: false };
}
