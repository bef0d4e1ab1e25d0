/** Who makes a call of Control, and what he may see. Looked up on each call: what an operator may do can change at any time. */
import { InroError } from '../model/error.js';
import { quoted } from '../model/name.js';
import { checkOperatorRole, isGranted, type OperatorRole } from '../model/operator.js';
import type { OperatorRecord, ServiceRecord } from '../proto/gen/inro/v1/records_pb.js';
import type { Peer } from '../rpc/peer.js';
import { keyDigest } from './refusals.js';
import type { ClusterView } from './view.js';

export type ControlPeer = Extract<Peer, { kind: 'local' | 'operator' }>;
type OperatorPeer = Extract<Peer, { kind: 'operator' }>;

/** For log and audit: the manager's own socket, or that of another manager. */
export function socketOf({ through }: Extract<Peer, { kind: 'local' }>): string {
  return through === undefined ? 'socket' : `socket of manager ${through.nodeId}, ${through.address}`;
}

export interface Caller {
  /** An operator's name; undefined for who opened the manager's socket. */
  name: string | undefined;
  role: OperatorRole;
  /** Whether this secret, by its name, is any business of his. */
  sees(secretName: string): boolean;
}

const local: Caller = { name: undefined, role: 'admin', sees: () => true };

/** @throws as operatorOf, without looking at the time. */
export function callerOf(view: ClusterView, peer: ControlPeer): Caller {
  if (peer.kind === 'local') return local;
  const { name, role: text, grants } = recordOf(view, peer);
  const role = checkOperatorRole(text);
  return { name, role, sees: role === 'deployer' ? (secret) => isGranted(grants, secret) : () => true };
}

/**
 * The operator whose certificate this is.
 * @throws foreign_cluster; not_permitted when he was removed or revoked, or has another certificate since;
 *   bad_certificate when it has expired.
 */
export function operatorOf(
  view: ClusterView,
  peer: OperatorPeer,
  clusterId: string,
  now: number,
): OperatorRecord {
  if (peer.clusterId !== clusterId)
    throw new InroError(
      'foreign_cluster',
      `this identity is of cluster ${peer.clusterId}, and this is cluster ${clusterId}`,
      { remedy: 'use the identity that an admin of this cluster has made: --identity FILE' },
    );
  const record = recordOf(view, peer);
  const { certificate } = peer;
  const { serial } = certificate;
  const digest = keyDigest(certificate.publicKey);
  const isLatest = serial === record.serial && sameBytes(digest, record.keyDigest);
  const isFormer =
    serial === record.formerSerial &&
    sameBytes(digest, record.formerKeyDigest) &&
    BigInt(now) <= record.formerUntilMs;
  if (!isLatest && !isFormer) {
    throw new InroError('not_permitted', `operator ${quoted(record.name)} has another certificate since`, {
      remedy: `use the identity file that is the latest; if somebody else renewed it, have an admin revoke it: inro operator revoke ${record.name}`,
    });
  }
  const endsMs = isLatest
    ? Math.min(certificate.notAfterMs, Number(record.expiresMs))
    : certificate.notAfterMs;
  if (now > endsMs) {
    throw new InroError(
      'bad_certificate',
      `the identity of operator ${quoted(record.name)} expired at ${new Date(endsMs).toISOString()}`,
      { remedy: expiredRemedy(record.name) },
    );
  }
  return record;
}

function expiredRemedy(name: string): string {
  return `ask an admin for another: inro operator rm ${name}, then inro operator create ${name} --role ROLE`;
}

function recordOf(view: ClusterView, { operatorId }: OperatorPeer): OperatorRecord {
  const record = view.operators.get(operatorId);
  if (record === undefined) {
    throw new InroError('not_permitted', `there is no operator ${operatorId} any more`, {
      remedy: "ask an admin; 'inro operator create' makes a new identity",
    });
  }
  if (record.revokedMs > 0n) {
    const since = new Date(Number(record.revokedMs)).toISOString();
    throw new InroError('not_permitted', `operator ${quoted(record.name)} is revoked since ${since}`, {
      remedy: 'ask an admin why',
    });
  }
  return record;
}

/** @throws not_permitted, whether there is such a secret or not. */
export function checkSees(caller: Caller, secretName: string): void {
  if (caller.sees(secretName)) return;
  throw new InroError(
    'not_permitted',
    `operator ${quoted(caller.name ?? '')} has no grant for secret ${quoted(secretName)}`,
    {
      remedy: `ask an admin: inro operator update --grant-add ${secretName} ${caller.name ?? 'NAME'}`,
    },
  );
}

/** A deployer sees a service, and may change it, when all its secrets are granted to him: otherwise he could move them. */
export function seesService(caller: Caller, { references }: Pick<ServiceRecord, 'references'>): boolean {
  return references.every(({ secretName }) => caller.sees(secretName));
}

/** @throws not_permitted, naming none of the secrets. */
export function checkSeesService(caller: Caller, service: Pick<ServiceRecord, 'name' | 'references'>): void {
  if (seesService(caller, service)) return;
  throw new InroError(
    'not_permitted',
    `service ${quoted(service.name)} uses secrets that operator ${quoted(caller.name ?? '')} has no grant for`,
    { remedy: 'ask an admin, who can do it, or grant them: inro operator update --grant-add GLOB' },
  );
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}
