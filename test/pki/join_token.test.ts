import { randomBytes } from 'node:crypto';
import { inspect } from 'node:util';
import test from 'ava';
import fc from 'fast-check';
import { InroError } from '../../src/model/error.js';
import { joinTokenChars, makeJoinToken, parseJoinToken } from '../../src/pki/join_token.js';
import { fakeCluster } from '../support/fake_authority.js';

const { rootDer } = fakeCluster();
const token = makeJoinToken(rootDer, randomBytes);
const text = token.reveal();

test('a token has its two parts, and parses back', (t) => {
  t.regex(text, /^INRO-JOIN-1-[0-9a-z]{50}-[0-9a-z]{25}$/);
  t.is(text.length, joinTokenChars);
  const parsed = parseJoinToken(`  ${text}\r\n`);
  t.is(parsed.reveal(), text);
  t.true(parsed.secretMatches(token));
});

test('the digest recognises its root and no other', (t) => {
  t.true(parseJoinToken(text).digestMatches(rootDer));
  t.false(parseJoinToken(text).digestMatches(fakeCluster().rootDer));
  t.false(parseJoinToken(text).digestMatches(new Uint8Array()));
});

test('a new token for the same root has another secret', (t) => {
  const rotated = makeJoinToken(rootDer, randomBytes);
  t.false(rotated.secretMatches(token));
  t.deepEqual(rotated.rootDigest, token.rootDigest);
});

test('a token does not show itself by accident', (t) => {
  for (const shown of [
    JSON.stringify({ token }),
    String(token),
    inspect({ token }),
    inspect(token, { showHidden: true }),
  ]) {
    t.true(shown.includes('[join token]'), shown);
    t.false(shown.includes(text.slice(63)), shown);
  }
});

const wrong: [name: string, given: string, message: RegExp][] = [
  ['empty', ' \n', /^the join token is empty$/],
  ['cut in the head', 'INRO-JO', /^the join token is cut: it has 7 of 88 characters$/],
  ['cut after the version', 'INRO-JOIN-1-', /^the join token is cut: it has 12 of 88 characters$/],
  ['cut in the digest', text.slice(0, 40), /^the join token is cut: it has 40 of 88 characters$/],
  ['cut by one', text.slice(0, -1), /^the join token is cut: it has 87 of 88 characters$/],
  ['a token of Swarm', text.replace('INRO-JOIN', 'SWMTKN'), /^the text is not a join token of inro$/],
  ['lower case', text.toLowerCase(), /^the text is not a join token of inro$/],
  ['version 2', text.replace('-1-', '-2-'), /version that this inro does not know/],
  ['version 12', text.replace('-1-', '-12-'), /version that this inro does not know/],
  [
    'no version',
    text.replace('-1-', '-'),
    /^the join token is damaged: after INRO-JOIN- must come a version/,
  ],
  ['upper case', text.slice(0, 20) + 'X' + text.slice(21), /bad character at position 21: only 0-9 and a-z/],
  ['broken over lines', `${text.slice(0, 40)}\n${text.slice(40)}`, /white space in it/],
  ['pasted twice', text + text.toLowerCase(), /too long: it has 176 characters instead of 88/],
  ['one too many', `${text}0`, /too long: it has 89 characters instead of 88/],
  [
    'a dash elsewhere',
    `${text.slice(0, 61)}-${text.slice(61, 62)}${text.slice(63)}`,
    /must be the only one .*at position 63$/,
  ],
  ['a second dash', `${text.slice(0, 20)}-${text.slice(21)}`, /must be the only one/],
  ['digest of more than 256 bits', `INRO-JOIN-1-${'z'.repeat(50)}-${text.slice(63)}`, /number is larger/],
  ['secret of more than 128 bits', `${text.slice(0, 63)}${'z'.repeat(25)}`, /number is larger/],
];

for (const [name, given, message] of wrong) {
  test(`refused with words: ${name}`, (t) => {
    const error = t.throws(() => parseJoinToken(given), { instanceOf: InroError, message });
    t.is(error?.code, 'bad_token');
    t.regex(error?.remedy ?? '', /88 characters/);
  });
}

/** Any run of 6 characters of the secret or the digest would be a leak. */
function leaks(error: InroError): boolean {
  const said = `${error.message} ${error.remedy} ${inspect(error.cause)}`;
  for (let at = 12; at + 6 <= text.length; at++) if (said.includes(text.slice(at, at + 6))) return true;
  return false;
}

test('every token that can be drawn parses back to itself', (t) => {
  const bytes = (n: number) => fc.uint8Array({ minLength: n, maxLength: n });
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), bytes(16), (root, secret) => {
      const drawn = makeJoinToken(root, () => secret);
      const revealed = drawn.reveal();
      const parsed = parseJoinToken(revealed);
      return revealed.length === joinTokenChars && parsed.reveal() === revealed && parsed.digestMatches(root);
    }),
  );
  t.pass();
});

test('any edit of a token is refused without quoting it, or is another token', (t) => {
  const edit = fc.record({
    at: fc.nat(88),
    drop: fc.nat(3),
    put: fc.string({ maxLength: 3, unit: 'binary' }),
  });
  fc.assert(
    fc.property(edit, ({ at, drop, put }) => {
      const edited = text.slice(0, at) + put + text.slice(at + drop);
      try {
        return parseJoinToken(edited).reveal() === edited.trim();
      } catch (error) {
        return error instanceof InroError && error.code === 'bad_token' && !leaks(error);
      }
    }),
    { numRuns: 2000 },
  );
  t.pass();
});

test('any text is a token or a bad_token error that does not quote it', (t) => {
  const anything = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 300 }),
    fc.string({ maxLength: 99 }).map((s) => `INRO-JOIN-${s}`),
  );
  fc.assert(
    fc.property(anything, (given) => {
      try {
        return parseJoinToken(given).reveal() === given.trim();
      } catch (error) {
        const quotes = given.trim().length > 12 && (error as Error).message.includes(given.trim());
        return error instanceof InroError && error.code === 'bad_token' && !quotes;
      }
    }),
    { numRuns: 2000 },
  );
  t.pass();
});
