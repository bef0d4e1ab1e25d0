/** Texts as bad as they come: control characters, astral planes, lone surrogates, and what inro treats specially. */
import fc from 'fast-check';

/** @param special parts that shall turn up often. */
export function anyText(special: readonly string[] = [], maxParts = 12): fc.Arbitrary<string> {
  const codePoint = fc.integer({ min: 0, max: 0x10ffff }).map((point) => String.fromCodePoint(point));
  const byte = fc.integer({ min: 0, max: 0xff }).map((code) => String.fromCharCode(code));
  const part = fc.oneof(
    codePoint,
    byte,
    fc.constantFrom('a', '0', '.', '-', '/', '\ud800', '\udfff', ...special),
  );
  return fc.array(part, { maxLength: maxParts }).map((parts) => parts.join(''));
}
