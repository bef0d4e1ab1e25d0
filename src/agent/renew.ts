/** Asking a manager for the next certificate: a new key, proved by the request, under the identity of now. */
import { generateNodeKey } from '../crypto/signing.js';
import { chainPem, readChain } from '../pki/chain.js';
import { createCsr } from '../pki/csr.js';
import { verifyNodeCertificate } from '../pki/verify.js';
import { Renewal } from '../proto/gen/inro/v1/enrollment_pb.js';
import { call, connectTls, withConnection } from '../rpc/client.js';
import { nodeCredentials } from '../rpc/tls.js';
import type { Identity, KeyPair } from './identity.js';

/**
 * @param manager HOST:PORT.
 * @throws unreachable, rate_limited, not_permitted, not_supported by an older manager; bad_certificate, foreign_cluster for an
 *   answer that is not what was asked for.
 */
export async function askForRenewal(
  identity: Identity,
  manager: string,
  now: () => number,
): Promise<KeyPair> {
  const { privateKey, publicKey, privatePem } = generateNodeKey();
  const csrPem = createCsr(privateKey);
  const { certificatePem } = await withConnection(
    connectTls(manager, nodeCredentials(identity)),
    (connection) => call(connection, Renewal, 'renewCertificate', { csrPem }),
  );
  const { rootPem, clusterId, nodeId } = identity;
  const expected = { rootPem, clusterId, nodeId, role: 'worker', publicKey, now: now() } as const;
  verifyNodeCertificate(certificatePem, expected);
  return { certificatePem: chainPem(readChain(certificatePem)), keyPem: privatePem };
}
