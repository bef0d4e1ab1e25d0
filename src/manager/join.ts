/** How a host becomes another manager of a cluster: it shows a manager token, and is given the keys, sealed to its own. */
import { hostname } from 'node:os';
import { join } from 'node:path';
import { readdirSync } from 'node:fs';
import { writePrivateFile } from '../crypto/at_rest.js';
import type { Arena } from '../crypto/arena.js';
import { drawExchangeKey, sharedKey } from '../crypto/exchange.js';
import { writeKeyFile } from '../crypto/key_file.js';
import { generateNodeKey } from '../crypto/signing.js';
import type { Clock } from '../model/clock.js';
import { InroError } from '../model/error.js';
import { chainPem, readChain } from '../pki/chain.js';
import { createCsr } from '../pki/csr.js';
import type { JoinToken } from '../pki/join_token.js';
import { sealingNameOf } from '../pki/sealing_name.js';
import { verifyNodeCertificate } from '../pki/verify.js';
import { Enrollment } from '../proto/gen/inro/v1/enrollment_pb.js';
import { call, connectTls, withConnection } from '../rpc/client.js';
import { fetchRoot } from '../rpc/first_contact.js';
import { rootCredentials } from '../rpc/tls.js';
import { replaceFile } from '../system/files.js';
import { installSharedFiles } from './shared_keys.js';

export interface JoinManagerOptions {
  token: JoinToken;
  /** HOST:PORT of one that runs. */
  manager: string;
  /** It is claimed, and has nothing in it. */
  stateFolder: string;
  arena: Arena;
  clock: Clock;
}

/**
 * @throws already_exists when the folder is not empty; bad_token, foreign_cluster, bad_certificate, not_supported where the cluster's
 *   store is not distributed; unreachable; state_unusable.
 */
export async function joinAsManager({
  token,
  manager,
  stateFolder,
  arena,
  clock,
}: JoinManagerOptions): Promise<{ managerId: string; clusterId: string }> {
  checkEmpty(stateFolder);
  const { root, clusterId } = await fetchRoot(manager, token);
  const { privateKey, privatePem, publicKey } = generateNodeKey();
  const exchange = drawExchangeKey(arena);
  try {
    const answer = await withConnection(connectTls(manager, rootCredentials(root.pem)), (connection) =>
      call(connection, Enrollment, 'joinManager', {
        csrPem: createCsr(privateKey),
        token: token.reveal(),
        exchangeKey: exchange.publicKey,
        hostname: hostname(),
      }),
    );
    const certificate = verifyNodeCertificate(answer.certificatePem, {
      rootPem: root.pem,
      clusterId,
      role: 'manager',
      publicKey,
      now: clock.now(),
    });
    // The CA vouches in it for what the keys are sealed by.
    if (certificate.sealingName !== sealingNameOf(clusterId, answer.sealingPublicKey))
      throw new InroError('bad_certificate', 'the keys are not sealed by what the certificate vouches for');
    const shared = sharedKey(answer.sealingPublicKey, exchange.secret, arena);
    try {
      installSharedFiles(stateFolder, answer.files, shared, arena);
    } finally {
      shared.wipe();
    }
    writeKeyFile(join(stateFolder, 'exchange.key'), exchange.secret, arena);
    writePrivateFile(join(stateFolder, 'manager.key'), privatePem);
    // The last one: without it this folder has not joined.
    replaceFile(join(stateFolder, 'manager.crt'), chainPem(readChain(answer.certificatePem)), 0o600);
    return { managerId: certificate.nodeId, clusterId };
  } finally {
    exchange.secret.wipe();
  }
}

function checkEmpty(folder: string): void {
  const names = readdirSync(folder);
  if (!names.includes('manager.crt') && !names.includes('store')) return;
  throw new InroError('already_exists', `the folder ${folder} is that of a manager already`, {
    remedy: 'join with another one: --state DIR; or stop that manager, and move its folder away',
  });
}
