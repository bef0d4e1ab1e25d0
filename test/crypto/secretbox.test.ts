import { randomBytes } from 'node:crypto';
import test from 'ava';
import nacl from 'tweetnacl';
import { openArena } from '../../src/crypto/arena.js';
import { drawExchangeKey, drawKey, sharedKey } from '../../src/crypto/exchange.js';
import { boxOverheadBytes, boxTag, openBox, sealBox } from '../../src/crypto/secretbox.js';
import { refuses } from '../support/refuses.js';

const arena = openArena(4 << 20);

test('a box is tag, nonce, authenticator, ciphertext', (t) => {
  const [key, plaintext] = [drawKey(arena), arena.take(5)];
  plaintext.expose().set(Buffer.from('words'));
  const box = sealBox(boxTag.text, plaintext, key);
  t.is(boxOverheadBytes, 41);
  t.is(box.length, 46);
  t.is(box[0], boxTag.text);
  const opened = nacl.secretbox.open(box.slice(25), box.slice(1, 25), Uint8Array.from(key.expose()));
  t.is(Buffer.from(opened ?? []).toString(), 'words');
  t.is(Buffer.from(openBox(boxTag.text, box, key, arena).expose()).toString(), 'words');
});

test('tags are for ever: boxes are stored', (t) => {
  t.deepEqual(
    { ...boxTag },
    {
      value: 1,
      atRest: 2,
      submitted: 3,
      delivered: 4,
      text: 5,
      keyFile: 6,
      wrappingKeys: 7,
      unlockKey: 8,
      backup: 9,
      backupKey: 10,
      record: 11,
      managerKey: 12,
    },
  );
});

test('sealing leaves the plaintext as it is, padding and all', (t) => {
  const [key, plaintext] = [drawKey(arena), arena.take(100)];
  plaintext.expose().set(randomBytes(100));
  const before = Buffer.from(plaintext.exposePadded());
  sealBox(boxTag.value, plaintext, key);
  t.deepEqual(Buffer.from(plaintext.exposePadded()), before);
});

test('opening does not change the box it was given: it may be opened again', (t) => {
  const [key, plaintext] = [drawKey(arena), arena.take(100)];
  const box = sealBox(boxTag.value, plaintext, key);
  const before = Buffer.from(box);
  openBox(boxTag.value, box, key, arena);
  refuses(t, () => openBox(boxTag.value, box, drawKey(arena), arena), 'envelope');
  t.deepEqual(Buffer.from(box), before);
});

test('a box that is part of a larger buffer opens, too', (t) => {
  const [key, plaintext] = [drawKey(arena), arena.take(3)];
  plaintext.expose().set(Buffer.from('abc'));
  const box = sealBox(boxTag.value, plaintext, key);
  const around = Buffer.concat([randomBytes(13), box, randomBytes(7)]);
  t.is(
    Buffer.from(openBox(boxTag.value, around.subarray(13, 13 + box.length), key, arena).expose()).toString(),
    'abc',
  );
});

// tweetnacl reads what lies beyond an array as zero: a wiped key would silently be the key that everybody knows.
test('a wiped key seals nothing, opens nothing and shares nothing', (t) => {
  const [key, plaintext] = [drawKey(arena), arena.take(4)];
  const box = sealBox(boxTag.value, plaintext, key);
  key.wipe();
  t.throws(() => sealBox(boxTag.value, plaintext, key));
  t.throws(() => openBox(boxTag.value, box, key, arena));
  const [a, b] = [drawExchangeKey(arena), drawExchangeKey(arena)];
  a.secret.wipe();
  t.throws(() => sharedKey(b.publicKey, a.secret, arena));
});

test('a wiped plaintext is not sealed as if it were an empty or a zero one', (t) => {
  const [key, plaintext] = [drawKey(arena), arena.take(4)];
  plaintext.wipe();
  t.throws(() => sealBox(boxTag.value, plaintext, key));
});
