/** The embedded store of a manager's folder. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { InroError } from '../model/error.js';
import { openLmdbStore } from '../store/lmdb.js';
import { makeStateFolder } from '../system/files.js';
import type { OpenedStore } from './state_folder.js';

/** @throws state_unusable, store_corrupt. */
export function openEmbedded(folder: string): OpenedStore {
  const where = join(folder, 'store');
  if (existsSync(join(folder, 'store.key')) && !existsSync(where)) {
    throw new InroError('state_unusable', `the manager in ${folder} keeps its store in etcd`, {
      remedy: 'say where that is: --store etcd://HOST:2379/PREFIX (key store)',
    });
  }
  makeStateFolder(where);
  return { store: openLmdbStore(where), where };
}
