import test from 'ava';
import { asInroError, errorCodes, InroError, type ErrorCode } from '../../src/model/error.js';

test('an error says what failed, why, and what to do', (t) => {
  const cause = new Error('EACCES');
  const error = new InroError('state_unusable', 'the folder cannot be used', {
    remedy: 'choose another',
    cause,
  });
  t.like(error, {
    code: 'state_unusable',
    kind: 'fatal',
    message: 'the folder cannot be used',
    remedy: 'choose another',
    cause,
  });
  t.true(error instanceof Error);
});

test('each code says whether trying again helps', (t) => {
  for (const code of Object.keys(errorCodes) as ErrorCode[])
    t.is(new InroError(code, 'x').kind, errorCodes[code]);
  t.is(new InroError('unreachable', 'x').kind, 'temporary');
  t.is(new InroError('bad_input', 'x').kind, 'fatal');
});

test('what nobody foresaw is internal, with its own words and cause', (t) => {
  const known = new InroError('conflict', 'x');
  t.is(asInroError(known), known);
  const unknown = new TypeError('x is not a function');
  t.like(asInroError(unknown), { code: 'internal', message: 'x is not a function', cause: unknown });
  t.is(asInroError('text').message, 'text');
  t.is(asInroError(undefined).code, 'internal');
});
