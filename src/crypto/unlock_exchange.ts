/** An unlock key between two processes of one host: boxed to a key of the receiver's process, so that no frame has it in clear. */
import type { Arena } from './arena.js';
import { drawExchangeKey, sharedKey, type ExchangeKey } from './exchange.js';
import type { Plaintext } from './plaintext.js';
import { boxTag, openBox, sealBox } from './secretbox.js';

export interface SealedUnlockKey {
  box: Uint8Array;
  exchangeKey: Uint8Array;
}

/** @throws envelope for a receiver's key that is none. */
export function sealUnlockKey(key: Plaintext, receiver: Uint8Array, arena: Arena): SealedUnlockKey {
  const own = drawExchangeKey(arena);
  try {
    const shared = sharedKey(receiver, own.secret, arena);
    try {
      return { box: sealBox(boxTag.unlockKey, key, shared), exchangeKey: own.publicKey };
    } finally {
      shared.wipe();
    }
  } finally {
    own.secret.wipe();
  }
}

/** The caller wipes it. @throws envelope */
export function openUnlockKey(
  { box, exchangeKey }: SealedUnlockKey,
  { secret }: ExchangeKey,
  arena: Arena,
): Plaintext {
  const shared = sharedKey(exchangeKey, secret, arena);
  try {
    return openBox(boxTag.unlockKey, box, shared, arena);
  } finally {
    shared.wipe();
  }
}
