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
import { InroError } from '../model/error.js';
import type { DataKeys } from './data_key_files.js';

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
  /** Whether something may still be under the data key before the present one. */
  readonly hasFormer: boolean;
  /** What is kept from now on is under this one; the present one becomes the former one. */
  useNext(next: Plaintext): void;
  forgetFormer(): void;
  /** @returns the content key under the present data key; undefined when it is. @throws envelope when it is under neither. */
  rewrap(atRest: Uint8Array, binding: Binding): Uint8Array | undefined;
  /** The same for a text. */
  rewrapText(sealed: Uint8Array): Uint8Array | undefined;
  wipe(): void;
}

/** @param keys are the keyring's to wipe. */
export function createKeyring(arena: Arena, sealing: ExchangeKey, keys: DataKeys): Keyring {
  let { present, former } = keys;
  /** With the key that it is under. @throws envelope */
  const opened = (open: (key: Plaintext) => Plaintext): { plaintext: Plaintext; isFormer: boolean } => {
    try {
      return { plaintext: open(present), isFormer: false };
    } catch (error) {
      if (former === undefined || !(error instanceof InroError) || error.code !== 'envelope') throw error;
      return { plaintext: open(former), isFormer: true };
    }
  };
  const openKey = (atRest: Uint8Array, binding: Binding) =>
    opened((key) => unwrap('atRest', atRest, binding, key, arena));
  const openText = (sealed: Uint8Array) => opened((key) => openBox(boxTag.text, sealed, key, arena));
  return {
    sealingPublicKey: sealing.publicKey,
    keep(submitted, binding) {
      const contentKey = receiveContentKey(submitted, binding, sealing.secret, arena);
      try {
        return wrap('atRest', contentKey, binding, present, arena);
      } finally {
        contentKey.wipe();
      }
    },
    sessionKey: (sessionPublicKey) => sharedKey(sessionPublicKey, sealing.secret, arena),
    deliver(atRest, binding, sessionKey) {
      const { plaintext: contentKey } = openKey(atRest, binding);
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
        return sealBox(boxTag.text, plaintext, present);
      } finally {
        plaintext.wipe();
      }
    },
    readText(sealed) {
      const { plaintext } = openText(sealed);
      try {
        return new TextDecoder().decode(plaintext.expose());
      } finally {
        plaintext.wipe();
      }
    },
    get hasFormer() {
      return former !== undefined;
    },
    useNext(next) {
      former = present;
      present = next;
    },
    forgetFormer() {
      former?.wipe();
      former = undefined;
    },
    rewrap(atRest, binding) {
      const { plaintext: contentKey, isFormer } = openKey(atRest, binding);
      try {
        return isFormer ? wrap('atRest', contentKey, binding, present, arena) : undefined;
      } finally {
        contentKey.wipe();
      }
    },
    rewrapText(sealed) {
      const { plaintext, isFormer } = openText(sealed);
      try {
        return isFormer ? sealBox(boxTag.text, plaintext, present) : undefined;
      } finally {
        plaintext.wipe();
      }
    },
    wipe() {
      for (const key of [sealing.secret, present, former]) key?.wipe();
    },
  };
}
