/** What one node holds, by its own word: what its Hello names, and what its receipts say is gone. Lives as long as a stream. */
import type { Logger } from 'pino';
import type { KeyObject } from '../crypto/signing.js';
import type { Hello, Receipt } from '../proto/gen/inro/v1/dispatcher_pb.js';
import type { HolderRecord } from '../proto/gen/inro/v1/records_pb.js';
import { versionKey } from '../store/tables.js';
import type { NeededVersion } from './assignment.js';
import type { Ledger } from './ledger.js';
import { checkReceipts } from './receipt_check.js';
import type { ClusterView } from './view.js';

export interface NodeCopiesParts {
  clusterId: string;
  view: ClusterView;
  ledger: Ledger;
  log: Logger;
}

export interface OfNode {
  nodeId: string;
  /** Of its certificate. */
  publicKey: KeyObject;
  /** What it should hold, by what it was told or is being told. */
  needs: (version: NeededVersion) => boolean;
  /** Of the stream: another one may have begun. */
  isOver: () => boolean;
}

export class NodeCopies {
  readonly #parts: NodeCopiesParts;
  readonly #node: OfNode;
  /** Digests of ciphertexts by `versionKey`, for the first assignment of the stream. */
  #held = new Map<string, string>();
  /** What is not among these is not there: until that is noted. Undefined, too, when the Hello could not name all. */
  #named: Set<string> | undefined;
  /** By `versionKey`: what it held when it said Hello; undefined: maybe anything. */
  #atHello: ReadonlySet<string> | undefined;
  /** Made before that. */
  #lastReceipt = 0n;
  /** By `versionKey`: with which revision a version was sent that is not known to have come. */
  readonly #onTheirWay = new Map<string, number>();
  /** By `versionKey`: what it said to be neither assigned any more nor held, until it names the revision. */
  #absent = new Set<string>();

  constructor(parts: NodeCopiesParts, node: OfNode) {
    this.#parts = parts;
    this.#node = node;
  }

  /** What it holds without our notes saying so, as after a restored backup, is noted: it must hear of a revocation. */
  async greet({ holdings, hasMoreHoldings, lastReceipt }: Hello): Promise<void> {
    const { view, ledger } = this.#parts;
    this.#lastReceipt = lastReceipt;
    for (const { secretId, version, ciphertextDigest, retiring } of holdings) {
      if (!retiring) this.#held.set(versionKey(secretId, version), hex(ciphertextDigest));
    }
    // Each once, however often it is named.
    const known = new Map(
      holdings
        .filter(({ secretId, version }) => view.version(secretId, version) !== undefined)
        .map(({ secretId, version }) => [versionKey(secretId, version), { secretId, version }]),
    );
    await ledger.hand(this.#node.nodeId, [...known.values()], 'node', this.#node.isOver);
    this.#atHello = hasMoreHoldings ? undefined : new Set(known.keys());
    if (!hasMoreHoldings) this.#named = new Set(known.keys());
  }

  /** True when it need not be sent the value that came from this ciphertext. */
  holds({ secretId, version }: NeededVersion, ciphertextDigest: Uint8Array): boolean {
    return this.#held.get(versionKey(secretId, version)) === hex(ciphertextDigest);
  }

  /** These are about to be sent to it: it may hold them once this resolves, also when they are not needed any more. */
  async sends(versions: readonly NeededVersion[], revision: number): Promise<void> {
    for (const { secretId, version } of versions) {
      const key = versionKey(secretId, version);
      this.#named?.add(key);
      this.#onTheirWay.set(key, revision);
    }
    await this.#parts.ledger.hand(this.#node.nodeId, versions, 'manager', this.#node.isOver);
  }

  /** Of those that are noted: so it cannot name too many. */
  lacks(versions: readonly NeededVersion[]): void {
    const { holders } = this.#parts.view;
    for (const { secretId, version } of versions)
      if (holders.get(this.#node.nodeId, secretId, version) !== undefined)
        this.#absent.add(versionKey(secretId, version));
  }

  /** An assignment was sent: it holds what that says, whatever the Hello said. */
  assigned(): void {
    this.#held = new Map();
  }

  /**
   * Takes the receipts of one message.
   * @returns what to acknowledge, once it is durable. @throws protocol, unauthenticated.
   */
  async take(receipts: readonly Receipt[]): Promise<{ runId: string; number: bigint }> {
    const { clusterId, ledger, log } = this.#parts;
    const { nodeId, publicKey, needs } = this.#node;
    const { runId = '', number = 0n } = receipts.at(-1) ?? {};
    const lastTaken = ledger.lastTaken(nodeId, runId);
    await checkReceipts(receipts, { clusterId, nodeId, publicKey }, lastTaken);
    // What is on its way is another copy, also if it is not needed any more. An agent that stops holds none of what it should.
    const isOfAnother = (one: Receipt): boolean =>
      (one.reason !== 'stopped' && needs(one)) ||
      this.#onTheirWay.has(versionKey(one.secretId, one.version)) ||
      (one.number <= this.#lastReceipt &&
        this.#atHello?.has(versionKey(one.secretId, one.version)) !== false);
    for (const one of await ledger.take(nodeId, receipts, isOfAnother)) {
      const { secretId, version, reason, durationUs } = one;
      const facts = { node: nodeId, secret: secretId, version, reason, durationUs: Number(durationUs) };
      log.info(facts, 'wiped, by receipt');
    }
    return { runId, number: number > lastTaken ? number : lastTaken };
  }

  /**
   * The node has done what it was told up to this revision: it holds nothing of which it said so, unless that was sent to it again.
   * @param revoked by `versionKey`, when it has done all that it was told: then it holds nothing revoked either, and nothing that it
   * neither named nor was sent.
   */
  async applied(revision: number, revoked: ReadonlyMap<string, NeededVersion> | undefined): Promise<void> {
    const { view, ledger } = this.#parts;
    const { nodeId, needs } = this.#node;
    for (const [key, sent] of this.#onTheirWay) if (sent <= revision) this.#onTheirWay.delete(key);
    const absent = new Set([...this.#absent].filter((key) => !this.#onTheirWay.has(key)));
    this.#absent = new Set();
    const named = revoked === undefined ? undefined : this.#named;
    if (revoked !== undefined) this.#named = undefined;
    if (absent.size === 0 && revoked === undefined) return;
    const isGone = (holder: HolderRecord): boolean => {
      const key = versionKey(holder.secretId, holder.version);
      return !needs(holder) && (absent.has(key) || revoked?.has(key) === true || named?.has(key) === false);
    };
    if (view.holders.ofNode(nodeId).some(isGone)) await ledger.clear(nodeId, isGone);
  }
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
