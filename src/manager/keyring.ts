/**
 * The manager's keys, and all it ever does with a content key: from the operator's wrapping to the one at
 * rest, from the one at rest to a node's. Values never come in clear to a manager.
 */
import type { Arena } from '../crypto/arena.js';
import { receiveContentKey, unwrap, wrap } from '../crypto/envelope.js';
import { sharedKey, type ExchangeKey } from '../crypto/exchange.js';
import type { Plaintext } from '../crypto/plaintext.js';
import { boxTag, openBox, sealBox } from '../crypto/secretbox.js';
import type { Binding } from '../crypto/statement.js';

export interface Keyring {
  readonly sealingPublicKey: Uint8Array;
  /** @returns the content key under the data key. @throws envelope when it was not sealed for this record. */
  keep(submitted: Uint8Array, binding: Binding): Uint8Array;
  /** The key that this manager shares with a proved session key. The caller wipes. */
  sessionKey(sessionPublicKey: Uint8Array): Plaintext;
  /** @returns the content key for one session. @throws envelope when the stored one belongs to something else. */
  deliver(atRest: Uint8Array, binding: Binding, sessionKey: Plaintext): Uint8Array;
  /** Short texts of the manager's own, such as join tokens, under the data key. */
  keepText(text: string): Uint8Array;
  /** @throws envelope */
  readText(sealed: Uint8Array): string;
  wipe(): void;
}

export function createKeyring(arena: Arena, sealing: ExchangeKey, dataKey: Plaintext): Keyring {
  return {
    sealingPublicKey: sealing.publicKey,
    keep(submitted, binding) {
      const contentKey = receiveContentKey(submitted, binding, sealing.secret, arena);
      try {
        return wrap('atRest', contentKey, binding, dataKey, arena);
      } finally {
        contentKey.wipe();
      }
    },
    sessionKey: (sessionPublicKey) => sharedKey(sessionPublicKey, sealing.secret, arena),
    deliver(atRest, binding, sessionKey) {
      const contentKey = unwrap('atRest', atRest, binding, dataKey, arena);
      try {
        return wrap('delivered', contentKey, binding, sessionKey, arena);
      } finally {
        contentKey.wipe();
      }
    },
    keepText(text) {
      const bytes = Buffer.from(text);
      const plaintext = arena.take(bytes.length);
      try {
        plaintext.expose().set(bytes);
        return sealBox(boxTag.text, plaintext, dataKey);
      } finally {
        plaintext.wipe();
      }
    },
    readText(sealed) {
      const plaintext = openBox(boxTag.text, sealed, dataKey, arena);
      try {
        return new TextDecoder().decode(plaintext.expose());
      } finally {
        plaintext.wipe();
      }
    },
    wipe() {
      sealing.secret.wipe();
      dataKey.wipe();
    },
  };
}
