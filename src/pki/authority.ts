/**
 * The cluster's certificate authority: it signs certificates. It is a root that inro made, with nothing
 * between it and them, or one that was brought along (`brought.ts`): a root or an intermediate.
 */
import {
  generateNodeKey,
  publicKeyOf,
  readAuthorityKey,
  sha256,
  spkiOf,
  type KeyObject,
} from '../crypto/signing.js';
import type { Clock, Random } from '../model/clock.js';
import { InroError } from '../model/error.js';
import { isId } from '../model/id.js';
import { readCertificate, rootCommonName, type Certificate } from './certificate.js';
import { chainPem, readChain, type Chain } from './chain.js';
import { readCsr } from './csr.js';
import {
  authorityKeyIdentifier,
  basicConstraints,
  extendedKeyUsage,
  keyUsage,
  subjectAltNames,
  subjectKeyIdentifier,
} from './extension.js';
import { issueCertificate, newSerial } from './issue.js';
import { issuerOf } from './issuer.js';
import { limits } from './limits.js';
import { toPem } from './pem.js';
import { purposesOf } from './purpose.js';
import { dnsNameOf, type Role } from './role.js';
import { readRoot } from './root.js';
import { verifyNodeCertificate } from './verify.js';

/** What an authority needs from outside. */
export interface Surroundings {
  clock: Pick<Clock, 'now'>;
  random: Random;
}

export interface NodeRequest {
  /** PEM, or DER bytes. Only its public key counts. */
  csr: string | Uint8Array;
  nodeId: string;
  role: Role;
  /** From now, in ms; 90 days if not given. It never reaches beyond the CA's own end. */
  lifetimeMs?: number;
  /** For a manager: the name of its sealing key (`sealingNameOf`), which the certificate vouches for then. */
  sealingName?: string;
}

export interface Authority {
  readonly clusterId: string;
  readonly root: Certificate;
  /**
   * PEM of those between the certificates that it issues and the root, and from there to the root before it, if that vouches for
   * this one. They go wherever the certificates go; '' when there are none.
   */
  readonly intermediatesPem: string;
  /** @throws bad_input or too_large for the request, bad_certificate when the root has expired. */
  issueNode(request: NodeRequest): Certificate;
  /** A certificate for the name and key of another root: who trusts this one's can verify what that one's sign. */
  crossSign(root: Certificate): Certificate;
}

/**
 * A new root for a cluster, valid for 20 years.
 * @param cluster.isNext it follows another one, and needs a name of its own: certificates are matched with their issuers by it.
 * @returns root certificate and PKCS#8 key, both PEM. The key is as secret as everything the cluster will keep.
 */
export function createAuthority(cluster: { clusterId: string; isNext?: boolean } & Surroundings): {
  certPem: string;
  keyPem: string;
} {
  const { clusterId, isNext = false, clock, random } = cluster;
  checkId('cluster id', clusterId);
  const { privateKey, publicKey, privatePem } = generateNodeKey();
  const spki = spkiOf(publicKey);
  const mark = Buffer.from(sha256(spki)).toString('hex', 0, 8);
  const name = { O: clusterId, ...(isNext ? { OU: `root ${mark}` } : {}), CN: rootCommonName };
  const nowMs = clock.now();
  const content = {
    subject: name,
    issuer: name,
    serial: newSerial(random),
    notBeforeMs: nowMs - limits.backdateMs,
    notAfterMs: nowMs + limits.rootLifetimeMs,
    spki,
    extensions: [basicConstraints(true), keyUsage('keyCertSign', 'cRLSign'), subjectKeyIdentifier(spki)],
  };
  return { certPem: toPem('CERTIFICATE', issueCertificate(content, privateKey)), keyPem: privatePem };
}

/**
 * @param certPem the CA that signs, then those above it, the root last.
 * @param surroundings.crossPem what leads from that root to the one before it.
 * @throws bad_certificate when they are no CA or the key is not its own; bad_input for a damaged key.
 */
