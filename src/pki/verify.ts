/** Whether a node certificate is to be believed: a list of named checks, in order; the first that fails throws. */
import type { KeyObject } from '../crypto/signing.js';
import { InroError } from '../model/error.js';
import { readCertificate, type Certificate } from './certificate.js';
import { readChain, type Chain } from './chain.js';
import { pathsTo } from './path.js';
import { purposes, purposesOf } from './purpose.js';
import { dnsNameOf, type Role } from './role.js';

export interface Expected {
  /** The trusted root of the cluster; several, one after the other, while it is rotated. */
  rootPem: string;
  /** The cluster that the certificate must be of, if the caller knows it: the root does not say it. */
  clusterId?: string;
  role?: Role;
  nodeId?: string;
  /** The key that the certificate must be for. */
  publicKey?: KeyObject;
  /** ms since 1970. */
  now: number;
}

/**
 * @param input PEM as a string, followed by the CAs between it and the root if there are any; or DER as bytes.
 * @returns the certificate, whose getters may be believed from here on.
 * @throws foreign_cluster when it belongs to another cluster, bad_certificate for everything else; the message
 *   says which check failed, the remedy what to do.
 */
export function verifyNodeCertificate(input: string | Uint8Array, expected: Expected): Certificate {
  const chain: Chain = typeof input === 'string' ? readChain(input) : [readCertificate(input)];
  const [certificate] = chain;
  const roots = readChain(expected.rootPem);
  const [root] = roots;
  if (!roots.some(({ isAuthority }) => isAuthority)) {
    throw refused('the root certificate is not a CA certificate', {
      remedy: "use the cluster's root certificate",
    });
  }
  if (roots.length === 1) isInTime(root, 'the root certificate', 'root', expected);
  checkPath(chain, roots, expected);
  for (const check of checks) check(certificate, expected);
  return certificate;
}

type Check = (certificate: Certificate, expected: Expected) => void;

const checks: readonly Check[] = [
  isNoAuthority,
  isOfCluster,
  isForItsRole,
  hasBegun,
  hasNotExpired,
  hasRole,
  hasNodeId,
  hasPublicKey,
];

/** What stands above it leads to a root that is trusted, and is in time. */
function checkPath(chain: Chain, roots: Chain, expected: Expected): void {
  let fault: unknown = isIssuedByNone(chain[0], roots[0], expected);
  for (const path of pathsTo(roots, chain)) {
    try {
      isInTime(path.at(-1) as Certificate, 'the root certificate', 'root', expected);
      for (const authority of path.slice(1, -1)) isInTime(authority, 'the CA certificate', 'CA', expected);
      return;
    } catch (error) {
      fault = error;
    }
  }
  throw fault;
}

function isInTime(
  { notBeforeMs, notAfterMs }: Certificate,
  label: string,
  what: string,
  { now }: Expected,
): void {
  if (now < notBeforeMs) throw tooEarly(label, notBeforeMs, now);
  if (now > notAfterMs) {
    throw refused(`${label} expired at ${iso(notAfterMs)}; it is now ${iso(now)}`, {
      remedy: `check the clock of this host; if it is right, the cluster needs a new ${what}`,
    });
  }
}

function isIssuedByNone(certificate: Certificate, root: Certificate, { clusterId }: Expected): InroError {
  // Claims that are not verified, so good for words only; either way the answer is no.
  const claimed = certificate.issuerClusterId;
  const ours = clusterId ?? root.issuerClusterId;
  if (claimed !== undefined && ours !== undefined && claimed !== ours)
    return foreign(certificate, claimed, ours);
  const whose = ours === undefined ? 'the root of this cluster' : `the root of cluster ${ours}`;
  return refused(`${certificate.label} is not signed by ${whose}`, {
    remedy:
      'join the node again with a join token of this cluster; if it had joined, the cluster was made anew or its root replaced',
  });
}

