/**
 * A CA whose key is elsewhere, and signs when it is asked. What it answers is checked as if a stranger had made it: only a
 * certificate for exactly what was asked for, signed by the CA that the cluster has, is taken.
 */
import type { Clock } from '../model/clock.js';
import { durationText } from '../model/duration.js';
import { InroError } from '../model/error.js';
import { checkId, type NodeRequest } from './authority.js';
import type { Certificate } from './certificate.js';
import { chainPem, readChain, type Chain } from './chain.js';
import { readCsr } from './csr.js';
import { isIssuedBy } from './issuer.js';
import { limits } from './limits.js';
import { toPem } from './pem.js';
import { dnsNameOf, type Role } from './role.js';
import { verifyNodeCertificate } from './verify.js';

/** What the certificate must say: nothing of it is taken from the CSR but the key. */
export interface SigningRequest {
  csrPem: string;
  role: Role;
  subject: { O: string; OU: string; CN: string };
  dnsNames: readonly string[];
}

/**
 * Asks, one after the other if there are several, until one answers with a certificate that `accept` takes.
 * @param accept throws an InroError that says what is wrong with the PEM text.
 * @throws unreachable when none does.
 */
export type AskToSign = (
  request: SigningRequest,
  accept: (pem: string) => Certificate,
) => Promise<Certificate>;

export interface ExternalAuthority {
  readonly clusterId: string;
  readonly root: Certificate;
  /** As `Authority.intermediatesPem`. */
  readonly intermediatesPem: string;
  /** The CA decides how long it lasts. @throws as Authority.issueNode, and unreachable. */
  issueNode(request: NodeRequest): Promise<Certificate>;
}

/** @param certPem the CA that signs, then those above it, the root last. @throws bad_certificate. */
export function openExternalAuthority(
  certPem: string,
  ask: AskToSign,
  { clusterId, clock }: { clusterId: string; clock: Pick<Clock, 'now'> },
): ExternalAuthority {
  const chain = readChain(certPem);
  const root = chain.at(-1) as Certificate;
  return {
    clusterId,
    root,
    intermediatesPem: chainPem(chain.slice(0, -1)),
    issueNode: async ({ csr, nodeId, role, sealingName }) => {
      checkId('node id', nodeId);
      const publicKey = readCsr(csr);
      const request = {
        csrPem: typeof csr === 'string' ? csr : toPem('CERTIFICATE REQUEST', csr),
        role,
        subject: { O: clusterId, OU: role, CN: nodeId },
        dnsNames: [dnsNameOf(role), nodeId, ...(sealingName === undefined ? [] : [sealingName])],
      };
      return ask(request, (pem) => {
        const now = clock.now();
        const [leaf] = readChain(pem);
        const whole = chainPem([leaf, ...chain.slice(0, -1)]);
        const expected = { rootPem: root.pem, clusterId, role, nodeId, publicKey, now };
        const issued = verifyNodeCertificate(whole, expected);
        checkSigner(issued, chain);
        checkRest(issued, sealingName, now);
        return issued;
      });
    },
  };
}

/** Another CA below the same root is not the cluster's. */
function checkSigner(issued: Certificate, chain: Chain): void {
  if (isIssuedBy(issued, chain[0], 0)) return;
  throw refused('it is not signed by the CA that this cluster was founded with');
}

function checkRest(issued: Certificate, sealingName: string | undefined, now: number): void {
  if (issued.sealingName !== sealingName) throw refused('it does not have the names that were asked for');
  const leftMs = issued.notAfterMs - now;
  if (leftMs < limits.minExternalLifetimeMs)
    throw refused(
      `it lasts ${durationText(Math.max(0, leftMs))}, and less than ${durationText(limits.minExternalLifetimeMs)} is not enough to renew it in time`,
    );
}

function refused(message: string): InroError {
  return new InroError('bad_certificate', message);
}
