/** A value that nobody has seen: drawn and written in the arena, byte by byte, so that no string of it ever exists. */
import { randomFillSync } from 'node:crypto';
import { InroError } from '../model/error.js';
import { quoted } from '../model/name.js';
import type { Arena } from './arena.js';
import type { Plaintext } from './plaintext.js';

const letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';
const digits = {
  base64: Buffer.from(`${letters}+/`),
  base64url: Buffer.from(`${letters}-_`),
  hex: Buffer.from('0123456789abcdef'),
  alnum: Buffer.from(letters),
};
const formats = Object.keys(digits) as (keyof typeof digits)[];
const [least, most] = [8, 4096];
const padding = '='.charCodeAt(0);

export interface ValueFormat {
  kind: keyof typeof digits;
  /** Random bytes that are written so; of alnum characters. */
  count: number;
}

/** @param text `base64:32`: 32 random bytes in base64. @throws bad_input. */
export function parseValueFormat(text: string): ValueFormat {
  const [, name, number] = /^([a-z0-9]+):(\d{1,6})$/.exec(text) ?? [];
  const kind = formats.find((one) => one === name);
  const count = Number(number);
  if (kind !== undefined && count >= least && count <= most) return { kind, count };
  throw new InroError('bad_input', `${quoted(text)} is no format for a value`, {
    remedy: `write base64:32, base64url:32 or hex:32 (random bytes, so encoded), or alnum:24 (characters); ${least} to ${most} of them`,
  });
}

/** @throws arena_full. The caller wipes. */
export function generateValue({ kind, count }: ValueFormat, arena: Arena): Plaintext {
  switch (kind) {
    case 'alnum':
      return drawn(count, arena);
    case 'hex':
      return encoded(count, 2 * count, 4, digits.hex, arena);
    case 'base64':
      return encoded(count, 4 * Math.ceil(count / 3), 6, digits.base64, arena);
    case 'base64url':
      return encoded(count, Math.ceil((4 * count) / 3), 6, digits.base64url, arena);
  }
}

/** RFC 4648: so many bits to a digit, the highest first; what is left of the length is padding. */
function encoded(count: number, length: number, bits: number, alphabet: Uint8Array, arena: Arena): Plaintext {
  const raw = arena.take(count);
  try {
    const bytes = randomFillSync(raw.expose());
    const value = arena.take(length);
    const out = value.expose();
    const digitsCount = Math.ceil((8 * count) / bits);
    for (let n = 0; n < digitsCount; n++) {
      const from = n * bits;
      const pair = ((bytes[from >> 3] as number) << 8) | (bytes[(from >> 3) + 1] ?? 0);
      out[n] = alphabet[(pair >> (16 - bits - (from & 7))) & ((1 << bits) - 1)] as number;
    }
    out.fill(padding, digitsCount);
    return value;
  } finally {
    raw.wipe();
  }
}

/** Each letter and digit as likely as the others: bytes beyond the last multiple of their number are drawn again. */
function drawn(length: number, arena: Arena): Plaintext {
  const alphabet = digits.alnum;
  const fair = 256 - (256 % alphabet.length);
  const raw = arena.take(64);
  try {
    const bytes = raw.expose();
    const value = arena.take(length);
    const out = value.expose();
    let n = 0;
    while (n < length) {
      randomFillSync(bytes);
      for (let at = 0; at < bytes.length && n < length; at++) {
        const byte = bytes[at] as number;
        if (byte < fair) out[n++] = alphabet[byte % alphabet.length] as number;
      }
    }
    return value;
  } finally {
    raw.wipe();
  }
}
