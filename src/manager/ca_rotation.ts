/**
 * Another CA takes the place of the one that signs. From the first moment everything is signed by the new one, whose root the
 * old one vouches for, so that whoever trusts the old one verifies it, too; and what the old one signed is accepted, until each
 * node was here with a certificate of the new one, or the deadline is over. Nodes are told a few at a time to renew now.
 */
import { once } from 'node:events';
import { create } from '@bufbuild/protobuf';
import type { Logger } from 'pino';
import { generateNodeKey } from '../crypto/signing.js';
import type { Clock, Random } from '../model/clock.js';
import { durationText } from '../model/duration.js';
import { asInroError, InroError } from '../model/error.js';
import { newId } from '../model/id.js';
import { authorityDigest, createAuthority, openAuthority } from '../pki/authority.js';
import { readBrought, type Brought } from '../pki/brought.js';
import type { Certificate } from '../pki/certificate.js';
import { chainPem, readChain, type Chain } from '../pki/chain.js';
import { createCsr } from '../pki/csr.js';
import { toBytes } from '../pki/der.js';
import { issuerOf } from '../pki/issuer.js';
import { limits } from '../pki/limits.js';
import { parseJoinToken } from '../pki/join_token.js';
import { verifyNodeCertificate } from '../pki/verify.js';
import { CaRecordSchema, type NodeRecord } from '../proto/gen/inro/v1/records_pb.js';
import type { Store } from '../store/store.js';
import { tables } from '../store/tables.js';
import { transact } from '../store/transaction.js';
import type { AuditBook } from './audit_book.js';
import type { Authorities } from './authorities.js';
import { adoptNextCa, dropNextCa, saveNextCa } from './ca_files.js';
import { clusterIn } from './cluster_record.js';
import type { Dispatcher } from './dispatcher.js';
import type { Keyring } from './keyring.js';
import { managerLimits } from './limits.js';
import type { NodeSession } from './node_session.js';
import type { ClusterView } from './view.js';

export interface CaRotationParts {
  folder: string;
  authority: Authorities;
  store: Store;
  view: ClusterView;
  keyring: Keyring;
  audit: Pick<AuditBook, 'append'>;
  dispatcher: Dispatcher;
  /** Of one that an earlier manager has begun; 0: none is under way. */
  deadlineMs: number;
  /** Another CA signs, or one is not believed any more. */
  onChanged: () => Promise<void>;
  /** To every manager, before a key is used and after another one has taken its place. */
  publish: () => Promise<void>;
  clock: Clock;
  random: Random;
  log: Logger;
}

export interface Progress {
  startedMs: number;
  deadlineMs: number;
  former: Certificate;
  nodes: number;
  left: readonly NodeRecord[];
  endingTokens: number;
}

export class CaRotation {
  readonly #parts: CaRotationParts;
  readonly #over = new AbortController();
  readonly #running: Promise<void>;
  #deadlineMs: number;
  /** By boot time, so that a wall clock that jumps ends nothing early. */
  #deadlineBootMs = 0;
  /** Boot-time ms at which each stream's node was told to renew. */
  readonly #askedMs = new WeakMap<NodeSession, number>();
  #isBeginning = false;
  #wake = new AbortController();

  constructor(parts: CaRotationParts) {
    this.#parts = parts;
    this.#deadlineMs = 0;
    this.#until(parts.deadlineMs);
    this.#running = this.#run();
  }

  async stop(): Promise<void> {
    this.#over.abort();
    this.#wake.abort();
    await this.#running;
  }

