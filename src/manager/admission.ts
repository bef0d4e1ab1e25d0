/**
 * Who becomes a node: a host that shows a join token, once for each use that the token has. The use is counted in the commit
 * that makes the node, so neither a crash nor a race makes two nodes of one use; and a host whose answer was lost asks again
 * with the same key, and gets the same node.
 */
import { create } from '@bufbuild/protobuf';
import type { Logger } from 'pino';
import { constantTimeEqual, spkiOf, verifyBytes, type KeyObject } from '../crypto/signing.js';
import { enrolAgainStatement } from '../crypto/statement.js';
import type { Clock, Random } from '../model/clock.js';
import { InroError } from '../model/error.js';
import { newId } from '../model/id.js';
import type { Certificate } from '../pki/certificate.js';
import { leafOf } from '../pki/chain.js';
import { readCsr } from '../pki/csr.js';
import { parseJoinToken, type JoinToken } from '../pki/join_token.js';
import { verifyNodeCertificate } from '../pki/verify.js';
import { NodeDescriptionSchema } from '../proto/gen/inro/v1/common_pb.js';
import type { FormerIdentity, IssueCertificateRequest } from '../proto/gen/inro/v1/enrollment_pb.js';
import {
  NodeRecordSchema,
  RefusedRecordSchema,
  type JoinTokenRecord,
  type NodeRecord,
} from '../proto/gen/inro/v1/records_pb.js';
import type { Store } from '../store/store.js';
import { tables } from '../store/tables.js';
import type { Transaction } from '../store/transaction.js';
import type { AuditBook } from './audit_book.js';
import type { Authorities, Issued } from './authorities.js';
import { CommitQueue } from './commit_queue.js';
import { certificateLifetimeMs, clusterIn } from './cluster_record.js';
import type { JoinGuard } from './join_guard.js';
import type { Keyring } from './keyring.js';
import { managerLimits } from './limits.js';
import { isCertifiedFor, keptDescription, noteCertificate } from './node_record.js';
import { keyDigest } from './refusals.js';
import { refusedError } from './refuse.js';
import type { ClusterView } from './view.js';

export interface AdmissionParts {
  authority: Authorities;
  store: Store;
  view: ClusterView;
  keyring: Keyring;
  guard: JoinGuard;
  audit: Pick<AuditBook, 'append' | 'appendStranger'>;
  clock: Clock;
  random: Random;
  log: Logger;
}

export interface Admitted {
  nodeId: string;
  /** Undefined while an operator has to approve the node. */
  issued: Issued | undefined;
  pendingUntilMs: bigint;
  newIdBecause: string;
}

interface Asked {
  csrPem: string;
  token: JoinToken;
  description: IssueCertificateRequest['description'];
  address: string;
  /** The key that the CSR proves. */
  publicKey: KeyObject;
  digest: Uint8Array;
  /** The certificate whose key vouches for the new one. */
  former: Certificate | undefined;
  /** Set when its token is none that this manager has. */
  isWrong: boolean;
  /** For the node that it becomes, if it becomes a new one. */
  newId: string;
  /** What the CA has signed for it so far. */
  signed: { nodeId: string; issued: Issued } | undefined;
}

/** Nothing is written before the CA has signed for this node: where it is elsewhere, that takes its time. */
class NotSigned {
  readonly nodeId: string;
  readonly lifetimeMs: number;
  constructor(nodeId: string, lifetimeMs: number) {
    this.nodeId = nodeId;
    this.lifetimeMs = lifetimeMs;
  }
}

/** One attempt of a commit. */
interface Attempt {
  tx: Transaction;
  /** Ids of nodes by the digest of their key in hex: what the view does not know yet. */
  admitted: Map<string, string>;
}

type Decision = Admitted & { wasAdmitted: boolean; hostname: string };

/** What shows that a node is meant: nothing for the standing token. */
type Grant = JoinTokenRecord | 'standing';

export class Admission {
  readonly #parts: AdmissionParts;
  readonly #queue: CommitQueue<Attempt>;

