/** The calls by which a manager is unlocked, and its unlock key shown and changed; on its own socket alone. */
import type { Logger } from 'pino';
import { drawExchangeKey, keyBytes } from '../crypto/exchange.js';
import type { Plaintext } from '../crypto/plaintext.js';
import { openUnlockKey, sealUnlockKey } from '../crypto/unlock_exchange.js';
import { asInroError, InroError } from '../model/error.js';
import { ManagerLock, type SealedUnlockKey, type UnlockRequest } from '../proto/gen/inro/v1/lock_pb.js';
import { serve, type Registration } from '../rpc/server.js';
import type { AuditBook } from './audit_book.js';
import type { Autolock } from './autolock.js';

export interface LockServiceParts {
  autolock: Autolock;
  log: Logger;
  /** After an unlock that succeeded. */
  onUnlocked?: () => void;
  /** After the unlock key was set, or another one took its place. */
  onKeySet?: () => Promise<void>;
  /** Of a manager that is unlocked. */
  audit?: Pick<AuditBook, 'append'>;
}

/** Also gives what opens a key that was sealed for this process. */
export function lockService({
  autolock,
  log,
  onUnlocked,
  onKeySet,
  audit,
}: LockServiceParts): Registration & {
  keyIn: (sealed: SealedUnlockKey) => Plaintext;
} {
  const { arena } = autolock;
  const own = drawExchangeKey(arena);
  let keyVersion = 1;
  const state = () => ({
    locked: autolock.isLocked,
    autolock: autolock.state,
    exchangeKey: own.publicKey,
    keyVersion,
  });
  const keyIn = ({ box, exchangeKey }: Pick<SealedUnlockKey, 'box' | 'exchangeKey'>): Plaintext => {
    const key = openUnlockKey({ box, exchangeKey }, own, arena);
    if (key.size === keyBytes) return key;
    key.wipe();
    throw new InroError('bad_input', `an unlock key has ${keyBytes} bytes`);
  };
  const unlockedOnly = (): void => {
    if (autolock.isLocked) throw isLocked();
  };
  const recorded = async <T>(action: string, act: () => T): Promise<T> => {
    const line = {
      action,
      object: '',
      actor: 'socket',
      actorId: '',
      role: '',
      serial: '',
      address: 'socket',
    };
    try {
      const result = act();
      log.info({ call: action }, 'operator call');
      await audit?.append({ ...line, outcome: 'done', reason: '' });
      return result;
    } catch (error) {
      const { code, message } = asInroError(error);
      await audit?.append({ ...line, outcome: code, reason: message });
      throw error;
    }
  };
  const service = serve(ManagerLock, 'local', {
    getLock: async () => state(),

    unlock: async (request) => {
      if (!autolock.isLocked)
        throw new InroError('bad_input', 'the manager is not locked', {
          remedy: "'inro status' shows how it is",
        });
      const key = keyIn(given(request));
      try {
        autolock.open(key);
      } catch (error) {
        key.wipe();
        log.warn({ err: error }, 'was not unlocked');
        throw error;
      }
      log.info('unlocked');
      onUnlocked?.();
      return state();
    },

    getUnlockKey: async ({ exchangeKey }) => {
      unlockedOnly();
      return recorded('getUnlockKey', () => sealUnlockKey(autolock.unlockKey, exchangeKey, arena));
    },

    setUnlockKey: async (request) => {
      unlockedOnly();
      const set = await recorded('setUnlockKey', () => {
        if (autolock.state === 'off') void autolock.unlockKey; // throws
        const { ifKeyVersion } = request;
        if (ifKeyVersion > 0 && ifKeyVersion !== keyVersion)
          throw new InroError('conflict', 'somebody else has set another unlock key just now', {
            remedy:
              "the one that was shown here unlocks nothing: 'inro manager unlock-key' shows the one that does",
          });
        autolock.lockWith(keyIn(given(request)));
        keyVersion++;
        return state();
      });
      await onKeySet?.();
      return set;
    },
  });
  return { ...service, keyIn };
}

function given({ key }: UnlockRequest): Pick<SealedUnlockKey, 'box' | 'exchangeKey'> {
  return key ?? { box: new Uint8Array(), exchangeKey: new Uint8Array() };
}

/** What is said to whoever wants anything else of it. */
export function isLocked(): InroError {
  return new InroError('locked', 'the manager is locked: its keys are wrapped by its unlock key', {
    remedy: 'on its host: inro manager unlock',
  });
}
