/** A new certificate for a node that shows its present one. The key is new, the names are those that it has. */
import type { Logger } from 'pino';
import type { Clock } from '../model/clock.js';
import { InroError } from '../model/error.js';
import { readCsr } from '../pki/csr.js';
import { Renewal } from '../proto/gen/inro/v1/enrollment_pb.js';
import { serve, type Registration } from '../rpc/server.js';
import type { Store } from '../store/store.js';
import { tables } from '../store/tables.js';
import { transact, type Transaction } from '../store/transaction.js';
import type { Authorities, Issued } from './authorities.js';
import { certificateLifetimeMs, clusterIn } from './cluster_record.js';
import { checkCluster, notAMember } from './member.js';
import { noteCertificate } from './node_record.js';
import { RecentRenewals } from './recent_renewals.js';
import { keyDigest } from './refusals.js';

export interface RenewalParts {
  authority: Authorities;
  store: Store;
  clock: Clock;
  log: Logger;
}

export function renewal({ authority, store, clock, log }: RenewalParts): Registration {
  const recent = new RecentRenewals(clock);
  return serve(Renewal, 'worker', {
    renewCertificate: async ({ csrPem }, { peer }) => {
      checkCluster(peer, authority.clusterId);
      const { nodeId, role, certificate: shown } = peer;
      if (readCsr(csrPem).equals(shown.publicKey))
        throw new InroError('bad_input', `node ${nodeId} asks for a certificate for the key that it has`, {
          remedy: 'make the request with a new key',
        });
      const takeBack = recent.admit(nodeId, shown.serial, !authority.hasSigned(shown));
      const member = async (tx: Transaction) => {
        const node = await tx.get(tables.nodes, nodeId);
        if (node === undefined || node.removingMs > 0n) throw notAMember(peer);
        return node;
      };
      const renewed = async (): Promise<Issued> => {
        const { result: lifetimeMs } = await transact(store, async (tx) => {
          await member(tx);
          return certificateLifetimeMs(await clusterIn(tx));
        });
        // Signed before it is recorded: where the CA is elsewhere, that takes its time.
        const issued = await authority.issue({ csr: csrPem, nodeId, role, lifetimeMs });
        await transact(store, async (tx) => {
          const node = await member(tx);
          // The one that is shown is the one before, whatever was given and not taken up in between.
          node.keyDigest = keyDigest(shown.publicKey);
          noteCertificate(node, issued);
          tx.put(tables.nodes, nodeId, node);
        });
        return issued;
      };
      const { certificate, chainPem } = await renewed().catch((error: unknown) => {
        takeBack();
        throw error;
      });
      log.info(
        {
          node: nodeId,
          address: peer.address,
          serial: certificate.serial,
          was: shown.serial,
          expires: new Date(certificate.notAfterMs).toISOString(),
        },
        'certificate renewed',
      );
      return { certificatePem: chainPem };
    },
  });
}
