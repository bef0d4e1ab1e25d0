/** A host's first question to a manager, before it has a certificate or a root to verify one with. */
import { InroError } from '../model/error.js';
import type { Certificate } from '../pki/certificate.js';
import type { JoinToken } from '../pki/join_token.js';
import { readRoot } from '../pki/root.js';
import { Enrollment } from '../proto/gen/inro/v1/enrollment_pb.js';
import { call, connectTls, withConnection } from './client.js';
import { unverifiedCredentials } from './tls.js';

/**
 * Nothing is believed here but what the token's digest confirms.
 * @param manager HOST:PORT. @throws unreachable; foreign_cluster when token and manager are of different clusters.
 */
export async function fetchRoot(
  manager: string,
  token: JoinToken,
): Promise<{ root: Certificate; clusterId: string }> {
  const { rootPem, clusterId } = await withConnection(
    connectTls(manager, unverifiedCredentials()),
    (connection) => call(connection, Enrollment, 'getRoot', { digest: token.rootDigest }),
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
  // Nobody vouches for the id but the certificate that comes later: it must have the same.
  return { root, clusterId };
}
