/** Asserting a refusal: an InroError of one code, whose words fit. */
import type { ExecutionContext } from 'ava';
import { InroError, type ErrorCode } from '../../src/model/error.js';

export function refuses(
  t: ExecutionContext,
  act: () => unknown,
  code: ErrorCode,
  words: RegExp = /./,
): InroError {
  return checked(t, t.throws(act, { instanceOf: InroError }), code, words);
}

export async function refusesAsync(
  t: ExecutionContext,
  act: Promise<unknown>,
  code: ErrorCode,
  words: RegExp = /./,
): Promise<InroError> {
  return checked(t, await t.throwsAsync(act, { instanceOf: InroError }), code, words);
}

function checked(t: ExecutionContext, error: InroError, code: ErrorCode, words: RegExp): InroError {
  t.is(error.code, code, error.message);
  t.regex(error.message, words);
  return error;
}
