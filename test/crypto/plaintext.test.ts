import { format, inspect } from 'node:util';
import { serialize } from 'node:v8';
import { Writable } from 'node:stream';
import test from 'ava';
import { pino } from 'pino';
import { openArena } from '../../src/crypto/arena.js';
import type { Plaintext } from '../../src/crypto/plaintext.js';

const arena = openArena(1 << 20);
const marker = 'correct-horse-battery';
const placeholder = `[plaintext, ${marker.length} bytes]`;

function taken(text = marker): Plaintext {
  const plaintext = arena.take(text.length);
  plaintext.expose().set(Buffer.from(text));
  return plaintext;
}

/** In any form in which bytes get into a log. */
function leaks(text: string): boolean {
  const bytes = Buffer.from(marker);
  return [
    marker,
    bytes.toString('hex'),
    bytes.toString('base64').slice(0, 20),
    [...bytes].join(','),
    [...bytes].join(', '),
  ].some((form) => text.includes(form));
}

test('its bytes are in the arena, and whoever exposes them has them in place', (t) => {
  const plaintext = taken();
  t.is(plaintext.size, marker.length);
  t.is(Buffer.from(plaintext.expose()).toString(), marker);
  t.is(plaintext.expose().buffer, plaintext.expose().buffer, 'no copy is made');
  t.is(plaintext.exposePadded().length, marker.length + 32);
});

test('JSON, inspect and format show a placeholder', (t) => {
  const plaintext = taken();
  const nested = { secret: { value: plaintext }, list: [plaintext], map: new Map([['k', plaintext]]) };
  t.is(JSON.stringify(plaintext), JSON.stringify(placeholder));
  t.is(inspect(plaintext), placeholder);
  const options = { customInspect: false, showHidden: true, depth: 20, getters: true } as const;
  for (const shown of [
    JSON.stringify(nested),
    inspect(nested, { depth: 20 }),
    inspect(nested, options),
    inspect(plaintext, options),
    format('%o %O %j', plaintext, plaintext, nested),
    inspect(new Error('failed', { cause: plaintext })),
  ])
    t.false(leaks(shown), shown);
});

test('it does not become a string or a number', (t) => {
  const plaintext = taken();
  // What the types forbid, and an `any` somewhere would let through.
  const untyped = plaintext as unknown as string;
  for (const [name, attempt] of Object.entries({
    template: () => `value: ${untyped}`,
    concatenation: () => 'value: ' + untyped,
    String: () => [plaintext as unknown].map(String),
    join: () => [untyped].join(),
    Number: () => Number(untyped),
    'Buffer.from': () => Buffer.from(untyped),
    TextEncoder: () => new TextEncoder().encode(untyped),
    '== with a text': () => untyped == marker,
    '<': () => (untyped as unknown as number) < 1,
    'a property name': () => ({ [untyped]: 1 }),
  }))
    t.throws(attempt, { instanceOf: TypeError, message: /cannot be turned into/ }, name);
});

test('it has nothing to copy, clone or serialise', (t) => {
  const plaintext = taken();
  t.deepEqual(Object.getOwnPropertyNames(plaintext), []);
  t.deepEqual(Object.assign({}, plaintext), {});
  t.deepEqual(structuredClone(plaintext) as object, {});
  t.false(leaks(serialize(plaintext).toString('latin1')));
  t.deepEqual(Object.entries(plaintext), []);
});

test('pino logs the placeholder, or nothing, whatever way it is handed over', (t) => {
  const plaintext = taken();
  let logged = '';
  const sink = new Writable({
    write(chunk: Buffer, _encoding, done) {
      logged += chunk.toString();
      done();
    },
  });
  const log = pino({ level: 'trace' }, sink);
  log.info({ value: plaintext }, 'as a field');
  log.info({ deep: { deeper: [plaintext] } });
  log.info(plaintext);
  log.info('interpolated %o %O %j', plaintext, plaintext, { plaintext });
  log.child({ value: plaintext }).info('bound');
  log.error({ err: Object.assign(new Error('failed'), { value: plaintext, cause: plaintext }) });
  t.throws(() => log.info('as text %s', plaintext), { instanceOf: TypeError });
  t.is(logged.trim().split('\n').length, 6);
  t.false(leaks(logged), logged);
  t.true(logged.includes(placeholder));
});

test('wiped, it is empty for good, and its bytes are zero', (t) => {
  const plaintext = taken();
  const [whole, payload] = [plaintext.exposePadded(), plaintext.expose()];
  t.false(plaintext.wiped);
  plaintext.wipe();
  t.true(plaintext.wiped);
  t.deepEqual([whole.length, payload.length], [0, 0], 'views that were out see nothing any more');
  t.throws(() => plaintext.expose(), { instanceOf: TypeError });
  t.throws(() => plaintext.exposePadded(), { instanceOf: TypeError });
  t.is(plaintext.size, marker.length, 'its size is still known, for receipts');
  t.is(JSON.stringify({ plaintext }), JSON.stringify({ plaintext: placeholder }));
  plaintext.wipe();
  t.true(plaintext.wiped);
});

test('the next one at its place finds zeros', (t) => {
  const own = openArena(4_096);
  const first = own.take(64);
  first.exposePadded().fill(0x5a);
  first.wipe();
  const second = own.take(64);
  t.true(second.exposePadded().every((byte) => byte === 0));
  second.wipe();
  t.is(own.facts().pieces, 0);
});
