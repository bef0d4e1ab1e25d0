/**
 * The unlock key of a manager, as an operator keeps it:
 *
 *   INRO-UNLOCK-1-<the key and a check of it, base 32 (RFC 4648, lower case), 56 characters>
 *
 * 32 random bytes, then the first 3 bytes of their SHA-256: a slip of the pen is told from another key. It is read and written in the
 * arena; who shows it makes a text of it.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { InroError } from '../model/error.js';
import type { Arena } from './arena.js';
import { drawKey, keyBytes } from './exchange.js';
import type { Plaintext } from './plaintext.js';

export const unlockKeyPrefix = 'INRO-UNLOCK-';
const head = `${unlockKeyPrefix}1-`;
const alphabet = 'abcdefghijklmnopqrstuvwxyz234567';
const checkBytes = 3;
const bodyChars = ((keyBytes + checkBytes) * 8) / 5;
export const unlockKeyChars = head.length + bodyChars;

export { drawKey as drawUnlockKey };

/** @param into `unlockKeyChars` bytes of ASCII. */
export function writeUnlockKey(key: Plaintext, into: Uint8Array): void {
  const secret = key.expose();
  const check = checkOf(secret);
  into.set(Buffer.from(head));
  let at = head.length;
  let bits = 0;
  let held = 0;
  for (let n = 0; n < keyBytes + checkBytes; n++) {
    held = ((held << 8) | ((n < keyBytes ? secret[n] : check[n - keyBytes]) as number)) & 0xffff;
    for (bits += 8; bits >= 5; bits -= 5) into[at++] = alphabet.charCodeAt((held >> (bits - 5)) & 31);
  }
}

/**
 * @param text ASCII, in the arena; white space around it is ignored.
 * @throws bad_input with words for each way in which a copy goes wrong, and never with a part of it.
 */
export function readUnlockKey(text: Uint8Array, arena: Arena): Plaintext {
  const typed = trimmed(text);
  const says = (why: string, remedy = howToGet): InroError =>
    new InroError('bad_input', `that is no unlock key: ${why}`, { remedy });
  if (typed.length === 0) throw says('there is nothing');
  const start = Buffer.from(typed.subarray(0, head.length)).toString('latin1');
  if (start !== head) {
    if (start.startsWith(unlockKeyPrefix))
      throw says('it is of a later version than this program knows', 'use the inro that made it');
    throw says(`it does not begin with ${head}`);
  }
  const body = typed.subarray(head.length);
  if (body.length !== bodyChars) throw says(`it has ${typed.length} characters instead of ${unlockKeyChars}`);
  const key = arena.take(keyBytes);
  const check = new Uint8Array(checkBytes);
  try {
    decode(body, key.expose(), check, says);
    if (!timingSafeEqual(check, checkOf(key.expose()))) throw says('a character is wrong');
    return key;
  } catch (error) {
    key.wipe();
    throw error;
  }
}

const howToGet =
  'the manager shows it while it is unlocked: inro manager unlock-key; it begins with INRO-UNLOCK-1-';

function decode(
  body: Uint8Array,
  key: Uint8Array,
  check: Uint8Array,
  says: (why: string) => InroError,
): void {
  let bits = 0;
  let held = 0;
  let at = 0;
  for (const char of body) {
    const five = alphabet.indexOf(String.fromCharCode(char));
    if (five < 0) throw says('it has a character that none has');
    held = ((held << 5) | five) & 0xffff;
    bits += 5;
    if (bits < 8) continue;
    bits -= 8;
    const byte = (held >> bits) & 0xff;
    if (at < keyBytes) key[at] = byte;
    else check[at - keyBytes] = byte;
    at++;
  }
}

function trimmed(text: Uint8Array): Uint8Array {
  const isSpace = (byte: number | undefined): boolean =>
    byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
  let [from, to] = [0, text.length];
  while (from < to && isSpace(text[from])) from++;
  while (to > from && isSpace(text[to - 1])) to--;
  return text.subarray(from, to);
}

function checkOf(key: Uint8Array): Uint8Array {
  return createHash('sha256').update('inro unlock key check\0').update(key).digest().subarray(0, checkBytes);
}
