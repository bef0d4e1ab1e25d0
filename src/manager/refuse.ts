/** What a caller hears whose certificate is refused, on every call. */
import { InroError } from '../model/error.js';
import type { RefusedRecord } from '../proto/gen/inro/v1/records_pb.js';
import type { Peer } from '../rpc/peer.js';
import type { Refusals } from './refusals.js';

/** @throws not_permitted when the caller shows a certificate that is refused. */
export function checkNotRefused(refusals: Refusals, peer: Peer): void {
  if (peer.kind !== 'node') return;
  const record = refusals.of(peer.certificate);
  if (record !== undefined) throw refusedError(record);
}

export function refusedError({ nodeId, reason, refusedMs }: RefusedRecord): InroError {
  const since = new Date(Number(refusedMs)).toISOString();
  switch (reason) {
    case 'rejected':
      return new InroError('not_permitted', `an operator has rejected node ${nodeId} at ${since}`, {
        remedy: 'ask the operators why; with a fresh token this host may ask again',
      });
    case 'replaced':
      return new InroError(
        'not_permitted',
        `this certificate of node ${nodeId} is refused: the node enrolled again at ${since}`,
        { remedy: `if that was not this host, another one has its identity: 'inro node rm ${nodeId}'` },
      );
    default:
      return new InroError('not_permitted', `node ${nodeId} was removed from the cluster at ${since}`, {
        remedy:
          'if it is to be a node again, under a new id: stop its agent, then inro agent join --again --token - --manager HOST:PORT',
      });
  }
}
