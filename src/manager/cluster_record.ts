/** What is kept of the cluster itself. */
import { InroError } from '../model/error.js';
import { limits } from '../pki/limits.js';
import type { ClusterRecord } from '../proto/gen/inro/v1/records_pb.js';
import type { Store } from '../store/store.js';
import { tables } from '../store/tables.js';
import { transact, type Transaction } from '../store/transaction.js';

/** @throws store_corrupt. */
export async function readCluster(store: Store): Promise<ClusterRecord> {
  return (await transact(store, clusterIn)).result;
}

/** The record, to be changed and put back. @throws store_corrupt. */
export async function clusterIn(tx: Transaction): Promise<ClusterRecord> {
  const cluster = await tx.get(tables.cluster, 'self');
  if (cluster === undefined) throw new InroError('store_corrupt', 'the cluster record is missing');
  return cluster;
}

/** Of certificates that are issued now. */
export function certificateLifetimeMs(cluster: Pick<ClusterRecord, 'certificateLifetimeMs'>): number {
  return Number(cluster.certificateLifetimeMs) || limits.nodeLifetimeMs;
}
