/** Whether who shows a certificate of this root is one of this cluster now. */
import { InroError } from '../model/error.js';
import type { Peer } from '../rpc/peer.js';

type NodePeer = Extract<Peer, { kind: 'node' }>;

/** @throws foreign_cluster. */
export function checkCluster(peer: NodePeer, clusterId: string): void {
  if (peer.clusterId === clusterId) return;
  throw new InroError(
    'foreign_cluster',
    `this certificate is of cluster ${peer.clusterId}, and this is cluster ${clusterId}`,
  );
}

/** For a node that the store does not have. */
export function notAMember({ nodeId }: NodePeer): InroError {
  return new InroError('not_permitted', `node ${nodeId} is not one of this cluster any more`, {
    remedy: 'join it again with a fresh token: inro agent join --again --token - --manager HOST:PORT',
  });
}
