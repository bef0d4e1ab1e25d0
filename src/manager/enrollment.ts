/** How a host becomes a node: the root for everybody, a certificate for who shows a join token. */
import { create } from '@bufbuild/protobuf';
import type { Logger } from 'pino';
import type { Clock, Random } from '../model/clock.js';
import { InroError } from '../model/error.js';
import { newId } from '../model/id.js';
import { Enrollment } from '../proto/gen/inro/v1/enrollment_pb.js';
import { NodeRecordSchema } from '../proto/gen/inro/v1/records_pb.js';
import type { Authority } from '../pki/authority.js';
import { parseJoinToken, type JoinToken } from '../pki/join_token.js';
import { serve, type Registration } from '../rpc/server.js';
import type { Store } from '../store/store.js';
import { tables } from '../store/tables.js';
import { transact } from '../store/transaction.js';
import { certificateLifetimeMs, readCluster } from './cluster_record.js';
import { keptDescription } from './node_record.js';

export interface EnrollmentParts {
  authority: Authority;
  store: Store;
  clock: Clock;
  random: Random;
  log: Logger;
  workerToken: () => Promise<JoinToken>;
}

export function enrollment({
  authority,
  store,
  clock,
  random,
  log,
  workerToken,
}: EnrollmentParts): Registration {
  return serve(Enrollment, 'anyone', {
    getRoot: async () => ({ rootPem: authority.root.pem }),
    issueCertificate: async ({ csrPem, token, description }, { peer }) => {
      const address = peer.kind === 'local' ? 'local' : peer.address;
      if (!parseJoinToken(token).secretMatches(await workerToken())) {
        log.warn({ address }, 'a host showed a join token that is not valid');
        throw new InroError('bad_token', 'the join token is not valid any more, or never was', {
          remedy: "ask for the present one on a manager: 'inro token show worker'",
        });
      }
      const nodeId = newId(random);
      const lifetimeMs = certificateLifetimeMs(await readCluster(store));
      const certificate = authority.issueNode({ csr: csrPem, nodeId, role: 'worker', lifetimeMs });
      const node = create(NodeRecordSchema, {
        id: nodeId,
        role: 'worker',
        ...(description === undefined ? {} : { description: keptDescription(description) }),
        createdMs: BigInt(clock.now()),
        certificateSerial: certificate.serial,
        certificateExpiresMs: BigInt(certificate.notAfterMs),
        address,
      });
      await transact(store, async (tx) => tx.put(tables.nodes, nodeId, node));
      log.info({ node: nodeId, address, hostname: node.description?.hostname }, 'a host joined');
      return { certificatePem: certificate.pem, nodeId, clusterId: authority.clusterId };
    },
  });
}
