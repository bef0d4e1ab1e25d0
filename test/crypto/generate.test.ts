import test from 'ava';
import { openArena } from '../../src/crypto/arena.js';
import { generateValue, parseValueFormat } from '../../src/crypto/generate.js';
import { InroError } from '../../src/model/error.js';
import { refuses } from '../support/refuses.js';

const arena = openArena(1 << 20);

function drawn(format: string): string {
  const value = generateValue(parseValueFormat(format), arena);
  try {
    return Buffer.from(value.expose()).toString('latin1');
  } finally {
    value.wipe();
  }
}

test('as others read it: so many bytes, in their alphabet, with the padding that belongs there', (t) => {
  for (let n = 8; n < 80; n++) {
    const base64 = drawn(`base64:${n}`);
    t.is(Buffer.from(base64, 'base64').length, n);
    t.is(Buffer.from(base64, 'base64').toString('base64'), base64);
    const url = drawn(`base64url:${n}`);
    t.is(Buffer.from(url, 'base64url').length, n);
    t.is(Buffer.from(url, 'base64url').toString('base64url'), url);
    t.regex(drawn(`hex:${n}`), new RegExp(`^[0-9a-f]{${2 * n}}$`));
    t.regex(drawn(`alnum:${n}`), new RegExp(`^[A-Za-z0-9]{${n}}$`));
  }
  t.is(drawn('base64:4096').length, 5464);
  t.is(drawn('alnum:4096').length, 4096);
});

test('no two are alike, and every digit comes as often as the others', (t) => {
  for (const format of ['base64:16', 'base64url:16', 'hex:16', 'alnum:22']) {
    const all = Array.from({ length: 200 }, () => drawn(format));
    t.is(new Set(all).size, 200, format);
  }
  for (const [format, digits] of [
    ['alnum:4096', 62],
    ['hex:2048', 16],
    ['base64:3072', 64],
    ['base64url:3072', 64],
  ] as const) {
    const counts = new Map<string, number>();
    for (let round = 0; round < 50; round++)
      for (const digit of drawn(format)) counts.set(digit, (counts.get(digit) ?? 0) + 1);
    t.is(counts.size, digits, format);
    const expected = (50 * 4096) / digits;
    // Six standard deviations.
    for (const [digit, count] of counts)
      t.true(Math.abs(count - expected) < 6 * Math.sqrt(expected), `${format} ${digit}: ${count}`);
  }
});

test('nothing but the value stays in the arena, and nothing when there is no room', (t) => {
  const before = arena.facts().pieces;
  const value = generateValue({ kind: 'base64', count: 32 }, arena);
  t.is(arena.facts().pieces, before + 1);
  value.wipe();
  const small = openArena(4096);
  t.throws(() => generateValue({ kind: 'hex', count: 4096 }, small), { instanceOf: InroError });
  t.is(small.facts().pieces, 0);
});

test('what is no format is refused, and what is too short to be a secret', (t) => {
  for (const wrong of [
    '',
    'base64',
    'base64:',
    'base64:7',
    'base64:4097',
    'base32:32',
    'hex:-8',
    'hex:8.5',
    'HEX:32',
  ])
    refuses(t, () => parseValueFormat(wrong), 'bad_input', /is no format for a value/);
});
