import { randomBytes } from 'node:crypto';
import test from 'ava';
import fc from 'fast-check';
import nacl from 'tweetnacl';
import { openArena } from '../../src/crypto/arena.js';
import {
  checkValueSize,
  digestOf,
  openValue,
  receiveContentKey,
  sealValue,
  submitContentKey,
  unwrap,
  valueBytesOf,
  wrap,
} from '../../src/crypto/envelope.js';
import { drawExchangeKey, drawKey, sharedKey } from '../../src/crypto/exchange.js';
import type { Plaintext } from '../../src/crypto/plaintext.js';
import { boxOverheadBytes } from '../../src/crypto/secretbox.js';
import { sha256 } from '../../src/crypto/signing.js';
import { bindingStatement, type Binding } from '../../src/crypto/statement.js';
import { InroError } from '../../src/model/error.js';
import { limits } from '../../src/model/limits.js';
import { refuses } from '../support/refuses.js';

const arena = openArena(16 << 20);

function plaintext(bytes: Uint8Array): Plaintext {
  const taken = arena.take(bytes.length);
  taken.expose().set(bytes);
  return taken;
}

const bytesOf = (taken: Plaintext): Buffer => Buffer.from(taken.expose());

function sealed(value: Uint8Array = Buffer.from('hunter2')) {
  const { ciphertext, contentKey } = sealValue(plaintext(value), arena);
  const binding: Binding = {
    clusterId: 'c1',
    secretId: 's1',
    version: 1,
    ciphertextDigest: digestOf(ciphertext),
  };
  return { value, ciphertext, contentKey, binding };
}

test('a value comes back, from one byte to the largest', (t) => {
  for (const size of [1, 2, 15, 16, 31, 32, 33, 63, 64, 65, 200, 65_536, limits.maxSecretBytes]) {
    const { value, ciphertext, contentKey } = sealed(randomBytes(size));
    t.is(ciphertext.length, size + boxOverheadBytes);
    t.is(valueBytesOf(ciphertext), size);
    const opened = openValue(ciphertext, contentKey, arena);
    t.true(bytesOf(opened).equals(value), `${size} bytes`);
    opened.wipe();
    contentKey.wipe();
  }
});

test('plain tweetnacl opens what the envelope sealed', (t) => {
  const { value, ciphertext, contentKey, binding } = sealed(randomBytes(1_000));
  const [tag, nonce, box] = [ciphertext[0], ciphertext.slice(1, 25), ciphertext.slice(25)];
  t.is(tag, 1);
  t.deepEqual(Buffer.from(nacl.secretbox.open(box, nonce, bytesOf(contentKey)) ?? []), value);

  const manager = nacl.box.keyPair();
  const submitted = submitContentKey(contentKey, binding, manager.publicKey, arena);
  const [ephemeral, wrapped] = [submitted.slice(0, 32), submitted.slice(32)];
  t.is(wrapped[0], 3);
  const payload = nacl.box.open(wrapped.slice(25), wrapped.slice(1, 25), ephemeral, manager.secretKey);
  t.deepEqual(Buffer.from(payload?.slice(0, 32) ?? []), bytesOf(contentKey));
  t.deepEqual(
    Buffer.from(payload?.slice(32) ?? []),
    Buffer.from(sha256(bindingStatement('submitted', binding))),
  );
});

test('the envelope opens what plain tweetnacl sealed', (t) => {
  const { contentKey, binding } = sealed();
  const [ours, theirs] = [drawExchangeKey(arena), nacl.box.keyPair()];
  const payload = Buffer.concat([contentKey.expose(), sha256(bindingStatement('submitted', binding))]);
  const nonce = nacl.randomBytes(24);
  const box = nacl.box(payload, nonce, ours.publicKey, theirs.secretKey);
  const opened = receiveContentKey(
    Buffer.concat([theirs.publicKey, Buffer.of(3), nonce, box]),
    binding,
    ours.secret,
    arena,
  );
  t.deepEqual(bytesOf(opened), bytesOf(contentKey));
});

test('a content key goes from the terminal through the store to a session, and opens the value there', (t) => {
  const { value, ciphertext, contentKey, binding } = sealed();
  const manager = drawExchangeKey(arena);
  const session = drawExchangeKey(arena);
  const dataKey = drawKey(arena);

  const submitted = submitContentKey(contentKey, binding, manager.publicKey, arena);
  contentKey.wipe();
  const received = receiveContentKey(submitted, binding, manager.secret, arena);
  const atRest = wrap('atRest', received, binding, dataKey, arena);
  const stored = unwrap('atRest', atRest, binding, dataKey, arena);
  const managersHalf = sharedKey(session.publicKey, manager.secret, arena);
  const delivered = wrap('delivered', stored, binding, managersHalf, arena);
  const agentsHalf = sharedKey(manager.publicKey, session.secret, arena);
  const arrived = unwrap('delivered', delivered, binding, agentsHalf, arena);
  t.deepEqual(bytesOf(openValue(ciphertext, arrived, arena)), Buffer.from(value));
});

