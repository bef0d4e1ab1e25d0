import test from 'ava';
import { openArena } from '../../src/crypto/arena.js';
import { digestOf, openValue, sealValue, submitContentKey, unwrap } from '../../src/crypto/envelope.js';
import { drawExchangeKey, drawKey, sharedKey } from '../../src/crypto/exchange.js';
import { createKeyring } from '../../src/manager/keyring.js';
import { refuses } from '../support/refuses.js';

function keys() {
  const arena = openArena(1 << 20);
  const keyring = createKeyring(arena, drawExchangeKey(arena), { present: drawKey(arena) });
  const value = arena.take(7);
  value.expose().set(Buffer.from('hunter2'));
  const { ciphertext, contentKey } = sealValue(value, arena);
  const binding = { clusterId: 'c', secretId: 's', version: 1, ciphertextDigest: digestOf(ciphertext) };
  const submitted = submitContentKey(contentKey, binding, keyring.sealingPublicKey, arena);
  value.wipe();
  contentKey.wipe();
  return { arena, keyring, ciphertext, binding, submitted };
}

test('what an operator submits is delivered to a session, and only the session opens it', (t) => {
  const { arena, keyring, ciphertext, binding, submitted } = keys();
  const session = drawExchangeKey(arena);
  const kept = keyring.keep(submitted, binding);
  const delivered = keyring.deliver(kept, binding, keyring.sessionKey(session.publicKey));
  const shared = sharedKey(keyring.sealingPublicKey, session.secret, arena);
  const contentKey = unwrap('delivered', delivered, binding, shared, arena);
  t.is(Buffer.from(openValue(ciphertext, contentKey, arena).expose()).toString(), 'hunter2');
  const stranger = sharedKey(keyring.sealingPublicKey, drawExchangeKey(arena).secret, arena);
  refuses(t, () => unwrap('delivered', delivered, binding, stranger, arena), 'envelope');
});

test('neither what was submitted nor what is kept moves to another record', (t) => {
  const { arena, keyring, binding, submitted } = keys();
  const session = keyring.sessionKey(drawExchangeKey(arena).publicKey);
  const kept = keyring.keep(submitted, binding);
  for (const change of [
    { secretId: 't' },
    { version: 2 },
    { clusterId: 'd' },
    { ciphertextDigest: new Uint8Array(32) },
  ]) {
    refuses(t, () => keyring.keep(submitted, { ...binding, ...change }), 'envelope', /does not belong/);
    refuses(
      t,
      () => keyring.deliver(kept, { ...binding, ...change }, session),
      'envelope',
      /does not belong/,
    );
  }
  refuses(t, () => keyring.deliver(submitted, binding, session), 'envelope');
  refuses(t, () => keyring.keep(kept, binding), 'envelope');
});

test('another cluster’s keys open nothing of it', (t) => {
  const [a, b] = [keys(), keys()];
  refuses(t, () => b.keyring.keep(a.submitted, a.binding), 'envelope');
  const kept = a.keyring.keep(a.submitted, a.binding);
  refuses(
    t,
    () => b.keyring.deliver(kept, a.binding, b.keyring.sessionKey(drawExchangeKey(b.arena).publicKey)),
    'envelope',
  );
});

test('texts of its own are kept sealed, and are no content keys', (t) => {
  const { arena, keyring, binding } = keys();
  const sealed = keyring.keepText('INRO-JOIN-1-é');
  t.false(Buffer.from(sealed).includes('INRO'));
  t.is(keyring.readText(sealed), 'INRO-JOIN-1-é');
  refuses(t, () => keyring.deliver(sealed, binding, drawKey(arena)), 'envelope');
  const damaged = Uint8Array.from(sealed);
  damaged[30] = (damaged[30] as number) ^ 1;
  refuses(t, () => keyring.readText(damaged), 'envelope');
});

test('no key of a passing secret stays in the arena, and after the wipe nothing works', (t) => {
  const { arena, keyring, binding, submitted } = keys();
  const theirs = drawExchangeKey(arena);
  const session = keyring.sessionKey(theirs.publicKey);
  theirs.secret.wipe();
  const pieces = arena.facts().pieces;
  const kept = keyring.keep(submitted, binding);
  keyring.deliver(kept, binding, session);
  const text = keyring.keepText('text');
  keyring.readText(text);
  refuses(t, () => keyring.deliver(kept, { ...binding, version: 2 }, session), 'envelope');
  t.is(arena.facts().pieces, pieces);

  keyring.wipe();
  session.wipe();
  t.is(arena.facts().pieces, 0);
  t.throws(() => keyring.keep(submitted, binding));
  t.throws(() => keyring.deliver(kept, binding, drawKey(arena)));
  t.throws(() => keyring.keepText('text'));
  t.throws(() => keyring.readText(text));
});
