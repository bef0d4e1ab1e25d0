/** Joining: the root is recognised by the token's digest, a key is made, a certificate fetched and checked. */
import { generateNodeKey } from '../crypto/signing.js';
import type { Clock } from '../model/clock.js';
import { InroError } from '../model/error.js';
import type { JoinToken } from '../pki/join_token.js';
import { createCsr } from '../pki/csr.js';
import { readRoot } from '../pki/root.js';
import { verifyNodeCertificate } from '../pki/verify.js';
import { Enrollment } from '../proto/gen/inro/v1/enrollment_pb.js';
import { call, connectTls, withConnection } from '../rpc/client.js';
import { rootCredentials, unverifiedCredentials } from '../rpc/tls.js';
import { describeHost } from './describe.js';
import { hasIdentity, saveIdentity, saveKey } from './identity.js';

export interface JoinOptions {
  token: JoinToken;
  /** HOST:PORT. */
  manager: string;
  stateFolder: string;
  clock: Clock;
}

/**
 * @returns the new node's id and its cluster's.
 * @throws already_exists when the host has joined; bad_token, foreign_cluster when token and manager are of
 *   different clusters; unreachable; bad_certificate; state_unusable.
 */
export async function joinCluster({
  token,
  manager,
  stateFolder,
  clock,
}: JoinOptions): Promise<{ nodeId: string; clusterId: string }> {
  if (hasIdentity(stateFolder)) {
    throw new InroError('already_exists', `this host has joined a cluster already (${stateFolder})`, {
      remedy: 'to join another, stop the agent and remove that folder first',
    });
  }
  const root = await fetchRoot(manager, token);
  const { privateKey, publicKey, privatePem } = generateNodeKey();
  saveKey(stateFolder, privatePem);
  const description = await describeHost(clock);
  const answer = await withConnection(connectTls(manager, rootCredentials(root.pem)), (connection) =>
    call(connection, Enrollment, 'issueCertificate', {
      csrPem: createCsr(privateKey),
      token: token.reveal(),
      description,
    }),
  );
  const certificate = verifyNodeCertificate(answer.certificatePem, {
    rootPem: root.pem,
    clusterId: root.clusterId,
    role: 'worker',
    publicKey,
    now: clock.now(),
  });
  saveIdentity(stateFolder, { rootPem: root.pem, certificatePem: certificate.pem, managers: [manager] });
  return { nodeId: certificate.nodeId, clusterId: certificate.clusterId };
}

/** Nothing is believed here but what the token's digest confirms. */
async function fetchRoot(manager: string, token: JoinToken) {
  const { rootPem } = await withConnection(connectTls(manager, unverifiedCredentials()), (connection) =>
    call(connection, Enrollment, 'getRoot', {}),
  );
  const root = readRoot(rootPem);
  if (!token.digestMatches(root.der)) {
    throw new InroError(
      'foreign_cluster',
      `the manager at ${manager} is not of the cluster that this join token is for: its root certificate has another digest`,
      {
        remedy:
          "check the address; if it is right, take the token from that manager: 'inro token show worker'. If it was right yesterday, somebody may stand in between",
      },
    );
  }
  return root;
}
