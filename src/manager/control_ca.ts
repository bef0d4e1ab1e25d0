/** What operators do with the cluster's CA. */
import type { Logger } from 'pino';
import { durationText } from '../model/duration.js';
import { InroError } from '../model/error.js';
import type { Certificate } from '../pki/certificate.js';
import { limits } from '../pki/limits.js';
import type { Control } from '../proto/gen/inro/v1/control_pb.js';
import type { ClusterRecord } from '../proto/gen/inro/v1/records_pb.js';
import type { Handlers } from '../rpc/server.js';
import type { Store } from '../store/store.js';
import { tables } from '../store/tables.js';
import { transact } from '../store/transaction.js';
import { certificateLifetimeMs, clusterIn, readCluster } from './cluster_record.js';

export interface CaParts {
  root: Certificate;
  store: Store;
  log: Logger;
}

export function caHandlers({
  root,
  store,
  log,
}: CaParts): Pick<Handlers<typeof Control, 'operator'>, 'getCa' | 'updateCa'> {
  const shown = (cluster: ClusterRecord) => ({
    clusterId: cluster.id,
    rootPem: root.pem,
    rootFingerprint: root.fingerprint,
    rootExpiresMs: BigInt(root.notAfterMs),
    certificateLifetimeMs: BigInt(certificateLifetimeMs(cluster)),
  });
  return {
    getCa: async () => shown(await readCluster(store)),

    updateCa: async ({ certificateLifetimeMs: lifetimeMs }) => {
      if (lifetimeMs !== undefined) checkLifetime(Number(lifetimeMs));
      const { result } = await transact(store, async (tx) => {
        const cluster = await clusterIn(tx);
        if (lifetimeMs !== undefined) cluster.certificateLifetimeMs = lifetimeMs;
        tx.put(tables.cluster, 'self', cluster);
        return cluster;
      });
      log.info({ lifetime: durationText(certificateLifetimeMs(result)) }, 'the CA was updated');
      return shown(result);
    },
  };
}

function checkLifetime(ms: number): void {
  const { minChosenLifetimeMs: min, maxChosenLifetimeMs: max } = limits;
  if (ms >= min && ms <= max) return;
  const what = ms < min ? `shorter than ${durationText(min)}` : `longer than ${durationText(max)}`;
  throw new InroError('bad_input', `a certificate expiry of ${durationText(ms)} is ${what}`, {
    remedy: `choose between ${durationText(min)} and ${durationText(max)}: --cert-expiry 90d`,
  });
}
