/**
 * Two hosts with one identity: a copied disk, a cloned machine. A node has one stream; whoever comes with its certificate while
 * one lives waits until that one is known to be gone, or says nothing for two heartbeats (a host that lost its power or its
 * network is not locked out). If it answers, the newcomer is held back, and operators hear of it until one of them decides.
 */
import { create } from '@bufbuild/protobuf';
import type { Logger } from 'pino';
import type { Clock } from '../model/clock.js';
import { InroError } from '../model/error.js';
import { CloneAlarmSchema } from '../proto/gen/inro/v1/common_pb.js';
import type { NodeRecord } from '../proto/gen/inro/v1/records_pb.js';
import type { Store } from '../store/store.js';
import { tables } from '../store/tables.js';
import { transact } from '../store/transaction.js';
import type { AuditBook } from './audit_book.js';
import { managerLimits } from './limits.js';
import type { NodeSession } from './node_session.js';
import { keyDigest } from './refusals.js';

export type CloneAlarmKind = 'two hosts' | 'old certificate';

/** Who was seen beside the node that counts. */
interface Other {
  address: string;
  hostname: string;
  bootId: string;
}

export interface ClonesParts {
  store: Store;
  audit: Pick<AuditBook, 'append'>;
  clock: Clock;
  log: Logger;
}

export class Clones {
  readonly #parts: ClonesParts;
  /** By node: the newcomer that waits for an answer. One for each, so that nobody has many streams wait. */
  readonly #waiting = new Map<string, NodeSession>();

  constructor(parts: ClonesParts) {
    this.#parts = parts;
  }

  /** Returns when the newer stream may take the older one's place. @throws conflict when it may not. */
  async admit(older: NodeSession, newer: NodeSession, other: Other): Promise<void> {
    const { nodeId } = newer;
    if (this.#waiting.has(nodeId))
      throw new InroError('conflict', `another stream of node ${nodeId} waits for the same place`, {
        remedy: 'it is tried again by itself',
      });
    this.#waiting.set(nodeId, newer);
    try {
      const waitMs = managerLimits.clonePatienceBeats * managerLimits.heartbeatPeriodMs;
      const presence = await older.presence(waitMs, newer.closed);
      if (newer.closed.aborted)
        throw new InroError('unreachable', `node ${nodeId} went away while it waited`);
      if (presence === 'absent') return;
    } finally {
      this.#waiting.delete(nodeId);
    }
    await transact(this.#parts.store, async (tx) => {
      const node = await tx.get(tables.nodes, nodeId);
      if (node === undefined || this.#isKnown(node, 'two hosts', other)) return;
      this.#raise(node, 'two hosts', older.address, other);
      tx.put(tables.nodes, nodeId, node);
    });
    throw new InroError(
      'conflict',
      `node ${nodeId} has a stream already, from ${older.address}, and that host answers: two hosts use one identity`,
      {
        remedy:
          "one of them is a copy: on that one stop the agent, empty its state folder and join with a fresh token; what of it operators know shows 'inro node inspect'",
      },
    );
  }

  /**
   * Notes under which of its keys the node is here. Whoever comes with an older one than was used before is a copy from before
   * a renewal, or a backup that was restored: it is let in where nobody else is, and operators hear of it.
   * @param node changed, and the caller's to put.
   */
  noteUse(node: NodeRecord, { address, certificate }: NodeSession, other: Other): void {
    const digest = keyDigest(certificate.publicKey);
    const isSame = (known: Uint8Array): boolean => Buffer.compare(known, digest) === 0;
    if (isSame(node.usedKeyDigest)) return;
    if (node.usedKeyDigest.length === 0 || isSame(node.keyDigest)) node.usedKeyDigest = digest;
    else this.#raise(node, 'old certificate', address, other);
  }

  /** An operator has seen it. */
  clear(node: NodeRecord): void {
    delete node.clone;
  }

  /** It comes back every few seconds. */
  #isKnown({ clone }: NodeRecord, kind: CloneAlarmKind, { bootId, address }: Other): boolean {
    const isSame = clone?.kind === kind && clone.otherBootId === bootId;
    return (
      isSame &&
      hostOf(clone.otherAddress) === hostOf(address) &&
      this.#parts.clock.now() - Number(clone.seenMs) < managerLimits.cloneAlarmGapMs
    );
  }

  #raise(
    node: NodeRecord,
    kind: CloneAlarmKind,
    address: string,
    { hostname, bootId, ...other }: Other,
  ): void {
    const { audit, clock, log } = this.#parts;
    const now = BigInt(clock.now());
    const before = node.clone;
    node.clone = create(CloneAlarmSchema, {
      kind,
      sinceMs: before?.sinceMs ?? now,
      seenMs: now,
      count: (before?.count ?? 0) + 1,
      address,
      otherAddress: other.address,
      otherHostname: hostname,
      otherBootId: bootId,
    });
    const isNews = before?.kind !== kind || before.otherBootId !== bootId;
    log[isNews ? 'warn' : 'debug'](
      { node: node.id, kind, address, other: other.address, hostname, bootId },
      'an identity is used twice',
    );
    if (!isNews) return;
    const reason = `an identity is used twice (${kind}): by ${address}, and by ${other.address} (${hostname})`;
    void audit.append({ action: 'clone', object: node.id, address: other.address, outcome: 'alarm', reason });
  }
}

/** Each of its streams has another port. */
function hostOf(address: string): string {
  return address.replace(/:\d+$/, '');
}
