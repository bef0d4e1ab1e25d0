import test from 'ava';
import { openArena } from '../../src/crypto/arena.js';
import { drawExchangeKey } from '../../src/crypto/exchange.js';
import { openUnlockKey, sealUnlockKey } from '../../src/crypto/unlock_exchange.js';
import { drawUnlockKey, readUnlockKey, unlockKeyChars, writeUnlockKey } from '../../src/crypto/unlock_key.js';

const arena = openArena(1 << 20, 'mlock');

function textOf(key = drawUnlockKey(arena)): string {
  const into = new Uint8Array(unlockKeyChars);
  writeUnlockKey(key, into);
  return Buffer.from(into).toString();
}
const read = (text: string): Uint8Array => readUnlockKey(Buffer.from(text), arena).expose();

test('what is written is read again, with white space around it', (t) => {
  for (let n = 0; n < 50; n++) {
    const key = drawUnlockKey(arena);
    const text = textOf(key);
    t.regex(text, /^INRO-UNLOCK-1-[a-z2-7]{56}$/);
    t.deepEqual(read(text), key.expose());
    t.deepEqual(read(`\t ${text}\r\n`), key.expose());
  }
});

test('a known key has this text for ever', (t) => {
  const key = arena.take(32);
  key.expose().set(Array.from({ length: 32 }, (_, n) => n));
  t.is(textOf(key), 'INRO-UNLOCK-1-aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dypw35te');
});

test('every slip is told from another key, and no word has a part of it', (t) => {
  const text = textOf();
  const body = text.slice('INRO-UNLOCK-1-'.length);
  const bad: [string, RegExp][] = [
    ['', /there is nothing/],
    ['hunter2', /does not begin with INRO-UNLOCK-1-/],
    [body, /does not begin with/],
    [text.replace('-1-', '-2-'), /later version/],
    [text.slice(0, -1), /69 characters instead of 70/],
    [`${text}a`, /71 characters instead of 70/],
    [`${text.slice(0, -1)}1`, /a character that none has/],
    [text.toUpperCase(), /a character that none has/],
  ];
  for (const [typed, said] of bad) {
    const error = t.throws(() => read(typed), { code: 'bad_input', message: said });
    t.false(error?.message.includes(body.slice(0, 8)));
  }
  for (let at = 0; at < body.length; at++) {
    const other = body[at] === 'a' ? 'b' : 'a';
    const wrong = `INRO-UNLOCK-1-${body.slice(0, at)}${other}${body.slice(at + 1)}`;
    t.throws(() => read(wrong), { code: 'bad_input', message: /a character is wrong/ });
  }
});

test('between two processes it is boxed, for one of them', (t) => {
  const key = drawUnlockKey(arena);
  const [manager, other] = [drawExchangeKey(arena), drawExchangeKey(arena)];
  const sealed = sealUnlockKey(key, manager.publicKey, arena);
  t.deepEqual(openUnlockKey(sealed, manager, arena).expose(), key.expose());
  t.throws(() => openUnlockKey(sealed, other, arena), { code: 'envelope' });
  t.throws(() => openUnlockKey({ ...sealed, box: new Uint8Array() }, manager, arena), { code: 'envelope' });
  t.throws(() => sealUnlockKey(key, new Uint8Array(32), arena), { code: 'envelope' });
});
