/**
 * A join token lets a host join a cluster and tells it which cluster that is:
 *
 *   INRO-JOIN-1-<SHA-256 of the root certificate's DER, base 36, 50 characters>-<secret, base 36, 25 characters>
 *
 * The digest lets the host recognise the root at first contact, over a connection that proves nothing yet; the
 * secret lets the manager recognise the host (swarmkit ca/config.go; Swarm's SWMTKN-1 has the same two parts).
 * Nothing else is in it: what it is good for, and for how long, is kept by the manager.
 */
import { inspect } from 'node:util';
import { constantTimeEqual, sha256 } from '../crypto/signing.js';
import { joinTokenStatement } from '../crypto/statement.js';
import type { Random } from '../model/clock.js';
import { InroError } from '../model/error.js';
import { limits } from './limits.js';

export const joinTokenPrefix = 'INRO-JOIN-';
const prefix = joinTokenPrefix;
const version = '1-';
const digestBytes = 32;
const digestChars = 50; // 256 bits / log2(36) = 49.5
const secretChars = 25; // 128 bits / log2(36) = 24.8
export const joinTokenChars = prefix.length + version.length + digestChars + 1 + secretChars;

/** Shows itself only to who calls `reveal`: not to JSON, templates or console.log. */
export class JoinToken {
  /** SHA-256 of the root's DER, 32 bytes; everybody may know it. */
  readonly rootDigest: Uint8Array;
  readonly #secret: Uint8Array;

  constructor(rootDigest: Uint8Array, secret: Uint8Array) {
    this.rootDigest = rootDigest;
    this.#secret = secret;
  }

  /** The token as an operator copies it. Print it on request; never log it. */
  reveal(): string {
    const digest = toBase36(this.rootDigest, digestChars);
    return `${prefix}${version}${digest}-${toBase36(this.#secret, secretChars)}`;
  }

  /** @param rootDer the bytes as they came, before anything else is done with them. */
  digestMatches(rootDer: Uint8Array): boolean {
    return constantTimeEqual(this.rootDigest, sha256(rootDer));
  }

  /** True when the other token has the same secret, whichever root it names. */
  secretMatches(other: JoinToken): boolean {
    return constantTimeEqual(sha256(this.#secret), sha256(other.#secret));
  }

  /** The same secret, under another root. */
  under(rootDer: Uint8Array): JoinToken {
    return new JoinToken(sha256(rootDer), this.#secret);
  }

  /** What a manager keeps of a token that was made to measure: 32 bytes. */
  secretHash(clusterId: string): Uint8Array {
    return sha256(joinTokenStatement(clusterId, this.#secret));
  }

  toString(): string {
    return '[join token]';
  }

  toJSON(): string {
    return this.toString();
  }

  [inspect.custom](): string {
    return this.toString();
  }
}

/** A token with a new secret. */
export function makeJoinToken(rootDer: Uint8Array, random: Random): JoinToken {
  return new JoinToken(sha256(rootDer), Uint8Array.from(random(limits.joinSecretBytes)));
}

/**
 * @param text as typed or pasted; white space around it is ignored.
 * @throws bad_token with words for each way in which a copy goes wrong, and never with a part of the text.
 */
export function parseJoinToken(text: string): JoinToken {
  const token = text.trim();
  for (const [isWrong, say] of faults) {
    if (isWrong(token)) throw new InroError('bad_token', say(token), { remedy });
  }
  const digest = fromBase36(token.slice(bodyAt, secretAt - 1), digestBytes);
  const secret = fromBase36(token.slice(secretAt), limits.joinSecretBytes);
  if (digest === undefined || secret === undefined) {
    throw new InroError(
      'bad_token',
      'the join token is damaged: its number is larger than any join token has',
      { remedy },
    );
  }
  return new JoinToken(digest, secret);
}

const bodyAt = prefix.length + version.length;
const secretAt = bodyAt + digestChars + 1;
const remedy = `copy the whole token from a manager again: it begins with ${prefix}, has ${joinTokenChars} characters and stands on one line`;

const isCutHead = (token: string): boolean => (prefix + version).startsWith(token);
const firstBadAt = (token: string): number => token.slice(bodyAt).search(/[^0-9a-z-]/);

/** In order: the first that is true names the fault. */
const faults: readonly [isWrong: (token: string) => boolean, say: (token: string) => string][] = [
  [(token) => token === '', () => 'the join token is empty'],
  [isCutHead, (token) => `the join token is cut: it has ${token.length} of ${joinTokenChars} characters`],
  [(token) => !token.startsWith(prefix), () => 'the text is not a join token of inro'],
  [
    (token) => !/^[0-9]{1,4}-/.test(token.slice(prefix.length)),
    () => `the join token is damaged: after ${prefix} must come a version and '-'`,
  ],
  [
    (token) => !token.startsWith(version, prefix.length),
    () => 'the join token is of a version that this inro does not know',
  ],
  [
    (token) => firstBadAt(token) >= 0,
    (token) =>
      /\s/.test(token)
        ? 'the join token has white space in it: it was broken over lines, or something else was copied with it'
        : `the join token has a bad character at position ${bodyAt + firstBadAt(token) + 1}: only 0-9 and a-z may stand there`,
  ],
  [
    (token) => token.length < joinTokenChars,
    (token) => `the join token is cut: it has ${token.length} of ${joinTokenChars} characters`,
  ],
  [
    (token) => token.length > joinTokenChars,
    (token) => `the join token is too long: it has ${token.length} characters instead of ${joinTokenChars}`,
  ],
  [
    (token) => token.lastIndexOf('-') !== secretAt - 1 || token.indexOf('-', bodyAt) !== secretAt - 1,
    () =>
      `the join token is damaged: its last '-' must be the only one after the version, at position ${secretAt}`,
  ],
];

function toBase36(bytes: Uint8Array, chars: number): string {
  return BigInt(`0x${Buffer.from(bytes).toString('hex')}`)
    .toString(36)
    .padStart(chars, '0');
}

/** @returns undefined when the number does not fit: then two texts would mean one token. */
function fromBase36(text: string, bytes: number): Uint8Array | undefined {
  let value = 0n;
  for (const char of text) value = value * 36n + BigInt(Number.parseInt(char, 36));
  if (value >= 1n << BigInt(bytes * 8)) return undefined;
  return Uint8Array.from(Buffer.from(value.toString(16).padStart(bytes * 2, '0'), 'hex'));
}
