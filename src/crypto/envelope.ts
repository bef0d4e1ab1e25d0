/**
 * One secret's way: the value is boxed once under a fresh content key, where it is typed, and opened once, in
 * the arena of the node that serves it. In between only the 32-byte content key is wrapped anew: for the
 * manager (`submitted`), at rest (`atRest`), for a node's session (`delivered`). Wherever it is wrapped, a
 * digest of what it belongs to is wrapped with it, so a ciphertext or a content key that was moved to another
 * secret's record, version or cluster does not open.
 */
import { InroError } from '../model/error.js';
import { limits } from '../model/limits.js';
import type { Arena } from './arena.js';
import { drawExchangeKey, drawKey, keyBytes, sharedKey } from './exchange.js';
import type { Plaintext } from './plaintext.js';
import { boxOverheadBytes, boxTag, openBox, sealBox } from './secretbox.js';
import { constantTimeEqual, sha256 } from './signing.js';
import { bindingStatement, type Binding } from './statement.js';

const digestBytes = 32;
type Wrapping = 'submitted' | 'atRest' | 'delivered';

/** @throws bad_input for an empty value, too_large above 1 MiB. */
export function checkValueSize(bytes: number): number {
  if (bytes < 1) {
    throw new InroError('bad_input', 'the value is empty', { remedy: 'a secret has 1 byte to 1 MiB' });
  }
  if (bytes > limits.maxSecretBytes) {
    throw new InroError('too_large', `the value has more than ${limits.maxSecretBytes} bytes`, {
      remedy: 'a secret has 1 byte to 1 MiB; keep larger data elsewhere and its key here',
    });
  }
  return bytes;
}

/** The value's size from its box; the same checks as on the value. */
export function valueBytesOf(ciphertext: Uint8Array): number {
  return checkValueSize(ciphertext.length - boxOverheadBytes);
}

export function digestOf(ciphertext: Uint8Array): Uint8Array {
  return sha256(ciphertext);
}

/** Boxes a value under a fresh content key. The caller wipes both plaintexts. */
export function sealValue(
  value: Plaintext,
  arena: Arena,
): { ciphertext: Uint8Array<ArrayBuffer>; contentKey: Plaintext } {
  checkValueSize(value.size);
  const contentKey = drawKey(arena);
  return { ciphertext: sealBox(boxTag.value, value, contentKey), contentKey };
}

/** @throws envelope, arena_full. The caller wipes. */
export function openValue(ciphertext: Uint8Array, contentKey: Plaintext, arena: Arena): Plaintext {
  valueBytesOf(ciphertext);
  return openBox(boxTag.value, ciphertext, contentKey, arena);
}

/** Wraps a content key for the manager: an ephemeral public key, then a box to its sealing key. */
export function submitContentKey(
  contentKey: Plaintext,
  binding: Binding,
  sealingPublicKey: Uint8Array,
  arena: Arena,
): Uint8Array {
  const ephemeral = drawExchangeKey(arena);
  try {
    const box = withShared(sealingPublicKey, ephemeral.secret, arena, (key) =>
      wrap('submitted', contentKey, binding, key, arena),
    );
    return Buffer.concat([ephemeral.publicKey, box]);
  } finally {
    ephemeral.secret.wipe();
  }
}

/** @throws envelope when it was altered or belongs to something else. The caller wipes. */
export function receiveContentKey(
  sealed: Uint8Array,
  binding: Binding,
  sealingSecret: Plaintext,
  arena: Arena,
): Plaintext {
  if (sealed.length < keyBytes)
    throw new InroError('envelope', `a sealed content key of ${sealed.length} bytes is cut`);
  const box = sealed.subarray(keyBytes);
  return withShared(sealed.slice(0, keyBytes), sealingSecret, arena, (key) =>
    unwrap('submitted', box, binding, key, arena),
  );
}

/** Wraps a content key under the data key (`atRest`) or a session's shared key (`delivered`). */
export function wrap(
  purpose: Wrapping,
  contentKey: Plaintext,
  binding: Binding,
  key: Plaintext,
  arena: Arena,
): Uint8Array {
  const payload = arena.take(keyBytes + digestBytes);
  try {
    const bytes = payload.expose();
    bytes.set(contentKey.expose(), 0);
    bytes.set(sha256(bindingStatement(purpose, binding)), keyBytes);
    return sealBox(boxTag[purpose], payload, key);
  } finally {
    payload.wipe();
  }
}

/** @throws envelope when it was altered, is under another key, or belongs to something else. The caller wipes. */
export function unwrap(
  purpose: Wrapping,
  sealed: Uint8Array,
  binding: Binding,
  key: Plaintext,
  arena: Arena,
): Plaintext {
  const payload = openBox(boxTag[purpose], sealed, key, arena);
  try {
    const bytes = payload.expose();
    const belongs =
      bytes.length === keyBytes + digestBytes &&
      constantTimeEqual(bytes.subarray(keyBytes), sha256(bindingStatement(purpose, binding)));
    if (!belongs) {
      throw new InroError(
        'envelope',
        `a content key does not belong to version ${binding.version} of secret ${binding.secretId}`,
        {
          remedy:
            'the record was altered or moved; restore the store from a backup, or create the secret again',
        },
      );
    }
    const contentKey = arena.take(keyBytes);
    contentKey.expose().set(bytes.subarray(0, keyBytes));
    return contentKey;
  } finally {
    payload.wipe();
  }
}

function withShared<T>(
  publicKey: Uint8Array,
  secret: Plaintext,
  arena: Arena,
  use: (key: Plaintext) => T,
): T {
  const key = sharedKey(publicKey, secret, arena);
  try {
    return use(key);
  } finally {
    key.wipe();
  }
}
