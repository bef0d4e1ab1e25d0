/**
 * Signing keys: ECDSA on P-256 with SHA-256 for all that inro makes; a CA that was brought along may have another
 * (`isAuthorityKey`). This file and its neighbours are the only ones that touch node:crypto; `src/pki` gets its tools
 * from here.
 *
 * Signatures are DER (`SEQUENCE { r, s }`, RFC 3279 2.2.3), about 70 to 72 bytes, because certificates and
 * requests must have that form anyway, and one form cannot be mistaken for another. A signature is no name for
 * what it signs: without the private key anybody can make a second valid one, (r, n - s).
 */
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  sign,
  timingSafeEqual,
  verify,
  type KeyObject,
} from 'node:crypto';
import { InroError } from '../model/error.js';

export { X509Certificate, type KeyObject } from 'node:crypto';

export interface NodeKey {
  privateKey: KeyObject;
  publicKey: KeyObject;
  /** The private key as PKCS#8 PEM, not encrypted: what a node keeps in a 0600 file. */
  privatePem: string;
}

/** A fresh P-256 key pair, drawn by OpenSSL. */
export function generateNodeKey(): NodeKey {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
  return { privateKey, publicKey, privatePem: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string };
}

/**
 * @param pem a private key in PEM, as `privatePem` is.
 * @throws bad_input when it is damaged, encrypted, or not P-256. Neither message nor cause has a part of the text.
 */
export function readPrivateKey(pem: string): KeyObject {
  const key = readKey(pem, remedies.node);
  if (!isP256(key)) throw refused('is not a P-256 key', remedies.node);
  return key;
}

/**
 * The key of a CA: P-256, P-384, RSA of 2048 bits or more, or Ed25519.
 * @throws bad_input. Neither message nor cause has a part of the text.
 */
export function readAuthorityKey(pem: string): KeyObject {
  const key = readKey(pem, remedies.authority);
  if (isAuthorityKey(key)) return key;
  throw refused(`is not ${authorityKeys}`, remedies.authority);
}

const remedies = {
  node: 'restore the key file, or let the node join again: it draws a new key then',
  authority: 'give the key file of the CA certificate: PEM, not encrypted (openssl pkey -in FILE)',
};

function refused(what: string, remedy: string): InroError {
  return new InroError('bad_input', `the private key ${what}`, { remedy });
}

function readKey(pem: string, remedy: string): KeyObject {
  const refuse = (what: string): InroError => refused(what, remedy);
  if (pem.length > maxKeyChars) throw refuse(`is longer than ${maxKeyChars} characters`);
  try {
    return createPrivateKey({ key: pem, format: 'pem' });
  } catch {
    throw refuse('is not an unencrypted PEM private key, or is damaged');
  }
}

/** As PKCS#8 PEM, not encrypted. */
export function privatePemOf(privateKey: KeyObject): string {
  return privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
}

/** The public half of a private key. */
export function publicKeyOf(privateKey: KeyObject): KeyObject {
  return createPublicKey(privateKey);
}

/** A public key as SubjectPublicKeyInfo DER (RFC 5280 4.1.2.7): 91 bytes, the point uncompressed. */
export function spkiOf(publicKey: KeyObject): Uint8Array {
  return publicKey.export({ type: 'spki', format: 'der' });
}

/**
 * @param spki SubjectPublicKeyInfo DER in the one form that `spkiOf` writes: named curve, uncompressed point.
 * @throws bad_input for any other key, another encoding of a P-256 key, or a point that is not on the curve.
 */
export function readPublicKey(spki: Uint8Array): KeyObject {
  const isOurForm = spki.length === spkiBytes && spkiPrefix.equals(spki.subarray(0, spkiPrefix.length));
  if (!isOurForm)
    throw new InroError('bad_input', 'the public key is not a P-256 key with an uncompressed point');
  try {
    return createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' });
  } catch (cause) {
    throw new InroError('bad_input', 'the public key is not a point on the curve P-256', { cause });
  }
}

/** How a key signs: the names are those of the certificates' signature algorithms (RFC 5758, 4055, 8410). */
export type SignatureKind = 'ecdsa-sha256' | 'ecdsa-sha384' | 'rsa-sha256' | 'ed25519';

/** @returns undefined for a key that a CA may not have. */
export function signatureKindOf(key: KeyObject): SignatureKind | undefined {
  const details = key.asymmetricKeyDetails;
  if (isP256(key)) return 'ecdsa-sha256';
  if (key.asymmetricKeyType === 'ec') return details?.namedCurve === 'secp384r1' ? 'ecdsa-sha384' : undefined;
  if (key.asymmetricKeyType === 'rsa')
    return (details?.modulusLength ?? 0) >= 2048 ? 'rsa-sha256' : undefined;
  return key.asymmetricKeyType === 'ed25519' ? 'ed25519' : undefined;
}

export const authorityKeys = 'a key of P-256, P-384, RSA with 2048 bits or more, or Ed25519';

export function isAuthorityKey(key: KeyObject): boolean {
  return signatureKindOf(key) !== undefined;
}

const digests = { 'ecdsa-sha256': 'sha256', 'ecdsa-sha384': 'sha384', 'rsa-sha256': 'sha256', ed25519: null };

function digestFor(key: KeyObject): string | null {
  const kind = signatureKindOf(key);
  if (kind === undefined) throw new InroError('internal', `a key that is not ${authorityKeys} never signs`);
  return digests[kind];
}

/** @returns the signature over the bytes; with our own keys DER, over SHA-256. Callers put a domain in front that no other use shares. */
export function signBytes(privateKey: KeyObject, bytes: Uint8Array): Uint8Array {
  return sign(digestFor(privateKey), bytes, { key: privateKey, dsaEncoding: 'der' });
}

/** True when the signature is the key's over these bytes; a malformed signature is just false. */
export function verifyBytes(publicKey: KeyObject, bytes: Uint8Array, signature: Uint8Array): boolean {
  return isP256(publicKey) && verify('sha256', bytes, { key: publicKey, dsaEncoding: 'der' }, signature);
}

export function isP256(key: KeyObject): boolean {
  return key.asymmetricKeyType === 'ec' && key.asymmetricKeyDetails?.namedCurve === 'prime256v1';
}

/** 32 bytes. */
export function sha256(bytes: Uint8Array): Uint8Array {
  return createHash('sha256').update(bytes).digest();
}

/** Compares without telling by its duration where the first difference is. Lengths are not hidden. */
export function constantTimeEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && timingSafeEqual(a, b);
}

/** A PKCS#8 P-256 key has 241 characters, one of RSA with 8192 bits 6,400; this leaves room for headers. */
const maxKeyChars = 8192;
const spkiBytes = 91;
// SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 }, BIT STRING, 0 unused bits, 04: uncompressed } (RFC 5480 2).
const spkiPrefix = Buffer.from('3059301306072a8648ce3d020106082a8648ce3d03010703420004', 'hex');