function isNoAuthority(certificate: Certificate): void {
  if (!certificate.isAuthority) return;
  throw refused('a CA certificate was given as a node certificate', {
    remedy: "use the node's own certificate, not the cluster's root",
  });
}

function isOfCluster(certificate: Certificate, { clusterId }: Expected): void {
  const claimed = certificate.clusterId;
  if (clusterId !== undefined && claimed !== clusterId) throw foreign(certificate, claimed, clusterId);
}

// Names and purposes follow from role and id; a certificate where they differ was not written by this code.
function isForItsRole(certificate: Certificate): void {
  const wanted = purposesOf(certificate.role).map((purpose) => purposes[purpose]);
  const isMeantFor =
    wanted.length === certificate.purposes.length &&
    wanted.every((oid) => certificate.purposes.includes(oid));
  const sealing = certificate.role === 'manager' ? certificate.sealingName : undefined;
  const names = [
    dnsNameOf(certificate.role),
    certificate.nodeId,
    ...(sealing === undefined ? [] : [sealing]),
  ];
  const isNamed = certificate.altNames === names.map((name) => `DNS:${name}`).join(', ');
  if (isMeantFor && isNamed) return;
  throw refused(`${certificate.label} has names or purposes that do not fit its role ${certificate.role}`, {
    remedy: 'join the node again',
  });
}

function hasBegun(certificate: Certificate, { now }: Expected): void {
  if (now < certificate.notBeforeMs) throw tooEarly(certificate.label, certificate.notBeforeMs, now);
}

function hasNotExpired(certificate: Certificate, { now }: Expected): void {
  const error = expired(certificate, now);
  if (error !== undefined) throw error;
}

/** What to say and do about a certificate whose time is over; undefined while it is not. */
export function expired(certificate: Certificate, now: number): InroError | undefined {
  if (now <= certificate.notAfterMs) return undefined;
  return refused(`${certificate.label} expired at ${iso(certificate.notAfterMs)}; it is now ${iso(now)}`, {
    remedy:
      "check the clock of this host; if it is right, join again with a fresh token, the node keeps its id: stop the agent, then 'inro agent join --token - --manager HOST:PORT'",
  });
}

function hasRole(certificate: Certificate, { role }: Expected): void {
  if (role === undefined || certificate.role === role) return;
  throw refused(`${certificate.label} is for ${a(certificate.role)}, not for ${a(role)}`, {
    remedy: `use the certificate of ${a(role)}`,
  });
}

function a(role: Role): string {
  return role === 'operator' ? `an ${role}` : `a ${role}`;
}

function hasNodeId(certificate: Certificate, { nodeId }: Expected): void {
  if (nodeId === undefined || certificate.nodeId === nodeId) return;
  throw refused(`the certificate is for node ${certificate.nodeId}, not for node ${nodeId}`, {
    remedy: 'use the certificate that was issued to this node',
  });
}

function hasPublicKey(certificate: Certificate, { publicKey }: Expected): void {
  if (publicKey === undefined || certificate.publicKey.equals(publicKey)) return;
  throw refused(`${certificate.label} is for another key`, {
    remedy:
      'certificate and key must come from the same join or renewal; restore both, or join the node again',
  });
}

function foreign(certificate: Certificate, theirs: string, ours: string): InroError {
  return new InroError(
    'foreign_cluster',
    `${certificate.label} is of cluster ${theirs}, not of cluster ${ours}`,
    {
      remedy: `join the node with a join token of cluster ${ours}, or use a manager of cluster ${theirs}`,
    },
  );
}

function tooEarly(label: string, notBeforeMs: number, now: number): InroError {
  return refused(`${label} is not valid before ${iso(notBeforeMs)}; it is now ${iso(now)}`, {
    remedy: 'the clock of this host, or of the manager that issued it, is wrong: check both with timedatectl',
  });
}

function refused(message: string, options: { remedy: string }): InroError {
  return new InroError('bad_certificate', message, options);
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
