/** Writes and signs one certificate (RFC 5280 4.1). What goes into it, `authority.ts` decides. */
import { signBytes, type KeyObject } from '../crypto/signing.js';
import type { Random } from '../model/clock.js';
import {
  bitString,
  contextOf,
  fromBytes,
  integer,
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
  subject: Name;
  issuer: Name;
  serial: Uint8Array;
  notBeforeMs: number;
  notAfterMs: number;
  /** SubjectPublicKeyInfo DER. */
  spki: Uint8Array;
  extensions: Der[];
}

/** ecdsa-with-SHA256, parameters absent (RFC 5758 3.2). */
export const ecdsaWithSha256 = '1.2.840.10045.4.3.2';

/** @returns the certificate's DER. */
export function issueCertificate(content: CertificateContent, issuerKey: KeyObject): Uint8Array {
  const algorithm = sequence(oid(ecdsaWithSha256));
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

function distinguishedName(name: Name): Der {
  const types = Object.keys(attributes) as (keyof typeof attributes)[];
  const present = types.flatMap((type) =>
    name[type] === undefined ? [] : [[attributes[type], name[type]] as const],
  );
  return sequence(...present.map(([type, value]) => set(sequence(oid(type), utf8String(value)))));
}
