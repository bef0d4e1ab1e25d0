import test from 'ava';
import { openArena, paddingBytes } from '../../src/crypto/arena.js';
import { refuses } from '../support/refuses.js';

for (const kind of ['auto', 'mlock'] as const) {
  test(`${kind}: what is taken has its size, is zero, and is counted until it is wiped`, (t) => {
    const arena = openArena(1 << 16, kind);
    const piece = arena.take(100);
    t.is(piece.size, 100);
    t.true(piece.expose().every((byte) => byte === 0));
    t.true(arena.facts().usedBytes >= 100 + paddingBytes);
    t.is(arena.facts().pieces, 1);
    piece.wipe();
    t.like(arena.facts(), { usedBytes: 0, pieces: 0, freeBytes: 1 << 16 });
  });
}

test('a full arena says what is free, and has room again after a wipe', (t) => {
  const arena = openArena(1 << 16);
  const large = arena.take(40_000);
  const error = refuses(
    t,
    () => arena.take(40_000),
    'arena_full',
    /no room for 40000 bytes \(free \d+, largest piece \d+\)/,
  );
  t.is(error.kind, 'temporary');
  t.truthy(error.remedy);
  large.wipe();
  t.notThrows(() => arena.take(40_000));
});

test('two pieces never share a byte', (t) => {
  const arena = openArena(1 << 16);
  const pieces = Array.from({ length: 50 }, (_, n) => arena.take(1 + n * 7));
  pieces.forEach((piece, n) => piece.exposePadded().fill(n + 1));
  t.true(pieces.every((piece, n) => piece.exposePadded().every((byte) => byte === n + 1)));
});