  constructor(parts: AdmissionParts) {
    this.#parts = parts;
    this.#queue = new CommitQueue(parts.store, {
      begin: (tx) => ({ tx, admitted: new Map() }),
      maxWeight: managerLimits.maxEnrolmentsPerCommit,
    });
  }

  /** @throws bad_token, rate_limited, bad_input, unauthenticated, not_permitted, already_exists, too_large, store_full. */
  async admit(request: IssueCertificateRequest, address: string): Promise<Admitted> {
    const { guard, audit, log } = this.#parts;
    guard.check(address);
    const asked = this.#read(request, address);
    const { nodeId, wasAdmitted, hostname, ...rest } = await this.#decided(asked);
    const words =
      rest.issued === undefined
        ? 'a host waits for approval'
        : wasAdmitted
          ? 'a host was given its certificate'
          : asked.former === undefined
            ? 'a host joined'
            : 'a host enrolled again';
    log.info({ node: nodeId, address, hostname }, words);
    const serial = rest.issued?.certificate.serial ?? '';
    // It asks every few seconds while it waits: once is enough.
    if (rest.issued !== undefined || !wasAdmitted)
      await audit.append({
        action: 'join',
        object: nodeId,
        serial,
        address,
        outcome: 'done',
        reason: `${words}: ${hostname}`,
      });
    return { nodeId, ...rest };
  }

  /** Ends when what was asked for is written; nothing is, after it. */
  stop(): Promise<void> {
    return this.#queue.stop();
  }

  async #decided(asked: Asked): Promise<Decision> {
    for (let tries = 0; tries < managerLimits.maxEnrolmentTries; tries++) {
      const outcome = await this.#once(asked);
      if (!(outcome instanceof NotSigned)) return outcome;
      const { nodeId, lifetimeMs } = outcome;
      const request = { csr: asked.csrPem, nodeId, role: 'worker', lifetimeMs } as const;
      asked.signed = { nodeId, issued: await this.#parts.authority.issue(request) };
    }
    throw new InroError('conflict', 'this host asks several times at once, or is decided on just now');
  }

  /** Its refusals are outcomes, too: others are decided in the same commit. */
  async #once(asked: Asked): Promise<Decision | NotSigned> {
    let outcome: Decision | NotSigned | InroError | undefined;
    await this.#queue.do(async (attempt) => {
      try {
        const decided = await this.#decide(attempt, asked);
        outcome = decided;
        if (!(decided instanceof NotSigned)) attempt.admitted.set(hex(asked.digest), decided.nodeId);
      } catch (error) {
        if (!(error instanceof InroError) || error.code === 'store_corrupt') throw error;
        outcome = error;
      }
    });
    if (outcome === undefined) throw new InroError('internal', 'an enrolment was not decided');
    if (outcome instanceof InroError) {
      if (outcome.code === 'bad_token') {
        if (asked.isWrong) this.#parts.guard.noteWrong(asked.address);
        const { address } = asked;
        const line = { action: 'join', address, outcome: 'bad_token', reason: outcome.message };
        await this.#parts.audit.appendStranger(line);
        this.#parts.log.warn(
          { address: asked.address, why: outcome.message },
          'a host showed a join token that is not valid',
        );
      }
      throw outcome;
    }
    return outcome;
  }

  #read({ csrPem, token, description, former }: IssueCertificateRequest, address: string): Asked {
    const parsed = parseJoinToken(token);
    const publicKey = readCsr(csrPem);
    return {
      csrPem,
      token: parsed,
      description,
      address,
      publicKey,
      digest: keyDigest(publicKey),
      former: former === undefined ? undefined : this.#proved(former, publicKey),
      isWrong: false,
      newId: newId(this.#parts.random),
      signed: undefined,
    };
  }

  /** @throws unauthenticated, bad_certificate, foreign_cluster. That it has expired is no fault of it. */
  #proved({ certificatePem, proof }: FormerIdentity, publicKey: KeyObject): Certificate {
    const { authority, clock } = this.#parts;
    const { clusterId } = authority;
    const { notAfterMs } = leafOf(certificatePem);
    const former = verifyNodeCertificate(certificatePem, {
      // Also one of a CA that is not believed any more: whose key it has stands in the node's record.
      rootPem: authority.everyRootPem,
      clusterId,
      role: 'worker',
      now: Math.min(clock.now(), notAfterMs),
    });
    const { nodeId } = former;
    const statement = enrolAgainStatement({ clusterId, nodeId, publicKey: spkiOf(publicKey) });
    if (!verifyBytes(former.publicKey, statement, proof))
      throw new InroError(
        'unauthenticated',
        'the new key is not signed by the key of the former certificate',
      );
    return former;
  }

  async #decide({ tx, admitted }: Attempt, asked: Asked): Promise<Decision | NotSigned> {
    const { view } = this.#parts;
    const refused = view.refusals.ofKey(asked.digest);
    if (refused !== undefined) throw refusedError(refused);
    const known = await this.#nodeOfKey(tx, admitted, asked.digest);
    if (known !== undefined) return this.#again(tx, known, asked);
    const grant = await this.#grantOf(tx, asked);
    const { node, newIdBecause } = await this.#nodeFor(tx, asked, grant);
    const hostname = node.description?.hostname ?? '';
    const isNew = node.keyDigest.length === 0;
    if (isNew && grant !== 'standing' && grant.requireApproval) {
      this.#wait(node, asked.digest);
      this.#countUse(tx, grant);
      tx.put(tables.nodes, node.id, node);
      const { id: nodeId, pendingUntilMs } = node;
      return { nodeId, issued: undefined, pendingUntilMs, newIdBecause, wasAdmitted: false, hostname };
    }
    const issued = await this.#issue(tx, node, asked);
    if (issued instanceof NotSigned) return issued;
    this.#countUse(tx, grant);
    return { nodeId: node.id, issued, pendingUntilMs: 0n, newIdBecause, wasAdmitted: false, hostname };
  }

  /** Who has the key of a node that has not used its certificate yet, is that node. */
  async #again(tx: Transaction, node: NodeRecord, asked: Asked): Promise<Decision | NotSigned> {
    const { id: nodeId, pendingUntilMs } = node;
    const hostname = node.description?.hostname ?? '';
    const rest = { newIdBecause: '', wasAdmitted: true, hostname };
    if (pendingUntilMs > BigInt(this.#parts.clock.now()))
      return { nodeId, issued: undefined, pendingUntilMs, ...rest };
    if (pendingUntilMs > 0n) throw inVain(node);
    if (!node.uncollected) {
      throw new InroError('already_exists', `this key is that of node ${nodeId} already`, {
        remedy: 'a host draws a key of its own when it joins: empty its state folder and join again',
      });
    }
    const issued = await this.#issue(tx, node, asked);
    return issued instanceof NotSigned ? issued : { nodeId, issued, pendingUntilMs: 0n, ...rest };
  }

  async #nodeOfKey(
    tx: Transaction,
    admitted: ReadonlyMap<string, string>,
    digest: Uint8Array,
  ): Promise<NodeRecord | undefined> {
    const now = admitted.get(hex(digest));
    if (now !== undefined) return tx.get(tables.nodes, now);
    for (const { id, keyDigest: own } of this.#parts.view.nodes.values())
      if (Buffer.compare(own, digest) === 0) return tx.get(tables.nodes, id);
    return undefined;
  }

  /** Each token is compared, whichever it is. @throws bad_token */
  async #grantOf(tx: Transaction, asked: Asked): Promise<Grant> {
    const { token } = asked;
    const { view, keyring, authority, clock } = this.#parts;
    const cluster = await clusterIn(tx);
    const standing = parseJoinToken(keyring.readText(cluster.sealedWorkerToken));
    const isStanding = token.secretMatches(standing);
    const hash = token.secretHash(authority.clusterId);
    const matching = [...view.joinTokens.values()].filter((one) => constantTimeEqual(one.secretHash, hash));
    if (isStanding) return 'standing';
    const [found] = matching;
    asked.isWrong = found === undefined;
    return usableToken(tx, found?.id, 'worker', clock.now());
  }

  /** Together with the node that it makes, and only then. */
  #countUse(tx: Transaction, grant: Grant): void {
    if (grant === 'standing') return;
    grant.usesLeft -= 1;
    grant.lastUsedMs = BigInt(this.#parts.clock.now());
    tx.put(tables.joinTokens, grant.id, grant);
  }

  /** The node that the former key proves, or a new one. */
  async #nodeFor(
    tx: Transaction,
    { former, description, address, newId: id }: Asked,
    grant: Grant,
  ): Promise<{ node: NodeRecord; newIdBecause: string }> {
    const { clock } = this.#parts;
    const labels = grant === 'standing' ? {} : grant.nodeLabels;
    const about =
      description === undefined ? undefined : create(NodeDescriptionSchema, keptDescription(description));
    let newIdBecause = '';
    if (former !== undefined) {
      const { node, why } = await this.#former(tx, former);
      if (node !== undefined) {
        Object.assign(node.labels, labels);
        node.address = address;
        if (about !== undefined) node.description = about;
        return { node, newIdBecause };
      }
      newIdBecause = why;
    }
    const node = create(NodeRecordSchema, {
      id,
      role: 'worker',
      createdMs: BigInt(clock.now()),
      address,
      labels,
      joinTokenId: grant === 'standing' ? '' : grant.id,
    });
    if (about !== undefined) node.description = about;
    return { node, newIdBecause };
  }

  async #former(tx: Transaction, former: Certificate): Promise<{ node?: NodeRecord; why: string }> {
    const { nodeId } = former;
    if (this.#parts.view.refusals.of(former) !== undefined)
      return { why: `node ${nodeId} was removed, or enrolled again since` };
    const node = await tx.get(tables.nodes, nodeId);
    if (node === undefined || node.removingMs > 0n)
      return { why: `node ${nodeId} is not one of the cluster any more` };
    if (!isCertifiedFor(node, former)) return { why: `node ${nodeId} has had other keys since` };
    return { node, why: '' };
  }

  #wait(node: NodeRecord, digest: Uint8Array): void {
    const { view, clock } = this.#parts;
    const waiting = [...view.nodes.values()].filter(({ pendingUntilMs }) => pendingUntilMs > 0n).length;
    if (waiting >= managerLimits.maxPendingNodes) {
      throw new InroError('too_large', `${waiting} hosts wait for approval already`, {
        remedy: "approve or reject some of them first: 'inro node ls' lists them, 'inro node approve ID'",
      });
    }
    node.keyDigest = digest;
    node.pendingUntilMs = BigInt(clock.now() + managerLimits.pendingNodeMs);
  }

  /** Writes nothing where the CA has not signed for this node yet. */
  async #issue(
    tx: Transaction,
    node: NodeRecord,
    { signed, former, digest }: Asked,
  ): Promise<Issued | NotSigned> {
    const { clock } = this.#parts;
    if (signed?.nodeId !== node.id) return new NotSigned(node.id, certificateLifetimeMs(await clusterIn(tx)));
    const { issued } = signed;
    if (former?.nodeId === node.id && Buffer.compare(keyDigest(former.publicKey), digest) !== 0) {
      // Whoever has a copy of the former key is not this node any more; nor of one that it was given by a renewal since.
      const untilMs = Math.max(former.notAfterMs, Number(node.certificateExpiresMs));
      const refused = create(RefusedRecordSchema, {
        nodeId: node.id,
        hostname: node.description?.hostname ?? '',
        reason: 'replaced',
        refusedMs: BigInt(clock.now()),
        untilMs: BigInt(untilMs),
        serials: [...new Set([former.serial, node.certificateSerial])],
        keyDigests: [keyDigest(former.publicKey), node.keyDigest].filter(({ length }) => length > 0),
        nodeStays: true,
      });
      if (untilMs > clock.now()) tx.put(tables.refused, `${node.id}-${former.serial}`, refused);
    }
    noteCertificate(node, issued);
    node.uncollected = true;
    tx.put(tables.nodes, node.id, node);
    return issued;
  }
}

