/**
 * Certificate requests (PKCS#10, RFC 2986). A request contributes its public key and the proof that the sender
 * has the private one; the names and extensions in it are not looked at (swarmkit ca/config.go CSRWhitelist).
 */
import {
  publicKeyOf,
  readPublicKey,
  signBytes,
  spkiOf,
  verifyBytes,
  type KeyObject,
} from '../crypto/signing.js';
import { InroError } from '../model/error.js';
import {
  bitString,
  contentOf,
  contextOf,
  fromBytes,
  integer,
  oid,
  parseDer,
  partsOf,
  sequence,
  tag,
  toBytes,
} from './der.js';
import type { Der } from './der.js';
import { ecdsaWithSha256 } from './issue.js';
import { limits } from './limits.js';
import { fromPem, toPem } from './pem.js';

/** @returns a request in PEM with an empty subject: the manager decides the names. */
export function createCsr(privateKey: KeyObject): string {
  const info = sequence(
    integer(Uint8Array.of(0)), // version 1
    sequence(),
    fromBytes(spkiOf(publicKeyOf(privateKey))),
    contextOf(0), // no attributes
  );
  const signature = signBytes(privateKey, toBytes(info));
  return toPem(
    'CERTIFICATE REQUEST',
    toBytes(sequence(info, sequence(oid(ecdsaWithSha256)), bitString(signature))),
  );
}

/**
 * @param input PEM as a string, DER as bytes: one request and nothing else.
 * @returns the public key that the request proves.
 * @throws too_large beyond limits.maxCsrBytes; bad_input when it is damaged, not for P-256 with SHA-256, or not
 *   signed by its own key.
 */
export function readCsr(input: string | Uint8Array): KeyObject {
  if (input.length > limits.maxCsrBytes) {
    throw new InroError(
      'too_large',
      `a certificate request of ${input.length} bytes is longer than ${limits.maxCsrBytes}`,
    );
  }
  const der = typeof input === 'string' ? fromPem('CERTIFICATE REQUEST', input) : input;
  if (der === undefined) throw refused('is not one PEM block from BEGIN to END CERTIFICATE REQUEST');
  const { info, spki, algorithm, signature } = split(der);
  const publicKey = readKey(spki);
  if (!sameBytes(algorithm, sequence(oid(ecdsaWithSha256))))
    throw refused('is not signed with ECDSA and SHA-256');
  if (!verifyBytes(publicKey, toBytes(info), signature)) throw refused('is not signed by its own key');
  return publicKey;
}

interface Parts {
  info: Der;
  spki: Der;
  algorithm: Der;
  signature: Uint8Array;
}

function split(der: Uint8Array): Parts {
  const [info, algorithm, bits, ...more] = partsOf(parseDer(der)) ?? [];
  const [version, , spki] = partsOf(info) ?? [];
  const signature = contentOf(bits, tag.bitString);
  // The first byte of a bit string counts its unused bits; the version must be 0 (RFC 2986 4.1).
  const isWhole =
    signature?.[0] === 0 && contentOf(version, tag.integer)?.join() === '0' && more.length === 0;
  if (!isWhole || info === undefined || spki === undefined || algorithm === undefined) {
    throw refused('is not a PKCS#10 request in DER, or it is damaged');
  }
  return { info, spki, algorithm, signature: signature.subarray(1) };
}

function readKey(spki: Der): KeyObject {
  try {
    return readPublicKey(toBytes(spki));
  } catch (cause) {
    throw refused('has no P-256 key with an uncompressed point', cause);
  }
}

function sameBytes(a: Der, b: Der): boolean {
  return Buffer.from(toBytes(a)).equals(toBytes(b));
}

function refused(what: string, cause?: unknown): InroError {
  return new InroError('bad_input', `the certificate request ${what}`, {
    remedy:
      'make one with a P-256 key: openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -sha256 -nodes',
    cause,
  });
}