/** One wrapping of each kind, and how it is opened. */
function wrappings() {
  const { contentKey, binding, ciphertext } = sealed();
  const manager = drawExchangeKey(arena);
  const key = drawKey(arena);
  const submitted = submitContentKey(contentKey, binding, manager.publicKey, arena);
  return {
    binding,
    ciphertext,
    contentKey,
    key,
    all: [
      {
        name: 'submitted',
        box: submitted,
        open: (box: Uint8Array, b: Binding) => receiveContentKey(box, b, manager.secret, arena),
      },
      ...(['atRest', 'delivered'] as const).map((name) => ({
        name,
        box: wrap(name, contentKey, binding, key, arena),
        open: (box: Uint8Array, b: Binding) => unwrap(name, box, b, key, arena),
      })),
    ],
  };
}

test('a content key opens for its own cluster, secret, version and ciphertext, and for no other', (t) => {
  const { binding, all } = wrappings();
  const other = sealed();
  const moves: Record<string, Partial<Binding>> = {
    'another cluster': { clusterId: 'c2' },
    'another secret': { secretId: 's2' },
    'another version': { version: 2 },
    'another ciphertext': { ciphertextDigest: other.binding.ciphertextDigest },
    'fields that run together': { clusterId: 'c', secretId: '1s1' },
  };
  for (const { name, box, open } of all) {
    t.is(open(box, binding).size, 32);
    for (const [move, change] of Object.entries(moves)) {
      const error = refuses(
        t,
        () => open(box, { ...binding, ...change }),
        'envelope',
        /does not belong to version/,
      );
      t.regex(error.remedy ?? '', /restore/, `${name} moved to ${move}`);
    }
  }
});

test('a wrapping for one purpose is none for another, even under one key and with another tag', (t) => {
  const { binding, key, all } = wrappings();
  const [, atRest, delivered] = all;
  for (const [from, to, tag] of [
    [atRest, 'delivered', 4],
    [delivered, 'atRest', 2],
  ] as const) {
    const box = from?.box as Uint8Array;
    refuses(t, () => unwrap(to, box, binding, key, arena), 'envelope', /tag/);
    refuses(
      t,
      () => unwrap(to, Uint8Array.from([tag, ...box.slice(1)]), binding, key, arena),
      'envelope',
      /does not belong/,
    );
  }
});

test('a value’s box is no content key, and a content key’s box is no value', (t) => {
  const { binding, ciphertext, contentKey, key, all } = wrappings();
  refuses(t, () => unwrap('atRest', ciphertext, binding, contentKey, arena), 'envelope', /tag/);
  refuses(t, () => openValue(all[1]?.box as Uint8Array, key, arena), 'envelope', /tag/);
  // A box of another size under the right key and tag.
  const short = sealValue(plaintext(randomBytes(33)), arena);
  const retagged = Uint8Array.from([2, ...short.ciphertext.slice(1)]);
  refuses(
    t,
    () => unwrap('atRest', retagged, binding, short.contentKey, arena),
    'envelope',
    /does not belong/,
  );
});

test('another key opens nothing', (t) => {
  const { binding, ciphertext, all } = wrappings();
  const wrong = drawKey(arena);
  refuses(t, () => openValue(ciphertext, wrong, arena), 'envelope', /does not open/);
  refuses(
    t,
    () => unwrap('atRest', all[1]?.box as Uint8Array, binding, wrong, arena),
    'envelope',
    /does not open/,
  );
  const stranger = drawExchangeKey(arena);
  const box = all[0]?.box as Uint8Array;
  refuses(t, () => receiveContentKey(box, binding, stranger.secret, arena), 'envelope', /does not open/);
});

test('every flipped bit is noticed', (t) => {
  const { binding, ciphertext, contentKey, all } = wrappings();
  const flip = (bytes: Uint8Array, bit: number): Uint8Array => {
    const flipped = Uint8Array.from(bytes);
    flipped[bit >> 3] = (flipped[bit >> 3] as number) ^ (1 << (bit & 7));
    return flipped;
  };
  for (let bit = 0; bit < ciphertext.length * 8; bit++)
    refuses(t, () => openValue(flip(ciphertext, bit), contentKey, arena), 'envelope');
  for (const { name, box, open } of all) {
    // X25519 ignores the top bit of a public key (RFC 7748 5): nothing is won by flipping it.
    const ignored = name === 'submitted' ? 255 : -1;
    const step = name === 'submitted' ? 7 : 1; // a scalar multiplication each
    for (let bit = 0; bit < box.length * 8; bit += step)
      if (bit !== ignored) refuses(t, () => open(flip(box, bit), binding), 'envelope');
  }
});

