/** inro manager migrate */
import { openArena } from '../../crypto/arena.js';
import { arenaSize } from '../../manager/arena_size.js';
import { Autolock } from '../../manager/autolock.js';
import { migrateToEtcd } from '../../manager/migrate.js';
import { InroError } from '../../model/error.js';
import { addon } from '../../system/addon.js';
import { systemClock, systemRandom } from '../../system/clock.js';
import { claimStateFolder } from '../../system/files.js';
import { useKeyCredential } from '../key_credential.js';
import { printLine } from '../print.js';
import { distributedStore, type StoreOptions } from '../store_option.js';
import { unlockKeyFrom } from '../unlock_key_input.js';

export interface ManagerMigrateOptions extends StoreOptions {
  state: string;
  store: string;
  unlockKey?: string;
  keyCredential?: string;
}

export async function managerMigrate(options: ManagerMigrateOptions): Promise<void> {
  const { state: folder, unlockKey } = options;
  const target = distributedStore(options);
  if (target === undefined) throw new InroError('internal', 'no store was named');
  const release = claimStateFolder(folder, 'manager');
  try {
    addon().forbidDumps();
    useKeyCredential(options);
    unlock(new Autolock(folder, false), unlockKey);
    const arena = openArena(arenaSize((bytes) => addon().lockable(bytes)));
    const parts = { folder, arena, clock: systemClock, random: systemRandom };
    const { entries, former } = await migrateToEtcd({ ...target, ...parts });
    printLine(`moved ${entries} records to ${options.store}; now start the manager with --store ${options.store}
the former store is kept in ${former}: remove it when all is well`);
  } finally {
    release();
  }
}

function unlock(autolock: Autolock, source: string | undefined): void {
  if (!autolock.isLocked) return;
  if (source === undefined)
    throw new InroError('locked', 'the keys of this manager are wrapped by its unlock key', {
      remedy: 'bring it: --unlock-key -, a FILE, or @NAME for a credential',
    });
  const key = unlockKeyFrom(source, autolock.arena);
  try {
    autolock.open(key);
  } catch (error) {
    key.wipe();
    throw error;
  }
}
