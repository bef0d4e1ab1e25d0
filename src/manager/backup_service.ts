/** The call by which a backup is made, on the manager's own socket alone. */
import type { Logger } from 'pino';
import { openArena, type Arena } from '../crypto/arena.js';
import { keyBytes } from '../crypto/exchange.js';
import type { Plaintext } from '../crypto/plaintext.js';
import { asInroError, InroError } from '../model/error.js';
import { ManagerBackup } from '../proto/gen/inro/v1/backup_pb.js';
import type { SealedUnlockKey } from '../proto/gen/inro/v1/lock_pb.js';
import { serve, type Registration } from '../rpc/server.js';
import type { AuditBook } from './audit_book.js';
import type { Autolock } from './autolock.js';
import { makeBackup, type BackupParts } from './backup.js';

export interface BackupServiceParts extends Omit<BackupParts, 'arena'> {
  autolock: Autolock;
  /** Opens what was sealed for this process. */
  keyIn: (sealed: SealedUnlockKey) => Plaintext;
  audit: Pick<AuditBook, 'append'>;
  log: Logger;
}

/** One piece of the backup, and one private key file at a time. */
const arenaBytes = 512 * 1024;

export function backupService(parts: BackupServiceParts): Registration {
  const { autolock, keyIn, audit, log } = parts;
  let arena: Arena | undefined;
  let isBusy = false;
  const keyFor = (
    sealed: SealedUnlockKey | undefined,
    own: Arena,
  ): { key: Plaintext; isUnlockKey: boolean } => {
    if (sealed !== undefined && sealed.box.length > 0) {
      const key = keyIn(sealed);
      if (key.size === keyBytes) return { key, isUnlockKey: false };
      key.wipe();
      throw new InroError('bad_input', `a key has ${keyBytes} bytes`);
    }
    const key = autolock.copyOfKey(own);
    if (key !== undefined) return { key, isUnlockKey: true };
    throw new InroError('bad_input', 'it is not said under which key the backup is to be sealed', {
      remedy:
        'make one, keep it elsewhere, and name it: inro manager unlock-key --new > KEYFILE, then --key KEYFILE; under autolock the unlock key is taken',
    });
  };
  return serve(ManagerBackup, 'local', {
    backup: async (channel) => {
      if (isBusy)
        throw new InroError('conflict', 'a backup is being made already', { remedy: 'wait for its end' });
      isBusy = true;
      const line = {
        action: 'backup',
        object: '',
        actor: 'socket',
        actorId: '',
        role: '',
        serial: '',
        address: 'socket',
      };
      try {
        arena ??= openArena(arenaBytes);
        const first = await channel.messages[Symbol.asyncIterator]().next();
        const sealed = first.done === true ? undefined : first.value.key;
        const { key, isUnlockKey } = keyFor(sealed, arena);
        try {
          const entries = await makeBackup({ ...parts, arena }, { key, isUnlockKey }, (bytes) =>
            channel.send({ bytes }),
          );
          log.info({ entries }, 'a backup was made');
        } finally {
          key.wipe();
        }
        await audit.append({ ...line, outcome: 'done', reason: '' });
      } catch (error) {
        const { code, message } = asInroError(error);
        await audit.append({ ...line, outcome: code, reason: message });
        throw error;
      } finally {
        isBusy = false;
      }
    },
  });
}