test('whatever is cut, empty or endless is refused', (t) => {
  const { binding, contentKey, ciphertext, key, all } = wrappings();
  for (const { box, open } of all) {
    for (const wrong of [
      box.slice(0, -1),
      box.slice(1),
      box.slice(0, 31),
      new Uint8Array(),
      Buffer.concat([box, Buffer.of(0)]),
    ])
      refuses(t, () => open(wrong, binding), 'envelope');
  }
  refuses(t, () => openValue(ciphertext.slice(0, -1), contentKey, arena), 'envelope');
  refuses(t, () => openValue(new Uint8Array(), key, arena), 'bad_input', /empty/);
  refuses(t, () => valueBytesOf(new Uint8Array(boxOverheadBytes)), 'bad_input', /empty/);
  refuses(t, () => valueBytesOf(new Uint8Array(boxOverheadBytes + limits.maxSecretBytes + 1)), 'too_large');
});

test('any bytes in place of a box are refused with an InroError', (t) => {
  const { binding, key } = wrappings();
  const { secret } = drawExchangeKey(arena);
  const attempts = [
    (bytes: Uint8Array) => openValue(bytes, key, arena),
    (bytes: Uint8Array) => unwrap('delivered', bytes, binding, key, arena),
    (bytes: Uint8Array) => receiveContentKey(bytes, binding, secret, arena),
  ];
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(2), (bytes, which) => {
      try {
        attempts[which]?.(bytes);
        return false;
      } catch (error) {
        return error instanceof InroError;
      }
    }),
  );
  t.pass();
});

test('a value has 1 byte to 1 MiB', (t) => {
  t.is(checkValueSize(1), 1);
  t.is(checkValueSize(limits.maxSecretBytes), limits.maxSecretBytes);
  refuses(t, () => checkValueSize(0), 'bad_input', /the value is empty/);
  refuses(t, () => checkValueSize(limits.maxSecretBytes + 1), 'too_large', /1048576 bytes/);
});

test('nonces and keys are drawn anew each time', (t) => {
  const [a, b] = [sealed(), sealed()];
  t.notDeepEqual(a.ciphertext.slice(1, 25), b.ciphertext.slice(1, 25));
  t.notDeepEqual(bytesOf(a.contentKey), bytesOf(b.contentKey));
  const to = nacl.box.keyPair().publicKey;
  const [first, second] = [1, 2].map(() => submitContentKey(a.contentKey, a.binding, to, arena));
  t.notDeepEqual(first?.slice(0, 32), second?.slice(0, 32), 'an ephemeral key for each submission');
});

test('nothing that was taken on the way stays in the arena, however it ends', (t) => {
  const own = openArena(1 << 20);
  const value = own.take(100);
  const { ciphertext, contentKey } = sealValue(value, own);
  const binding = { clusterId: 'c', secretId: 's', version: 1, ciphertextDigest: digestOf(ciphertext) };
  const manager = drawExchangeKey(own);
  const pieces = own.facts().pieces;
  const submitted = submitContentKey(contentKey, binding, manager.publicKey, own);
  receiveContentKey(submitted, binding, manager.secret, own).wipe();
  const key = drawKey(own);
  const box = wrap('atRest', contentKey, binding, key, own);
  unwrap('atRest', box, binding, key, own).wipe();
  openValue(ciphertext, contentKey, own).wipe();
  refuses(t, () => unwrap('atRest', box, { ...binding, version: 2 }, key, own), 'envelope');
  refuses(t, () => unwrap('delivered', box, binding, key, own), 'envelope');
  refuses(t, () => openValue(ciphertext, key, own), 'envelope');
  refuses(t, () => receiveContentKey(submitted, { ...binding, version: 2 }, manager.secret, own), 'envelope');
  refuses(t, () => submitContentKey(contentKey, binding, new Uint8Array(32), own), 'envelope');
  key.wipe();
  t.is(own.facts().pieces, pieces);
});

test('an arena without room says how much it would take, and takes nothing', (t) => {
  const small = openArena(8_192);
  const { ciphertext, contentKey } = sealed(randomBytes(20_000));
  const error = refuses(
    t,
    () => openValue(ciphertext, contentKey, small),
    'arena_full',
    /no room for 20000 bytes/,
  );
  t.is(error.kind, 'temporary');
  t.is(small.facts().pieces, 0);
});
