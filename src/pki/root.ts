/** The root certificate of a cluster: what everybody trusts, once a join token or an operator vouched for it. */
import { verifyBytes } from '../crypto/signing.js';
import { InroError } from '../model/error.js';
import { readCertificate, rootCommonName, type Certificate } from './certificate.js';

/**
 * Reads a root and checks its form: named as inro's roots are, an authority, signed by itself.
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
 * True when the cluster's CA signed these bytes with `Authority.sign`.
 * @throws bad_certificate when the root cannot be read.
 */
export function isSignedByAuthority(
  root: string | Uint8Array,
  bytes: Uint8Array,
  signature: Uint8Array,
): boolean {
  return verifyBytes(readRoot(root).publicKey, bytes, signature);
}

const rules: readonly [(root: Certificate) => boolean, string][] = [
  [(root) => root.isAuthority, 'is not a CA certificate'],
  [(root) => root.commonName === rootCommonName && root.clusterId !== '', `is not named ${rootCommonName}`],
  [(root) => root.x509.checkIssued(root.x509) && root.x509.verify(root.publicKey), 'is not signed by itself'],
];
