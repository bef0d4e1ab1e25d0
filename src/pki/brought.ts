/** A CA that users bring along: a root, or an intermediate with all that stand above it. A list of named checks, in order. */
import { authorityKeys, privatePemOf, publicKeyOf, readAuthorityKey } from '../crypto/signing.js';
import { InroError } from '../model/error.js';
import type { Certificate } from './certificate.js';
import { chainPem, readChain, type Chain } from './chain.js';
import { allowsOurPurposes, authorityKeyOf, isIssuedBy, issuerOf } from './issuer.js';
import { limits } from './limits.js';

export interface Brought {
  /** The CA that signs first, then whoever signed it, up to the root. */
  certPem: string;
  keyPem: string;
}

/**
 * @param now ms since 1970.
 * @returns both as inro keeps them.
 * @throws bad_certificate, saying which certificate of the file has which fault; bad_input for the key.
 */
export function readBrought({ certPem, keyPem }: Brought, now: number): Brought {
  const chain = readBroughtChain(certPem, now);
  const [signer] = chain;
  const key = readAuthorityKey(keyPem);
  if (!publicKeyOf(key).equals(signer.x509.publicKey)) {
    throw refused('the CA key does not belong to the first certificate of the file', {
      remedy:
        'the first certificate must be the one that the key is of; those above it follow, the root last',
    });
  }
  return { certPem: chainPem(chain), keyPem: privatePemOf(key) };
}

/** The CA alone, whose key is elsewhere. @throws bad_certificate, as readBrought. */
export function readBroughtChain(certPem: string, now: number): Chain {
  const chain = readChain(certPem);
  chain.forEach((certificate, at) => checkOne(certificate, placeOf(at, chain), now));
  checkLinks(chain);
  return chain;
}

function placeOf(at: number, { length }: Chain): string {
  return length === 1 ? 'the CA certificate' : `certificate ${at + 1} of ${length} in the CA file`;
}

const checks: readonly [
  isWrong: (certificate: Certificate, now: number) => boolean,
  what: string,
  remedy: string,
][] = [
  [
    (certificate) => issuerOf(certificate)?.maySignCertificates === false,
    'may not sign certificates: its key usage lacks keyCertSign',
    'give a CA: one that is issued with keyUsage = critical, keyCertSign',
  ],
  [
    ({ isAuthority }) => !isAuthority,
    'is not a CA certificate (CA:TRUE)',
    "give a root, or an intermediate CA; not a server's or a node's certificate",
  ],
  [
    (certificate) => issuerOf(certificate) === undefined,
    'is not written in DER',
    'have it issued anew: openssl x509 -req writes what can be read',
  ],
  [
    (certificate) => authorityKeyOf(certificate) === undefined,
    `does not have ${authorityKeys}`,
    'make a CA with such a key',
  ],
  [
    (certificate) => !allowsOurPurposes(certificate),
    'does not allow both server and client authentication (extended key usage)',
    'use a CA without that extension, or with serverAuth and clientAuth',
  ],
  [
    (certificate) => issuerOf(certificate)?.limitsNames === true,
    'limits the names below it (name constraints), and the names of nodes are not DNS names of yours',
    'use a CA without that extension',
  ],
  [
    ({ notBeforeMs }, now) => now < notBeforeMs,
    'is not valid yet',
    'check the clock of this host with timedatectl',
  ],
  [({ notAfterMs }, now) => now > notAfterMs, 'has expired', 'have it renewed first'],
  [
    ({ notAfterMs }, now) => notAfterMs - now < limits.minBroughtLifetimeMs,
    'ends in less than a year, and no certificate of the cluster can outlive it',
    'have it renewed first: at least a year must be left',
  ],
];

function checkOne(certificate: Certificate, place: string, now: number): void {
  for (const [isWrong, what, remedy] of checks) {
    if (!isWrong(certificate, now)) continue;
    const span = `${iso(certificate.notBeforeMs)} to ${iso(certificate.notAfterMs)}`;
    throw refused(`${place} (${nameOf(certificate)}, ${span}) ${what}`, { remedy });
  }
}

function checkLinks(chain: Chain): void {
  const root = chain.at(-1) as Certificate;
  if (!root.x509.checkIssued(root.x509) || !root.x509.verify(root.x509.publicKey)) {
    throw refused(`the CA file ends with ${nameOf(root)}, which is not a root: it is not signed by itself`, {
      remedy: 'append the certificates above it up to the root: cat intermediate.crt root.crt > ca.pem',
    });
  }
  chain.forEach((authority, below) => {
    if ((issuerOf(authority)?.pathLength ?? 0) >= below) return;
    throw refused(`${placeOf(below, chain)} does not allow ${below} CA below it (its path length)`, {
      remedy: 'use the CA above for the key, or have it issued with a longer pathlen',
    });
  });
  chain.slice(0, -1).forEach((certificate, at) => {
    if (isIssuedBy(certificate, chain[at + 1] as Certificate, at + 1)) return;
    throw refused(`${placeOf(at, chain)} is not signed by the one after it`, {
      remedy: 'put them in order: the CA whose key it is first, then whoever signed it, the root last',
    });
  });
}

/** Whoever brings it along knows it by that; control characters stay escaped, as node:crypto has them. */
function nameOf({ x509 }: Certificate): string {
  return x509.subject?.replaceAll('\n', ', ').slice(0, 200) ?? 'without a name';
}

function refused(message: string, options: { remedy: string }): InroError {
  return new InroError('bad_certificate', message, options);
}

function iso(ms: number): string {
  return new Date(ms).toISOString().slice(0, 10);
}