export function openAuthority(
  certPem: string,
  keyPem: string,
  surroundings: Surroundings & { clusterId: string; crossPem?: string },
): Authority {
  const chain = readChain(certPem);
  const root = readRoot((chain.at(-1) as Certificate).der);
  const key = readAuthorityKey(keyPem);
  if (!publicKeyOf(key).equals(chain[0].x509.publicKey)) {
    throw new InroError('bad_certificate', 'the CA key does not belong to the CA certificate', {
      remedy: 'restore both from the same backup',
    });
  }
  const { clusterId, clock, crossPem = '' } = surroundings;
  const cross = crossPem === '' ? [] : readChain(crossPem);
  return {
    clusterId,
    root,
    get intermediatesPem() {
      // What has ended leads nowhere.
      const isOver = cross.some(({ notAfterMs }) => clock.now() > notAfterMs);
      return chainPem([...chain.slice(0, -1), ...(isOver ? [] : cross)]);
    },
    issueNode: (request) => issueNode(chain, key, request, surroundings),
    crossSign: (other) => crossSign(chain, key, other, surroundings),
  };
}

function issueNode(
  chain: Chain,
  key: KeyObject,
  request: NodeRequest,
  { clusterId, clock, random }: Surroundings & { clusterId: string },
): Certificate {
  const [signer] = chain;
  const issuer = issuerOf(signer);
  if (issuer === undefined)
    throw new InroError('bad_certificate', 'the CA certificate is not written in DER');
  const { nodeId, role, lifetimeMs = limits.nodeLifetimeMs, sealingName } = request;
  checkId('node id', nodeId);
  if (!Number.isFinite(lifetimeMs) || lifetimeMs < limits.minNodeLifetimeMs) {
    throw new InroError(
      'bad_input',
      `a certificate lifetime of ${lifetimeMs} ms is shorter than ${limits.minNodeLifetimeMs} ms`,
    );
  }
  const publicKey = readCsr(request.csr);
  const spki = spkiOf(publicKey);
  const nowMs = clock.now();
  const content = {
    subject: { O: clusterId, OU: role, CN: nodeId },
    issuer: issuer.subject,
    serial: newSerial(random),
    notBeforeMs: nowMs - limits.backdateMs,
    notAfterMs: Math.min(nowMs + lifetimeMs, ...chain.map(({ notAfterMs }) => notAfterMs)),
    spki,
    extensions: [
      basicConstraints(false),
      keyUsage('digitalSignature'),
      extendedKeyUsage(...purposesOf(role)),
      subjectAltNames(dnsNameOf(role), nodeId, ...(sealingName === undefined ? [] : [sealingName])),
      subjectKeyIdentifier(spki),
      authorityKeyIdentifier(spkiOf(signer.x509.publicKey), issuer.keyIdentifier),
    ],
  };
  const issued = readCertificate(issueCertificate(content, key));
  // Nothing leaves here that a node or a manager would refuse.
  const root = chain.at(-1) as Certificate;
  const whole = chainPem([issued, ...chain.slice(0, -1)]);
  const expected = { rootPem: root.pem, clusterId, role, nodeId, publicKey, now: nowMs };
  return verifyNodeCertificate(whole, expected);
}

function crossSign(
  chain: Chain,
  key: KeyObject,
  other: Certificate,
  { clock, random }: Surroundings,
): Certificate {
  const [issuer, subject] = [issuerOf(chain[0]), issuerOf(other)];
  if (issuer === undefined || subject === undefined)
    throw new InroError('bad_certificate', 'the CA certificate is not written in DER');
  const spki = spkiOf(other.x509.publicKey);
  const content = {
    subject: subject.subject,
    issuer: issuer.subject,
    serial: newSerial(random),
    notBeforeMs: Math.max(clock.now() - limits.backdateMs, ...chain.map(({ notBeforeMs }) => notBeforeMs)),
    notAfterMs: Math.min(other.notAfterMs, ...chain.map(({ notAfterMs }) => notAfterMs)),
    spki,
    extensions: [
      basicConstraints(true),
      keyUsage('keyCertSign', 'cRLSign'),
      subjectKeyIdentifier(spki, subject.keyIdentifier),
      authorityKeyIdentifier(spkiOf(chain[0].x509.publicKey), issuer.keyIdentifier),
    ],
  };
  return readCertificate(issueCertificate(content, key));
}

/** By which records name a CA. */
export function authorityDigest({ x509 }: Certificate): Uint8Array {
  return sha256(spkiOf(x509.publicKey));
}

export function checkId(what: string, id: string): void {
  if (!isId(id)) throw new InroError('bad_input', `the ${what} is not 25 characters of 0-9 and a-z`);
}
