/**
 * Joining: the root is recognised by the token's digest, a key is made, a certificate fetched and checked. A host that was a
 * node before shows that by its former key, and stays that node.
 */
import { join } from 'node:path';
import { readPrivateFile } from '../crypto/at_rest.js';
import { publicKeyOf, readPrivateKey, signBytes, spkiOf, type KeyObject } from '../crypto/signing.js';
import { enrolAgainStatement } from '../crypto/statement.js';
import type { Clock } from '../model/clock.js';
import { asInroError, InroError } from '../model/error.js';
import type { Certificate } from '../pki/certificate.js';
import { chainPem, leafOf, readChain } from '../pki/chain.js';
import type { JoinToken } from '../pki/join_token.js';
import { createCsr } from '../pki/csr.js';
import { verifyNodeCertificate } from '../pki/verify.js';
import { Enrollment, type IssueCertificateResponse } from '../proto/gen/inro/v1/enrollment_pb.js';
import { call, connectTls, withConnection } from '../rpc/client.js';
import { fetchRoot } from '../rpc/first_contact.js';
import { rootCredentials } from '../rpc/tls.js';
import { readFileIfThere } from '../system/files.js';
import { describeHost, type Description } from './describe.js';
import { finishRenewal, hasIdentity, saveIdentity } from './identity.js';
import { finishJoining, forgetJoining, joiningKey } from './joining.js';
import { agentLimits } from './limits.js';

export interface JoinOptions {
  token: JoinToken;
  /** HOST:PORT. */
  manager: string;
  stateFolder: string;
  clock: Clock;
  /** Though this host is a node, and its certificate has not expired. */
  again?: boolean;
  /** Called once, when an operator has to approve the node before it gets its certificate. */
  onWaiting?: (nodeId: string, untilMs: number) => void;
}

export interface Joined {
  nodeId: string;
  clusterId: string;
  /** It is the node that it was before. */
  isSame: boolean;
  /** Why it is not, if it was one. */
  newIdBecause: string;
}

interface Former {
  /** As it is on disk: with the CAs between it and the root. */
  certificatePem: string;
  certificate: Certificate;
  key: KeyObject;
}

/**
 * @throws already_exists when the host has joined; bad_token, foreign_cluster when token and manager are of
 *   different clusters; not_permitted when an operator rejects it; unreachable; bad_certificate; state_unusable.
 */
export async function joinCluster(options: JoinOptions): Promise<Joined> {
  const { token, manager, stateFolder, clock } = options;
  finishJoining(stateFolder);
  finishRenewal(stateFolder);
  const former = hasIdentity(stateFolder) ? formerIdentity(options) : undefined;
  const { root, clusterId } = await fetchRoot(manager, token);
  if (former !== undefined && former.certificate.clusterId !== clusterId) {
    throw new InroError(
      'already_exists',
      `this host has joined cluster ${former.certificate.clusterId}, and the token is of cluster ${clusterId} (${stateFolder})`,
      { remedy: 'to join another cluster, stop the agent and remove that folder first' },
    );
  }
  const key = joiningKey(stateFolder);
  const publicKey = publicKeyOf(key);
  const request = {
    csrPem: createCsr(key),
    token: token.reveal(),
    description: await describeHost(clock),
    ...(former === undefined ? {} : { former: proofOf(former, publicKey) }),
  };
  const answer = await askUntilDecided(request, root.pem, options);
  const certificate = verifyNodeCertificate(answer.certificatePem, {
    rootPem: root.pem,
    clusterId,
    role: 'worker',
    publicKey,
    now: clock.now(),
  });
  const certificatePem = chainPem(readChain(answer.certificatePem));
  saveIdentity(stateFolder, { rootPem: root.pem, certificatePem, managers: [manager] });
  finishJoining(stateFolder);
  const { nodeId } = certificate;
  const isSame = former?.certificate.nodeId === nodeId;
  return { nodeId, clusterId, isSame, newIdBecause: answer.newIdBecause };
}

/** What it was before; undefined when it can prove nothing of it. @throws already_exists while it is that still. */
function formerIdentity({ stateFolder, clock, again = false }: JoinOptions): Former | undefined {
  const certificatePem = readFileIfThere(join(stateFolder, 'node.crt')) ?? '';
  const keyPem = readPrivateFile(join(stateFolder, 'node.key')) ?? '';
  let former: Former | undefined;
  try {
    former = { certificatePem, certificate: leafOf(certificatePem), key: readPrivateKey(keyPem) };
    if (!former.certificate.publicKey.equals(publicKeyOf(former.key))) former = undefined;
  } catch {
    former = undefined; // damaged: there is nothing to prove it with
  }
  const hasExpired = former !== undefined && clock.now() > former.certificate.notAfterMs;
  if (again || hasExpired) return former;
  throw new InroError('already_exists', `this host has joined a cluster already (${stateFolder})`, {
    remedy:
      'to give this node a new key and certificate, stop the agent and add --again; to join another cluster, stop the agent and remove that folder first',
  });
}

function proofOf({ certificatePem, certificate, key }: Former, publicKey: KeyObject) {
  const { clusterId, nodeId } = certificate;
  const statement = enrolAgainStatement({ clusterId, nodeId, publicKey: spkiOf(publicKey) });
  return { certificatePem, proof: signBytes(key, statement) };
}

interface Request {
  csrPem: string;
  token: string;
  description: Description;
  former?: { certificatePem: string; proof: Uint8Array };
}

async function askUntilDecided(
  request: Request,
  rootPem: string,
  { manager, stateFolder, clock, onWaiting }: JoinOptions,
): Promise<IssueCertificateResponse> {
  for (let waiting = false; ; waiting = true) {
    try {
      const answer = await withConnection(connectTls(manager, rootCredentials(rootPem)), (connection) =>
        call(connection, Enrollment, 'issueCertificate', request),
      );
      if (answer.pendingUntilMs === 0n) return answer;
      if (!waiting) onWaiting?.(answer.nodeId, Number(answer.pendingUntilMs));
    } catch (thrown) {
      const error = asInroError(thrown);
      // Refused for good: another try begins with another key.
      if (error.code === 'not_permitted' || error.code === 'already_exists') forgetJoining(stateFolder);
      if (!waiting || error.kind !== 'temporary') throw error;
    }
    await clock.sleep(agentLimits.approvalPollMs);
  }
}
