import { createPrivateKey, createPublicKey, diffieHellman, randomBytes } from 'node:crypto';
import test from 'ava';
import nacl from 'tweetnacl';
import { openArena } from '../../src/crypto/arena.js';
import { drawExchangeKey, drawKey, exchangeKeyOf, sharedKey } from '../../src/crypto/exchange.js';
import { refuses } from '../support/refuses.js';

const arena = openArena(1 << 20);

test('both sides come to one key, and it is tweetnacl’s', (t) => {
  const [a, b] = [drawExchangeKey(arena), drawExchangeKey(arena)];
  const [ab, ba] = [sharedKey(b.publicKey, a.secret, arena), sharedKey(a.publicKey, b.secret, arena)];
  t.deepEqual(Buffer.from(ab.expose()), Buffer.from(ba.expose()));
  const expected = nacl.box.before(b.publicKey, Uint8Array.from(a.secret.expose()));
  t.deepEqual(Buffer.from(ab.expose()), Buffer.from(expected));
});

test('a public key belongs to its secret half, and OpenSSL agrees', (t) => {
  const { publicKey, secret } = drawExchangeKey(arena);
  const key = createPrivateKey({
    key: Buffer.concat([pkcs8, secret.expose()]),
    format: 'der',
    type: 'pkcs8',
  });
  const theirs = createPublicKey(key).export({ format: 'der', type: 'spki' }).subarray(spki.length);
  t.deepEqual(Buffer.from(publicKey), theirs);
  t.deepEqual(exchangeKeyOf(secret).publicKey, publicKey);
});

test('keys are drawn anew, 32 bytes in the arena', (t) => {
  const [a, b] = [drawKey(arena), drawKey(arena)];
  t.is(a.size, 32);
  t.notDeepEqual(Buffer.from(a.expose()), Buffer.from(b.expose()));
  t.not(Buffer.from(a.expose()).toString('hex'), '00'.repeat(32));
});

const lowOrder = [
  '0000000000000000000000000000000000000000000000000000000000000000',
  '0100000000000000000000000000000000000000000000000000000000000000',
  'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800',
  '5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157',
  'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
];

test('a public key with which anybody could compute the shared key is refused', (t) => {
  const { secret } = drawExchangeKey(arena);
  for (const hex of lowOrder) {
    for (const top of [0, 0x80]) {
      const point = Buffer.from(hex, 'hex');
      point[31] = (point[31] as number) | top;
      t.true(givesZero(point), 'OpenSSL comes to nothing but zeros with it');
      refuses(t, () => sharedKey(point, secret, arena), 'envelope', /low order/);
    }
  }
  t.false(givesZero(drawExchangeKey(arena).publicKey));
});

test('every other encoding of those points is refused, too: p + n for all n below 19', (t) => {
  const { secret } = drawExchangeKey(arena);
  for (let n = 0; n < 19; n++) {
    const point = Buffer.alloc(32, 0xff);
    point[0] = 0xed + n;
    point[31] = 0x7f;
    const refused = givesZero(point);
    t.is(refused, n < 2, `p + ${n}`);
    if (refused) refuses(t, () => sharedKey(point, secret, arena), 'envelope');
    else t.notThrows(() => sharedKey(point, secret, arena).wipe());
  }
});

test('a public key has 32 bytes', (t) => {
  const { secret } = drawExchangeKey(arena);
  for (const bytes of [0, 31, 33, 64])
    refuses(
      t,
      () => sharedKey(randomBytes(bytes), secret, arena),
      'envelope',
      new RegExp(`32 bytes, not ${bytes}`),
    );
});

/** OpenSSL refuses a result of zeros (RFC 7748 6.1): an opinion that is not ours. */
function givesZero(publicKey: Uint8Array): boolean {
  const secret = createPrivateKey({
    key: Buffer.concat([pkcs8, randomBytes(32)]),
    format: 'der',
    type: 'pkcs8',
  });
  const peer = createPublicKey({ key: Buffer.concat([spki, publicKey]), format: 'der', type: 'spki' });
  try {
    diffieHellman({ privateKey: secret, publicKey: peer });
    return false;
  } catch {
    return true;
  }
}

// RFC 8410: id-X25519 around 32 bytes.
const pkcs8 = Buffer.from('302e020100300506032b656e04220420', 'hex');
const spki = Buffer.from('302a300506032b656e032100', 'hex');
