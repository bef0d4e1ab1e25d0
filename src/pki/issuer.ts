/** What a CA certificate says of the certificates that it may sign. node:crypto does not tell it, so it is read from the DER. */
import { isAuthorityKey, type KeyObject } from '../crypto/signing.js';
import type { Certificate } from './certificate.js';
import { contentOf, contextPartsOf, oid, parseDer, partsOf, tag, toBytes, type Der } from './der.js';
import { purposes } from './purpose.js';

export interface Issuer {
  /** Its name as its own certificate has it; those that it signs must have the same bytes. */
  subject: Der;
  /** Undefined when its certificate has none. */
  keyIdentifier: Uint8Array | undefined;
  /** How many other CAs may stand between it and a node's certificate; Infinity when it does not say. */
  pathLength: number;
  maySignCertificates: boolean;
  /** It limits the names below it. */
  limitsNames: boolean;
}

/** @returns undefined for a certificate that is not written in DER. */
export function issuerOf({ der }: Certificate): Issuer | undefined {
  const fields = partsOf(partsOf(parseDer(der))?.[0]) ?? [];
  // version, serial, algorithm, issuer, validity, subject (RFC 5280 4.1); version 1 has no extensions and is no CA here.
  const subject = fields[5];
  const extensions = fields.map((field) => contextPartsOf(field, 3)).find((parts) => parts !== undefined);
  const found = partsOf(extensions?.[0]);
  if (subject === undefined || found === undefined) return undefined;
  const valueOf = (id: string): Der | undefined => {
    const name = toBytes(oid(id));
    const parts = found.map(partsOf).find((one) => one?.[0] !== undefined && equal(toBytes(one[0]), name));
    const content = contentOf(parts?.at(-1), tag.octetString);
    return content === undefined ? undefined : parseDer(content);
  };
  const length = contentOf(partsOf(valueOf('2.5.29.19'))?.[1], tag.integer);
  const uses = valueOf('2.5.29.15');
  return {
    subject,
    keyIdentifier: contentOf(valueOf('2.5.29.14'), tag.octetString),
    pathLength: length === undefined ? Infinity : Number(`0x${Buffer.from(length).toString('hex')}`),
    // Bit 5 of the bits, after the byte that counts the unused ones (RFC 5280 4.2.1.3).
    maySignCertificates: uses === undefined || ((contentOf(uses, tag.bitString)?.[1] ?? 0) & 0x04) !== 0,
    limitsNames: valueOf('2.5.29.30') !== undefined,
  };
}

/** @param below how many CAs stand between it and a node's certificate. */
export function isIssuedBy(certificate: Certificate, authority: Certificate, below: number): boolean {
  const key = authorityKeyOf(authority);
  const issuer = issuerOf(authority);
  return (
    key !== undefined &&
    issuer !== undefined &&
    authority.isAuthority &&
    issuer.maySignCertificates &&
    issuer.pathLength >= below &&
    certificate.x509.checkIssued(authority.x509) &&
    certificate.x509.verify(key)
  );
}

/** @returns undefined when it is of a kind that no CA may have. */
export function authorityKeyOf({ x509 }: Certificate): KeyObject | undefined {
  try {
    return isAuthorityKey(x509.publicKey) ? x509.publicKey : undefined;
  } catch {
    return undefined; // of a kind that OpenSSL does not know
  }
}

/** Whether those below it may be what nodes' and managers' certificates are. */
export function allowsOurPurposes({ purposes: allowed }: Certificate): boolean {
  const any = '2.5.29.37.0';
  return (
    allowed.length === 0 ||
    allowed.includes(any) ||
    Object.values(purposes).every((purpose) => allowed.includes(purpose))
  );
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}