/** @param id undefined: there is none with that secret. @throws bad_token */
export async function usableToken(
  tx: Transaction,
  id: string | undefined,
  role: 'worker' | 'manager',
  now: number,
): Promise<JoinTokenRecord> {
  const record = id === undefined ? undefined : await tx.get(tables.joinTokens, id);
  if (record === undefined) {
    throw new InroError('bad_token', 'the join token is not valid any more, or never was', {
      remedy:
        role === 'worker'
          ? "ask for the present one on a manager: 'inro token show worker'"
          : "have one made: 'inro token create manager'",
    });
  }
  if (record.role !== role) {
    throw new InroError('bad_token', `the join token is for a ${record.role}, not for a ${role}`, {
      remedy: role === 'worker' ? 'a host becomes a manager by: inro manager join' : 'inro agent join',
    });
  }
  const ended = (how: string): InroError =>
    new InroError('bad_token', `the join token ${how}`, {
      remedy: `ask the operators for a fresh one: 'inro token create ${role}'`,
    });
  if (record.expiresMs <= BigInt(now)) throw ended(`expired at ${iso(record.expiresMs)}`);
  if (record.usesLeft === 0) throw ended(`is used up: it was good for ${uses(record.uses)}`);
  return record;
}

function inVain({ id, pendingUntilMs }: NodeRecord): InroError {
  return new InroError('not_permitted', `nobody approved node ${id} until ${iso(pendingUntilMs)}`, {
    remedy: 'ask the operators for a fresh token, and to approve this host',
  });
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

function uses(count: number): string {
  return count === 1 ? 'one use' : `${count} uses`;
}

function iso(ms: bigint): string {
  return new Date(Number(ms)).toISOString();
}
