/** Whether a node certificate is to be believed: a list of named checks, in order; the first that fails throws. */
import type { KeyObject } from '../crypto/signing.js';
import { InroError } from '../model/error.js';
import { readCertificate, type Certificate } from './certificate.js';
import { purposes, purposesOf } from './purpose.js';
import { dnsNameOf, type Role } from './role.js';

export interface Expected {
  /** The trusted root of the cluster. */
  rootPem: string;
  /** The cluster that the root must be of, if the caller knows it. */
  clusterId?: string;
  role?: Role;
  nodeId?: string;
  /** The key that the certificate must be for. */
  publicKey?: KeyObject;
  /** ms since 1970. */
  now: number;
}

/**
 * @param input PEM as a string, DER as bytes.
 * @returns the certificate, whose getters may be believed from here on.
 * @throws foreign_cluster when it belongs to another cluster, bad_certificate for everything else; the message
 *   says which check failed, the remedy what to do.
 */
export function verifyNodeCertificate(input: string | Uint8Array, expected: Expected): Certificate {
  const certificate = readCertificate(input);
  const root = readCertificate(expected.rootPem);
  for (const check of checks) check(certificate, root, expected);
  return certificate;
}

type Check = (certificate: Certificate, root: Certificate, expected: Expected) => void;

const checks: readonly Check[] = [
  rootIsAuthority,
  rootIsOfCluster,
  rootIsInTime,
  isIssuedByRoot,
  isNoAuthority,
  isOfCluster,
  isForItsRole,
  hasBegun,
  hasNotExpired,
  hasRole,
  hasNodeId,
  hasPublicKey,
];

function rootIsAuthority(_: Certificate, root: Certificate): void {
  if (root.isAuthority) return;
  throw refused('the root certificate is not a CA certificate', {
    remedy: "use the cluster's root certificate",
  });
}

function rootIsOfCluster(_: Certificate, root: Certificate, { clusterId }: Expected): void {
  if (clusterId === undefined || root.clusterId === clusterId) return;
  throw new InroError(
    'foreign_cluster',
    `the root certificate is of cluster ${root.clusterId}, not of cluster ${clusterId}`,
    {
      remedy: 'use the root certificate of this cluster',
    },
  );
}

function rootIsInTime(_: Certificate, root: Certificate, { now }: Expected): void {
  if (now < root.notBeforeMs) throw tooEarly('the root certificate', root.notBeforeMs, now);
  if (now > root.notAfterMs) {
    throw refused(`the root certificate expired at ${iso(root.notAfterMs)}; it is now ${iso(now)}`, {
      remedy: 'check the clock of this host; if it is right, the cluster needs a new root',
    });
  }
}

function isIssuedByRoot(certificate: Certificate, root: Certificate): void {
  if (certificate.x509.checkIssued(root.x509) && certificate.x509.verify(root.publicKey)) return;
  const claimed = certificate.issuerClusterId;
  // Not verified, so good for words only; either way the answer is no.
  if (claimed !== undefined && claimed !== root.clusterId)
    throw foreign(certificate, claimed, root.clusterId);
  throw refused(`${certificate.label} is not signed by the root of cluster ${root.clusterId}`, {
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

function isOfCluster(certificate: Certificate, root: Certificate): void {
  if (certificate.clusterId !== root.clusterId)
    throw foreign(certificate, certificate.clusterId, root.clusterId);
}

// Names and purposes follow from role and id; a certificate where they differ was not written by this code.
function isForItsRole(certificate: Certificate): void {
  const wanted = purposesOf(certificate.role).map((purpose) => purposes[purpose]);
  const isMeantFor =
    wanted.length === certificate.purposes.length &&
    wanted.every((oid) => certificate.purposes.includes(oid));
  const isNamed = certificate.altNames === `DNS:${dnsNameOf(certificate.role)}, DNS:${certificate.nodeId}`;
  if (isMeantFor && isNamed) return;
  throw refused(`${certificate.label} has names or purposes that do not fit its role ${certificate.role}`, {
    remedy: 'join the node again',
  });
}

function hasBegun(certificate: Certificate, _: Certificate, { now }: Expected): void {
  if (now < certificate.notBeforeMs) throw tooEarly(certificate.label, certificate.notBeforeMs, now);
}

function hasNotExpired(certificate: Certificate, _: Certificate, { now }: Expected): void {
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

function hasRole(certificate: Certificate, _: Certificate, { role }: Expected): void {
  if (role === undefined || certificate.role === role) return;
  throw refused(`${certificate.label} is for ${a(certificate.role)}, not for ${a(role)}`, {
    remedy: `use the certificate of ${a(role)}`,
  });
}

function a(role: Role): string {
  return role === 'operator' ? `an ${role}` : `a ${role}`;
}

function hasNodeId(certificate: Certificate, _: Certificate, { nodeId }: Expected): void {
  if (nodeId === undefined || certificate.nodeId === nodeId) return;
  throw refused(`the certificate is for node ${certificate.nodeId}, not for node ${nodeId}`, {
    remedy: 'use the certificate that was issued to this node',
  });
}

function hasPublicKey(certificate: Certificate, _: Certificate, { publicKey }: Expected): void {
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
