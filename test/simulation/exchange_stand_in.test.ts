/** What stands in for X25519 in a simulation refuses what X25519 refuses. */
import { standsIn } from './exchange_stand_in.js';
import test from 'ava';
import { openArena } from '../../src/crypto/arena.js';
import { drawExchangeKey, sharedKey } from '../../src/crypto/exchange.js';
import { refuses } from '../support/refuses.js';

standsIn();
const arena = openArena(1 << 20);
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

test('two sides have one key, and nobody else has it', (t) => {
  const [a, b, c] = [drawExchangeKey(arena), drawExchangeKey(arena), drawExchangeKey(arena)];
  const shared = hex(sharedKey(b.publicKey, a.secret, arena).expose());
  t.is(hex(sharedKey(a.publicKey, b.secret, arena).expose()), shared);
  t.not(hex(sharedKey(a.publicKey, c.secret, arena).expose()), shared);
  t.not(hex(sharedKey(b.publicKey, c.secret, arena).expose()), shared);
  t.not(hex(a.publicKey), hex(b.publicKey));
});

test('keys that are none are refused as they are without it', (t) => {
  const { secret } = drawExchangeKey(arena);
  refuses(t, () => sharedKey(new Uint8Array(31), secret, arena), 'envelope');
  refuses(t, () => sharedKey(new Uint8Array(32), secret, arena), 'envelope');
});
