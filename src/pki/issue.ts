/** Writes and signs one certificate (RFC 5280 4.1). What goes into it, `authority.ts` decides. */
import { signatureKindOf, signBytes, type KeyObject, type SignatureKind } from '../crypto/signing.js';
import { InroError } from '../model/error.js';
import type { Random } from '../model/clock.js';
import {
  bitString,
  contextOf,
  fromBytes,
  integer,
  nothing,
  oid,
  sequence,
  set,
  time,
  toBytes,
  utf8String,
  type Der,
} from './der.js';
import { limits } from './limits.js';

/** Attribute types of a distinguished name (X.520), in the order in which inro writes them. */
const attributes = { O: '2.5.4.10', OU: '2.5.4.11', CN: '2.5.4.3' } as const;
export type Name = Partial<Record<keyof typeof attributes, string>>;

export interface CertificateContent {
  /** As a name, or as it stands in another certificate. */
  subject: Name | Der;
  /** As a name, or as it stands in the issuer's own certificate. */
  issuer: Name | Der;
  serial: Uint8Array;
  notBeforeMs: number;
  notAfterMs: number;
  /** SubjectPublicKeyInfo DER. */
  spki: Uint8Array;
  extensions: Der[];
}

/** ecdsa-with-SHA256, parameters absent (RFC 5758 3.2). */
export const ecdsaWithSha256 = '1.2.840.10045.4.3.2';

/** RFC 5758 3.2, RFC 8410 3: parameters absent; RFC 4055 5: NULL. */
const algorithms: Record<SignatureKind, Der> = {
  'ecdsa-sha256': sequence(oid(ecdsaWithSha256)),
  'ecdsa-sha384': sequence(oid('1.2.840.10045.4.3.3')),
  'rsa-sha256': sequence(oid('1.2.840.113549.1.1.11'), nothing()),
  ed25519: sequence(oid('1.3.101.112')),
};

/** @returns the certificate's DER. */
export function issueCertificate(content: CertificateContent, issuerKey: KeyObject): Uint8Array {
  const kind = signatureKindOf(issuerKey);
  if (kind === undefined)
    throw new InroError('internal', 'the CA key is of a kind that signs no certificates');
  const algorithm = algorithms[kind];
  const toBeSigned = sequence(
    contextOf(0, integer(Uint8Array.of(2))), // version 3
    integer(content.serial),
    algorithm,
    distinguishedName(content.issuer),
    sequence(time(content.notBeforeMs), time(content.notAfterMs)),
    distinguishedName(content.subject),
    fromBytes(content.spki),
    contextOf(3, sequence(...content.extensions)),
  );
  const signature = signBytes(issuerKey, toBytes(toBeSigned));
  return toBytes(sequence(toBeSigned, algorithm, bitString(signature)));
}

/** 126 random bits. The first two bits are fixed so that the number is positive and always 16 bytes long. */
export function newSerial(random: Random): Uint8Array {
  const serial = Uint8Array.from(random(limits.serialBytes));
  serial[0] = ((serial[0] as number) & 0x3f) | 0x40;
  return serial;
}

function distinguishedName(name: Name | Der): Der {
  if ('tagClass' in name) return name;
  const types = Object.keys(attributes) as (keyof typeof attributes)[];
  const present = types.flatMap((type) =>
    name[type] === undefined ? [] : [[attributes[type], name[type]] as const],
  );
  return sequence(...present.map(([type, value]) => set(sequence(oid(type), utf8String(value)))));
}
