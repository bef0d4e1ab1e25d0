/** A value that is read byte by byte is what a parser makes of it, or is refused: never another one. */
import test from 'ava';
import fc from 'fast-check';
import { parse, Scalar, stringify, Document } from 'yaml';
import { masked } from '../../../src/cli/manifest/mask.js';
import { Source } from '../../../src/cli/manifest/source.js';
import { openArena } from '../../../src/crypto/arena.js';
import { InroError } from '../../../src/model/error.js';
import { fakePlaintext } from '../../support/fake_arena.js';

const arena = openArena(4 * 1024 * 1024);

/** By key: what stands under `d`; or why it cannot be read. */
function valuesOf(text: string, encoding: 'base64' | 'text' = 'text'): Map<string, string | InroError> {
  const source = new Source(fakePlaintext(text));
  const [document] = source.documents;
  if (document === undefined) return new Map();
  const flaw = source.flaw(document);
  if (flaw !== undefined) return new Map([['', new InroError('bad_input', flaw)]]);
  const under = source.entries(document.contents)?.find(({ key }) => key === 'd');
  return new Map<string, string | InroError>(
    (source.entries(under?.node) ?? []).map((entry) => {
      try {
        const value = source.value(entry, encoding, arena);
        const read = Buffer.from(value.expose()).toString();
        value.wipe();
        return [entry.key, read] as const;
      } catch (error) {
        if (!(error instanceof InroError) || error.code !== 'bad_input') throw error;
        return [entry.key, error] as const;
      }
    }),
  );
}

test('a mask has the structure of the file, and none of its words', (t) => {
  t.is(
    masked(Buffer.from('apiVersion: v1\ndata: {a: "x\\"y\\\\", b: \'q\'}\n# |2 |3\ns: |2-\n  ä b\n')),
    'xxxxxxxxxx: xx\nxxxx: {x: "xxxxxx", x: \'x\'}\n# |2 |3\nx: |2-\n  xx x\n',
  );
  t.false(masked(Buffer.from('password: hunter2 |9a >8b')).includes('9'));
});

for (const [yaml, value] of [
  ['d: {k: plain}', 'plain'],
  ['d: {k: a:b#c}', 'a:b#c'],
  ["d: {k: 'it''s'}", "it's"],
  ["d: {k: 'C:\\'}", 'C:\\'],
  ['d: {k: "a\\"b\\\\c\\n\\t\\u00e9\\ud83d\\ude00\\x41\\/"}', 'a"b\\c\n\té😀A/'],
  ['{"d":{"k":"\\u003d\\\\\\""}}', '=\\"'],
  ['d:\n  k: |\n    one\n      two\n\n    three\n', 'one\n  two\n\nthree\n'],
  ['d:\n  k: |-\n    one\n    two\n  l: x', 'one\ntwo'],
  ['d:\n  k: |+\n    one\n\n\n', 'one\n\n\n'],
  ['d:\n  k: |2\n      one\n    two\n', '  one\ntwo\n'],
  ['d:\r\n  k: |\r\n    one\r\n    two\r\n', 'one\ntwo\n'],
  ['d:\n  k: |\n    no end of line', 'no end of line\n'],
  ['d: {k: ünï}', 'ünï'],
  ['d:\n  k: | # why\n    one\n', 'one\n'],
] as const)
  test(`${JSON.stringify(yaml)} is ${JSON.stringify(value)}`, (t) => {
    t.is(valuesOf(yaml).get('k'), value);
    t.is((parse(yaml) as { d: { k: string } }).d.k, value);
  });

for (const [yaml, why] of [
  ['d:\n  k: >\n    one\n    two\n', /folds lines/],
  ['d:\n  k: one\n    two\n', /folds lines/],
  ['d:\n  k: "one\n    two"\n', /folds lines/],
  ['d: {k: [a]}', /is to be one text/],
  ['d: {k: ""}', /is empty/],
  ['d: {k: }', /is to be one text|is empty/],
  ['d: {k: "\\L"}', /escape/],
  ['d: {k: "\\ud800"}', /escape/],
] as const)
  test(`${JSON.stringify(yaml)} is refused`, (t) => {
    const value = valuesOf(yaml).get('k');
    t.regex(value instanceof InroError ? value.message : String(value), why);
  });

