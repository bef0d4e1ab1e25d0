import { randomBytes } from 'node:crypto';
import test from 'ava';
import fc from 'fast-check';
import { idChars, isId, newId } from '../../src/model/id.js';

test('whatever is drawn, an id is 25 characters of base 36', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 17, maxLength: 17 }), (drawn) => isId(newId(() => drawn))),
  );
  t.is(
    newId((n) => new Uint8Array(n)),
    '0'.repeat(idChars),
  );
  t.true(isId(newId((n) => new Uint8Array(n).fill(255))));
});

test('ids do not meet, and every place of them is drawn', (t) => {
  const ids = Array.from({ length: 2_000 }, () => newId(randomBytes));
  t.is(new Set(ids).size, ids.length);
  for (let place = 0; place < idChars; place++) {
    const seen = new Set(ids.map((id) => id[place]));
    t.true(seen.size > 30, `place ${place} takes ${seen.size} of 36 values`);
  }
});

test('what is no id', (t) => {
  const id = newId(randomBytes);
  for (const text of [
    '',
    id.slice(1),
    `${id}0`,
    id.toUpperCase().replace(/^./, 'A'),
    `${id.slice(1)}\n`,
    `${id}\n`,
    `../${id.slice(3)}`,
    `${id.slice(1)}é`,
  ])
    t.false(isId(text), JSON.stringify(text));
});
