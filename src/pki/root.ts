/** The root certificate of a cluster: what everybody trusts, once a join token or an operator vouched for it. */
import { authorityKeys, verifyAuthorityBytes } from '../crypto/signing.js';
import { InroError } from '../model/error.js';
import { readCertificate, type Certificate } from './certificate.js';
import { readChain } from './chain.js';
import { authorityKeyOf, isIssuedBy } from './issuer.js';

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
 * True when the cluster's CA signed these bytes with `Authority.sign`.
 * @param intermediatesPem from the CA that signs up to the root: `Authority.intermediatesPem`.
 * @throws bad_certificate when a certificate cannot be read.
 */
export function isSignedByAuthority(
  root: string | Uint8Array,
  bytes: Uint8Array,
  signature: Uint8Array,
  intermediatesPem = '',
): boolean {
  const trusted = readRoot(root);
  const path = [...(intermediatesPem === '' ? [] : readChain(intermediatesPem)), trusted];
  const isWhole = path.slice(0, -1).every((one, at) => {
    return one.isAuthority && isIssuedBy(one, path[at + 1] as Certificate, at + 1);
  });
  const key = authorityKeyOf(path[0] as Certificate);
  return isWhole && key !== undefined && verifyAuthorityBytes(key, bytes, signature);
}

const rules: readonly [(root: Certificate) => boolean, string][] = [
  [(root) => root.isAuthority, 'is not a CA certificate'],
  [(root) => authorityKeyOf(root) !== undefined, `does not have ${authorityKeys}`],
  [
    (root) => root.x509.checkIssued(root.x509) && root.x509.verify(root.x509.publicKey),
    'is not signed by itself',
  ],
];
