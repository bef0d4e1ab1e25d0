/** A scalar's text, byte by byte from the file: what a parser would make of it, without a string of it. */
import type { Scalar } from 'yaml';

/** Where bytes are written to, one after the other. */
export class Sink {
  readonly #bytes: Uint8Array;
  length = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  put(byte: number): void {
    if (this.length >= this.#bytes.length) throw new RangeError('a scalar is longer than its source');
    this.#bytes[this.length++] = byte;
  }

  get written(): Uint8Array {
    return this.#bytes.subarray(0, this.length);
  }
}

/** Why it cannot be read here. */
export type Unreadable = 'folds lines' | 'has an escape that is not known';

/**
 * @param node of the mask.
 * @param keyColumn of the key before it, for a block that says its indentation.
 */
export function readScalar(
  bytes: Uint8Array,
  node: Scalar,
  sink: Sink,
  keyColumn: number,
): Unreadable | undefined {
  const source = sourceOf(bytes, node);
  switch (node.type) {
    case 'BLOCK_LITERAL':
      return literal(source, sink, keyColumn);
    case 'BLOCK_FOLDED':
      return 'folds lines';
    case 'QUOTE_DOUBLE':
      return isOneLine(source) ? doubleQuoted(source.subarray(1, -1), sink) : 'folds lines';
    case 'QUOTE_SINGLE':
      return isOneLine(source) ? singleQuoted(source.subarray(1, -1), sink) : 'folds lines';
    default:
      if (!isOneLine(source)) return 'folds lines';
      for (const byte of source) sink.put(byte);
      return undefined;
  }
}

/** All of it but the header of a block, for who does not look at white space. */
export function readLoosely(bytes: Uint8Array, node: Scalar, sink: Sink): Unreadable | undefined {
  const source = sourceOf(bytes, node);
  switch (node.type) {
    case 'BLOCK_LITERAL':
    case 'BLOCK_FOLDED':
      for (const byte of source.subarray(lineEnd(source, 0))) sink.put(byte);
      return undefined;
    case 'QUOTE_DOUBLE':
      return doubleQuoted(source.subarray(1, -1), sink);
    default:
      for (const byte of node.type === 'QUOTE_SINGLE' ? source.subarray(1, -1) : source) sink.put(byte);
      return undefined;
  }
}

export function sourceOf(bytes: Uint8Array, { range }: Scalar): Uint8Array {
  const [from, to] = range ?? [0, 0];
  return bytes.subarray(from, to);
}

const [lf, cr, space, apostrophe, backslash] = [0x0a, 0x0d, 0x20, 0x27, 0x5c];

function isOneLine(source: Uint8Array): boolean {
  return !source.includes(lf) && !source.includes(cr);
}

function singleQuoted(inside: Uint8Array, sink: Sink): undefined {
  for (let at = 0; at < inside.length; at++) {
    sink.put(inside[at] as number);
    if (inside[at] === apostrophe) at++;
  }
}

/** YAML 1.2, 5.7, but `\L` and `\P`, which are longer than they are written: a scalar never is. */
const escapes = new Map<number, number>(
  Object.entries({
    '0': 0,
    a: 7,
    b: 8,
    t: 9,
    '\t': 9,
    n: 10,
    v: 11,
    f: 12,
    r: 13,
    e: 27,
    ' ': 0x20,
    '"': 0x22,
    '/': 0x2f,
    '\\': 0x5c,
    N: 0x85,
    _: 0xa0,
  }).map(([key, code]) => [key.charCodeAt(0), code]),
);
const hexDigits = new Map([
  [0x78, 2],
  [0x75, 4],
  [0x55, 8],
]);

function doubleQuoted(inside: Uint8Array, sink: Sink): Unreadable | undefined {
  for (let at = 0; at < inside.length; at++) {
    if (inside[at] !== backslash) {
      sink.put(inside[at] as number);
      continue;
    }
    const escape = inside[++at] ?? 0;
    const count = hexDigits.get(escape);
    let code = count === undefined ? escapes.get(escape) : hex(inside, at + 1, count);
    at += count ?? 0;
    if (code !== undefined && code >= 0xd800 && code < 0xdc00 && inside[at + 1] === backslash) {
      const low = hex(inside, at + 3, 4);
      if (inside[at + 2] !== 0x75 || low === undefined || low < 0xdc00 || low > 0xdfff)
        return 'has an escape that is not known';
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
      at += 6;
    }
    if (code === undefined || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
      return 'has an escape that is not known';
    putCode(code, sink);
  }
  return undefined;
}

function hex(bytes: Uint8Array, from: number, count: number): number | undefined {
  let code = 0;
  for (let at = from; at < from + count; at++) {
    const byte = bytes[at] ?? 0;
    const lower = byte | 0x20;
    const digit =
      byte >= 0x30 && byte <= 0x39 ? byte - 0x30 : lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1;
    if (digit < 0) return undefined;
    code = code * 16 + digit;
  }
  return code;
}

/** UTF-8. */
function putCode(code: number, sink: Sink): void {
  const tail = (shift: number): void => sink.put(0x80 | ((code >> shift) & 0x3f));
  if (code < 0x80) return sink.put(code);
  if (code < 0x800) sink.put(0xc0 | (code >> 6));
  else if (code < 0x10000) {
    sink.put(0xe0 | (code >> 12));
    tail(6);
  } else {
    sink.put(0xf0 | (code >> 18));
    tail(12);
    tail(6);
  }
  tail(0);
}

/** YAML 1.2, 8.1: lines without their indentation, and the line ends behind the last as its header says. */
function literal(source: Uint8Array, sink: Sink, keyColumn: number): undefined {
  const bodyAt = lineEnd(source, 0);
  const header = source.subarray(0, bodyAt);
  const signOrDigit = (test: (byte: number) => boolean): number | undefined => {
    for (const byte of header.subarray(1, 3)) if (test(byte)) return byte;
    return undefined;
  };
  const digit = signOrDigit((byte) => byte >= 0x31 && byte <= 0x39);
  const sign = signOrDigit((byte) => byte === 0x2b || byte === 0x2d);
  const indent = digit === undefined ? firstIndent(source, bodyAt) : keyColumn + digit - 0x30;
  const chompAt = contentEnd(source, bodyAt);
  const put = (from: number, to: number): void => {
    for (let at = from, next; at < to; at = next) {
      next = lineEnd(source, at);
      if (at > bodyAt) sink.put(lf);
      for (const byte of contentOf(source, at, next).subarray(indent)) sink.put(byte);
    }
  };
  put(bodyAt, chompAt);
  if (sign === 0x2b) put(chompAt, source.length);
  if (sign !== 0x2d && chompAt > bodyAt) sink.put(lf);
}

/** Behind the last line that is not blank. */
function contentEnd(source: Uint8Array, bodyAt: number): number {
  let end = bodyAt;
  for (let at = bodyAt, next; at < source.length; at = next) {
    next = lineEnd(source, at);
    if (contentOf(source, at, next).some((byte) => byte !== space)) end = next;
  }
  return end;
}

/** Where the next line begins. */
function lineEnd(bytes: Uint8Array, from: number): number {
  const end = bytes.indexOf(lf, from);
  return end < 0 ? bytes.length : end + 1;
}

/** Without what ends it. */
function contentOf(bytes: Uint8Array, from: number, next: number): Uint8Array {
  let to = next;
  if (bytes[to - 1] === lf) to--;
  if (to > from && bytes[to - 1] === cr) to--;
  return bytes.subarray(from, to);
}

function firstIndent(source: Uint8Array, bodyAt: number): number {
  for (let at = bodyAt; at < source.length;) {
    const next = lineEnd(source, at);
    const line = contentOf(source, at, next);
    const indent = line.findIndex((byte) => byte !== space);
    if (indent >= 0) return indent;
    at = next;
  }
  return 0;
}
