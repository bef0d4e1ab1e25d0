/** The root certificates of a cluster: what everybody trusts, once a join token or an operator vouched for it. Two while the CA is rotated. */
import { authorityKeys } from '../crypto/signing.js';
import { InroError } from '../model/error.js';
import { readCertificate, type Certificate } from './certificate.js';
import { readChain, type Chain } from './chain.js';
import { authorityKeyOf, issuerOf } from './issuer.js';
import { toBytes } from './der.js';
import { limits } from './limits.js';
import { pathsTo } from './path.js';

/**
 * Reads a root and checks its form: an authority, signed by itself. Its names are its own, and say nothing of the cluster.
 * Anybody can make such a certificate; trust comes from `JoinToken.digestMatches` or from the node's own disk.
 * @param input PEM as a string, DER as bytes.
 * @throws bad_certificate
 */
export function readRoot(input: string | Uint8Array): Certificate {
  const root = readCertificate(input);
  for (const [isTrue, what] of rules) {
    if (!isTrue(root)) {
      throw new InroError('bad_certificate', `the root certificate ${what}`, {
        remedy: 'use the root certificate of an inro cluster',
      });
    }
  }
  return root;
}

/**
 * Each of them as `readRoot` reads one.
 * @param pem one after the other.
 * @throws bad_certificate, also when there are more than limits.maxRoots.
 */
export function readRoots(pem: string): Chain {
  const [first, ...rest] = readChain(pem);
  if (rest.length >= limits.maxRoots)
    throw new InroError('bad_certificate', `${rest.length + 1} roots are more than ${limits.maxRoots}`);
  return [readRoot(first.der), ...rest.map(({ der }) => readRoot(der))];
}

/**
 * Whether one of the trusted roots vouches for another one: by a certificate for its name and key (`Authority.crossSign`).
 * @param crossPem has that certificate, and after it those between it and the trusted root.
 * @param now ms since 1970.
 * @throws bad_certificate when a certificate cannot be read.
 */
export function isVouchedFor(root: Certificate, crossPem: string, trustedPem: string, now: number): boolean {
  const given = crossPem === '' ? [] : readChain(crossPem);
  const at = given.findIndex((one) => one.isAuthority && hasNameAndKeyOf(one, root));
  if (at < 0) return false;
  return pathsTo(readRoots(trustedPem), given.slice(at), 1).some((path) =>
    path.every(({ notBeforeMs, notAfterMs }) => now >= notBeforeMs && now <= notAfterMs),
  );
}

function hasNameAndKeyOf(one: Certificate, other: Certificate): boolean {
  const [name, otherName] = [issuerOf(one)?.subject, issuerOf(other)?.subject];
  if (name === undefined || otherName === undefined) return false;
  const isSameName = Buffer.compare(toBytes(name), toBytes(otherName)) === 0;
  return isSameName && one.x509.publicKey.equals(other.x509.publicKey);
}

const rules: readonly [(root: Certificate) => boolean, string][] = [
  [(root) => root.isAuthority, 'is not a CA certificate'],
  [(root) => authorityKeyOf(root) !== undefined, `does not have ${authorityKeys}`],
  [
    (root) => root.x509.checkIssued(root.x509) && root.x509.verify(root.x509.publicKey),
    'is not signed by itself',
  ],
];