  /** Undefined while none is under way. */
  get progress(): Progress | undefined {
    const { authority, view } = this.#parts;
    const [former] = authority.former;
    if (former === undefined) return undefined;
    const startedMs = Number(authority.records.at(-1)?.sinceMs ?? 0n);
    const nodes = this.#certified();
    return {
      startedMs,
      deadlineMs: this.#deadlineMs,
      former: readChain(former.chainPem).at(-1) as Certificate,
      nodes: nodes.length,
      left: nodes.filter((node) => !this.#isDone(node)),
      endingTokens: this.#changesRoot()
        ? [...view.joinTokens.values()].filter(isBefore(startedMs)).length
        : 0,
    };
  }

  /** Nodes that were not renewed in time: they are served again when their hosts have enrolled again. */
  mustEnrol(node: NodeRecord): boolean {
    const { authority } = this.#parts;
    if (!this.#isCertified(node) || this.#isDone(node)) return false;
    return authority.retiredMs(node.usedCa.length > 0 ? node.usedCa : node.issuedCa) !== undefined;
  }

  /**
   * @param given a CA that is brought along; undefined: a root is made.
   * @param deadlineMs from now.
   * @throws conflict while one is under way; bad_input, bad_certificate for a CA that cannot be used; state_unusable, store_full.
   */
  async begin(given: Brought | undefined, deadlineMs: number): Promise<void> {
    checkDeadline(deadlineMs, managerLimits.minRotationMs);
    if (this.#parts.authority.isExternal)
      throw new InroError('not_supported', 'the CA is an external one, and vouches for no other root', {
        remedy: 'found another cluster to have another CA; its hosts join that with its tokens',
      });
    if (this.#isBeginning || this.#parts.authority.former.length > 0) throw underWay();
    this.#isBeginning = true;
    try {
      await this.#begin(given, deadlineMs);
    } finally {
      this.#isBeginning = false;
    }
    this.#wake.abort();
  }

  /** @param deadlineMs from now; 0 ends it. @throws not_found when none is under way; bad_input. */
  async setDeadline(deadlineMs: number): Promise<void> {
    const { authority, store, clock, log } = this.#parts;
    checkDeadline(deadlineMs, 0);
    if (authority.former.length === 0)
      throw new InroError('not_found', 'no rotation of the CA is under way', {
        remedy: "'inro ca inspect' shows how it stands; 'inro ca rotate' begins one",
      });
    const atMs = clock.now() + deadlineMs;
    await transact(store, async (tx) => {
      const cluster = await clusterIn(tx);
      cluster.rotationDeadlineMs = BigInt(atMs);
      tx.put(tables.cluster, 'self', cluster);
    });
    this.#until(atMs);
    log.info({ deadline: iso(atMs) }, 'the deadline of the rotation of the CA was changed');
    if (deadlineMs === 0) await this.#look();
    else this.#wake.abort();
  }

  #until(atMs: number): void {
    const { clock } = this.#parts;
    this.#deadlineMs = atMs;
    this.#deadlineBootMs = clock.boottimeMs() + (atMs - clock.now());
  }

  async #begin(given: Brought | undefined, deadlineMs: number): Promise<void> {
    const { folder, authority, store, keyring, clock, random, log, publish, onChanged } = this.#parts;
    const { clusterId } = authority;
    const now = clock.now();
    const next =
      given === undefined
        ? createAuthority({ clusterId, isNext: true, clock, random })
        : readBrought(given, now);
    const chain = readChain(next.certPem);
    checkIsAnother(chain, authority);
    const record = create(CaRecordSchema, {
      chainPem: chainPem(chain),
      crossPem: crossOf(chain, authority, now),
      sinceMs: BigInt(now),
    });
    tryOut(record.chainPem, next.keyPem, { ...this.#parts, crossPem: record.crossPem });
    saveNextCa(folder, next);
    try {
      await publish();
      await transact(store, async (tx) => {
        const cluster = await clusterIn(tx);
        if (cluster.cas.length === 0) cluster.cas = [...authority.records];
        cluster.cas = [...cluster.cas, record].slice(-managerLimits.maxCas);
        cluster.rotationDeadlineMs = BigInt(now + deadlineMs);
        const token = parseJoinToken(keyring.readText(cluster.sealedWorkerToken));
        const { der } = chain.at(-1) as Certificate;
        cluster.sealedWorkerToken = keyring.keepText(token.under(der).reveal());
        tx.put(tables.cluster, 'self', cluster);
      });
    } catch (error) {
      dropNextCa(folder);
      throw error;
    }
    authority.add(record, next.keyPem);
    this.#until(now + deadlineMs);
    try {
      adoptNextCa(folder);
    } catch (thrown) {
      const error = asInroError(thrown);
      log.error(
        { err: error, remedy: error.remedy },
        'the files of the new CA are not in their place; the next start moves them',
      );
    }
    await publish();
    const { fingerprint } = chain.at(-1) as Certificate;
    log.info({ root: fingerprint, deadline: iso(this.#deadlineMs) }, 'the CA is being rotated');
    await onChanged();
  }

  async #run(): Promise<void> {
    const { authority, clock, log } = this.#parts;
    while (!this.#over.signal.aborted) {
      try {
        await this.#look();
      } catch (thrown) {
        const error = asInroError(thrown);
        log.warn({ err: error, remedy: error.remedy }, 'the rotation of the CA goes on later');
      }
      const { signal } = this.#wake;
      if (authority.former.length > 0) await clock.sleep(managerLimits.rotationCheckMs, signal);
      else if (!signal.aborted) await once(signal, 'abort');
      this.#wake = new AbortController();
    }
  }

  async #look(): Promise<void> {
    const { clock } = this.#parts;
    const { progress } = this;
    if (progress === undefined || this.#isBeginning) return;
    if (progress.left.length === 0 || clock.boottimeMs() >= this.#deadlineBootMs)
      await this.#finish(progress);
    else this.#tellToRenew(progress.left);
  }

  /** So many at a time: each new certificate costs a signature and a commit, and a new stream. */
  #tellToRenew(left: readonly NodeRecord[]): void {
    const { authority, dispatcher, clock } = this.#parts;
    const now = clock.boottimeMs();
    // One that has just come back with a new certificate may not be written yet.
    const sessions = left
      .flatMap(({ id }) => dispatcher.session(id) ?? [])
      .filter(({ certificate }) => !authority.hasSigned(certificate));
    const isAsked = (session: NodeSession): boolean =>
      now - (this.#askedMs.get(session) ?? -Infinity) < managerLimits.renewalGapMs;
    const asked = sessions.filter(isAsked).length;
    const free = Math.max(0, managerLimits.maxRenewingNodes - asked);
    for (const session of sessions.filter((one) => !isAsked(one)).slice(0, free)) {
      this.#askedMs.set(session, now);
      session.tellRoots({ renew: true });
    }
  }

  async #finish({ left, startedMs }: Progress): Promise<void> {
    const { authority, store, view, audit, clock, log, onChanged } = this.#parts;
    const now = BigInt(clock.now());
    const tokens = this.#changesRoot() ? [...view.joinTokens.values()].filter(isBefore(startedMs)) : [];
    const { result } = await transact(store, async (tx) => {
      const cluster = await clusterIn(tx);
      for (const ca of cluster.cas.slice(0, -1)) if (ca.retiredMs === 0n) ca.retiredMs = now;
      cluster.rotationDeadlineMs = 0n;
      tx.put(tables.cluster, 'self', cluster);
      // They name a root that nobody is to trust any more.
      for (const { id } of tokens) {
        const token = await tx.get(tables.joinTokens, id);
        if (token !== undefined && token.expiresMs > now)
          tx.put(tables.joinTokens, id, Object.assign(token, { expiresMs: now }));
      }
      return cluster;
    });
    authority.retired(result.cas);
    if (left.length === 0) log.info('the CA was rotated: each node has a certificate of the new one');
    else
      log.warn(
        { nodes: left.map(({ id }) => id).slice(0, managerLimits.maxShownNodes), count: left.length },
        'the CA was rotated; these nodes were away, and their hosts have to enrol again',
      );
    const reason = left.length === 0 ? '' : `${left.length} nodes were away, and have to enrol again`;
    await audit.append({ action: 'ca-rotated', object: authority.root.fingerprint, outcome: 'done', reason });
    await onChanged();
  }

  /** A CA below the same root changes nothing for who trusts that. */
  #changesRoot(): boolean {
    const { records } = this.#parts.authority;
    const roots = records.slice(-2).map(({ chainPem: pem }) => readChain(pem).at(-1)?.fingerprint);
    return roots[0] !== roots[1];
  }

  #certified(): NodeRecord[] {
    return [...this.#parts.view.nodes.values()].filter((node) => this.#isCertified(node));
  }

  #isCertified({ pendingUntilMs, removingMs, certificateExpiresMs }: NodeRecord): boolean {
    const isMember = pendingUntilMs === 0n && removingMs === 0n;
    return isMember && certificateExpiresMs > BigInt(this.#parts.clock.now());
  }

  #isDone({ usedCa, issuedCa }: NodeRecord): boolean {
    const { authority } = this.#parts;
    return authority.isPresent(usedCa.length > 0 ? usedCa : issuedCa);
  }
}

/** @throws bad_input. */
function checkIsAnother(chain: Chain, authority: Authorities): void {
  const [signer, root] = [chain[0], chain.at(-1) as Certificate];
  if (authority.isKnown(authorityDigest(signer)))
    throw new InroError('bad_input', 'that CA has the key of one that this cluster has, or had', {
      remedy: 'give a CA with a new key',
    });
  if (root.fingerprint === authority.root.fingerprint) return;
  const [name, present] = [root, authority.root].map((one) => issuerOf(one)?.subject);
  const isSame =
    name !== undefined && present !== undefined && Buffer.compare(toBytes(name), toBytes(present)) === 0;
  if (isSame)
    throw new InroError('bad_input', 'its root has the name of the present one, and is another', {
      remedy: 'make a root with another subject name: certificates are matched with their issuers by it',
    });
}

/**
 * By which whoever trusts the present root verifies what the next CA signs; and who trusts one from before that, because it was
 * away or has not heard of the last rotation, as far as a chain may reach.
 */
function crossOf(next: Chain, authority: Authorities, now: number): string {
  const root = next.at(-1) as Certificate;
  if (root.fingerprint === authority.root.fingerprint) return authority.crossPem;
  const cross = [authority.crossSign(root), ...authority.chain.slice(0, -1)];
  const before = authority.crossPem === '' ? [] : readChain(authority.crossPem);
  const room = limits.maxChainCertificates - (next.length - 1) - cross.length;
  const isGood = before.every(({ notAfterMs }) => now <= notAfterMs);
  return chainPem([...cross, ...(isGood ? before.slice(0, Math.max(0, room)) : [])]);
}

/** A certificate that it issues must be good for who trusts it, and for who trusts the one before. @throws bad_certificate. */
function tryOut(
  certPem: string,
  keyPem: string,
  { authority, crossPem, clock, random }: CaRotationParts & { crossPem: string },
): void {
  const { clusterId, root } = authority;
  const next = openAuthority(certPem, keyPem, { clusterId, clock, random, crossPem });
  const { privateKey } = generateNodeKey();
  const issued = next.issueNode({ csr: createCsr(privateKey), nodeId: newId(random), role: 'worker' });
  try {
    const now = clock.now();
    verifyNodeCertificate(issued.pem + next.intermediatesPem, { rootPem: root.pem, clusterId, now });
  } catch (cause) {
    throw new InroError(
      'bad_certificate',
      `the present CA cannot vouch for that one, and nodes that trust it would be lost: ${asInroError(cause).message}`,
      {
        remedy:
          'its own path length may forbid a CA below it: give another intermediate of the same root, or one that this root has signed',
        cause,
      },
    );
  }
}

function checkDeadline(ms: number, minMs: number): void {
  const { maxRotationMs } = managerLimits;
  if (ms >= minMs && ms <= maxRotationMs) return;
  throw new InroError(
    'bad_input',
    `a deadline of ${durationText(ms)} is too ${ms < minMs ? 'short' : 'long'}`,
    {
      remedy: `choose between ${durationText(minMs)} and ${durationText(maxRotationMs)}: --deadline 24h`,
    },
  );
}

function underWay(): InroError {
  return new InroError('conflict', 'a rotation of the CA is under way', {
    remedy:
      "'inro ca inspect' shows how far it is; 'inro ca update --rotation-deadline now' ends it now, and who is not renewed must enrol again",
  });
}

function isBefore(startedMs: number): (token: { createdMs: bigint }) => boolean {
  return ({ createdMs }) => Number(createdMs) < startedMs;
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
