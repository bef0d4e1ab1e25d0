/**
 * YAML and JSON without their words: each byte that is not structure becomes an x, at its place. A parser finds in the mask what it
 * finds in the file, at the same offsets, and no value ever becomes a string that nobody can wipe.
 *
 * Kept are space and line ends, what YAML's structure is written with (YAML 1.2, 5.3), and the header of a block scalar. In double
 * quotes `\"` and `\\` are words like others; elsewhere a backslash in front of those is, too, and nothing is lost.
 */
const kept = new Set(Buffer.from('\t\n\r -:,[]{}"\'#&*!|>%@`?.'));
const x = 'x'.charCodeAt(0);
const [backslash, quote] = ['\\'.charCodeAt(0), '"'.charCodeAt(0)];

/** @returns as many characters as there are bytes, all of them ASCII. */
export function masked(bytes: Uint8Array): string {
  const out = new Uint8Array(new ArrayBuffer(bytes.length));
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at] as number;
    if (byte === backslash) {
      out[at] = x;
      const next = bytes[at + 1];
      if (next === backslash || next === quote) out[++at] = x;
      continue;
    }
    out[at] = kept.has(byte) ? byte : x;
    const header = headerLength(bytes, at);
    out.set(bytes.subarray(at + 1, at + 1 + header), at + 1);
    at += header;
  }
  return Buffer.from(out.buffer).toString('latin1');
}

/** How much behind `|` or `>` is an indentation or a sign: `2`, `-`, `2+`. */
function headerLength(bytes: Uint8Array, at: number): number {
  if (bytes[at] !== 0x7c && bytes[at] !== 0x3e) return 0;
  let length = 0;
  while (length < 3 && isHeader(bytes[at + 1 + length])) length++;
  const end = bytes[at + 1 + length];
  return length < 3 && (end === undefined || end <= 0x20) ? length : 0;
}

/** `+`, `-`, a digit. */
function isHeader(byte: number | undefined): boolean {
  return byte === 0x2b || byte === 0x2d || (byte !== undefined && byte >= 0x30 && byte <= 0x39);
}