for (const yaml of [
  'd: {k: &a x, l: *a}',
  'd: {k: !!binary eA==}',
  'd: !x {k: y}',
  '&a d: {}',
  'd: {k: "x}',
  'd: {<<: *a}',
])
  test(`${JSON.stringify(yaml)} is refused whole, and without a word of it`, (t) => {
    const error = valuesOf(yaml).get('');
    t.regex(error instanceof InroError ? error.message : '', /anchor|is no YAML/);
  });

test('base64 is what it is, with space between', (t) => {
  for (const text of ['a', 'ab', 'abc', 'abcd', 'é😀']) {
    const base64 = Buffer.from(text).toString('base64');
    const wrapped = base64.replace(/(..)/g, '$1\n    ');
    for (const form of [
      `d: {k: ${base64}}`,
      `d: {k: "${base64.replaceAll('=', '\\u003d')}"}`,
      `d:\n  k: |\n    ${wrapped}\n`,
      `d:\n  k: >-\n    ${wrapped}\n`,
    ])
      t.is(valuesOf(form, 'base64').get('k'), text, form);
  }
  for (const bad of ['YQ', 'YQ=', 'YQ===', 'Y', 'Y===', '=', 'YQ==YQ==', 'Y*==', 'YWI-', '"YQ\\u00e4="'])
    t.true(valuesOf(`d: {k: ${bad}}`, 'base64').get('k') instanceof InroError, bad);
});

test('base64 of any bytes', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 100 }), (bytes) => {
      const source = new Source(fakePlaintext(`d: {k: ${Buffer.from(bytes).toString('base64')}}`));
      const [d] = source.entries(source.documents[0]?.contents) ?? [];
      const [entry] = source.entries(d?.node) ?? [];
      if (entry === undefined) return t.fail();
      const value = source.value(entry, 'base64', arena);
      t.deepEqual([...value.expose()], [...bytes]);
      value.wipe();
    }),
  );
});

const pieces = [
  '\\',
  '"',
  "'",
  ': ',
  ':',
  '#',
  ' #',
  '\n',
  '  ',
  '-',
  '- ',
  '|',
  '>',
  '2',
  '+',
  'a',
  'word',
  'é',
  '😀',
  '\t',
];
const more = [
  '&',
  '*',
  '!',
  '{',
  '}',
  '[',
  ']',
  ',',
  '%',
  '@',
  '`',
  '?',
  '...',
  '---',
  '~',
  'null',
  '=',
  '<<',
  '\u2028',
  '\u0085',
];
const anyValue = fc
  .array(fc.constantFrom(...pieces, ...more), { minLength: 1, maxLength: 12 })
  .map((all) => all.join(''));
const anyKey = fc.stringMatching(/^[a-z0-9._-]{1,12}$/);
const styles = [
  Scalar.PLAIN,
  Scalar.QUOTE_DOUBLE,
  Scalar.QUOTE_SINGLE,
  Scalar.BLOCK_LITERAL,
  Scalar.BLOCK_FOLDED,
] as const;

function parsed(text: string): Record<string, unknown> | undefined {
  try {
    return (parse(text) as { d: Record<string, unknown> }).d;
  } catch {
    return undefined;
  }
}

test('what YAML writes in any style is read as it was, or refused', (t) => {
  let [read, refused] = [0, 0];
  fc.assert(
    fc.property(
      fc.dictionary(anyKey, fc.tuple(anyValue, fc.constantFrom(...styles)), { minKeys: 1 }),
      (all) => {
        const document = new Document({ d: {} });
        for (const [key, [value, style]] of Object.entries(all)) {
          const scalar = new Scalar(value);
          scalar.type = style;
          document.setIn(['d', key], scalar);
        }
        const text = stringify(document, { lineWidth: 0 });
        const expected = parsed(text);
        // Not all that the writer writes is read by the parser that it comes with.
        fc.pre(expected !== undefined);
        for (const [key, value] of valuesOf(text)) {
          if (value instanceof InroError) refused++;
          else {
            read++;
            t.is(value, String(expected?.[key]), text);
          }
        }
      },
    ),
    { numRuns: 2000 },
  );
  t.log(`${read} read, ${refused} refused`);
  t.true(read > refused);
});

test('what JSON writes is read as it was', (t) => {
  fc.assert(
    fc.property(fc.dictionary(anyKey, anyValue, { minKeys: 1 }), (all) => {
      for (const indent of [0, 2]) {
        const found = valuesOf(JSON.stringify({ d: all }, undefined, indent));
        for (const [key, value] of Object.entries(all)) t.is(found.get(key), value);
      }
    }),
    { numRuns: 500 },
  );
});
