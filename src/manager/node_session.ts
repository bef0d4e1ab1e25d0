/**
 * One agent's stream, from the manager's side: proves the session key, tells the node what it should have,
 * and takes its word for what it has done. It is an actor: the dispatcher nudges it, it looks at the view.
 */
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Logger } from 'pino';
import type { Plaintext } from '../crypto/plaintext.js';
import { receiptStatement, sessionKeyStatement } from '../crypto/statement.js';
import { verifyBytes } from '../crypto/signing.js';
import type { Clock, Random } from '../model/clock.js';
import { asInroError, InroError } from '../model/error.js';
import { isId } from '../model/id.js';
import {
  type AgentMessage,
  type Applied,
  type Hello,
  type DeliveredVersionSchema,
  type ManagerMessageSchema,
  type Receipt,
} from '../proto/gen/inro/v1/dispatcher_pb.js';
import type { Peer } from '../rpc/peer.js';
import type { Channel } from '../rpc/stream.js';
import type { Store } from '../store/store.js';
import { ciphertextPrefix, versionKey } from '../store/tables.js';
import {
  assignmentOf,
  differenceOf,
  emptyAssignment,
  isEmpty,
  type Assignment,
  type NeededVersion,
} from './assignment.js';
import type { Keyring } from './keyring.js';
import { managerLimits } from './limits.js';
import type { ClusterView } from './view.js';

export type NodeChannel = Channel<MessageInitShape<typeof ManagerMessageSchema>, AgentMessage>;
export type NodePeer = Extract<Peer, { kind: 'node' }>;

export interface NodeSessionParts {
  clusterId: string;
  view: ClusterView;
  store: Store;
  keyring: Keyring;
  sealingSignature: Uint8Array;
  clock: Clock;
  random: Random;
  log: Logger;
  managerAddresses: () => readonly string[];
  /** Called with what the node said of itself, once its session key is proved; before it gets anything. */
  onHello: (session: NodeSession, hello: Hello) => Promise<void>;
  /** Called when a node that had been silent for so long that it was down is heard again. */
  onBack: () => void;
  /** Called for each message in which the node says what it has done. */
  onApplied: (session: NodeSession, applied: Applied) => Promise<void>;
}

const receiptReasons = new Set(['removed', 'superseded', 'lease', 'stopped']);

export class NodeSession {
  readonly nodeId: string;
  readonly address: string;
  readonly #parts: NodeSessionParts;
  readonly #peer: NodePeer;
  readonly #channel: NodeChannel;
  #sent: Assignment = emptyAssignment();
  #held = new Map<string, string>();
  #sessionKey: Plaintext | undefined;
  #isPushing = false;
  #hasBegun = false;
  #dirty = false;
  #sentRevision = 0;
  /** The store revision that the node has applied, by its own word. */
  appliedRevision = 0;
  /** Boot-time ms at which it was heard last. */
  heardAtMs: number;

  constructor(parts: NodeSessionParts, peer: NodePeer, channel: NodeChannel) {
    this.#parts = parts;
    this.#peer = peer;
    this.#channel = channel;
    this.nodeId = peer.nodeId;
    this.address = peer.address;
    this.heardAtMs = parts.clock.boottimeMs();
  }

  /** Runs until the stream ends. @throws protocol, unauthenticated, and what the stream throws. */
  async run(): Promise<void> {
    const messages = this.#channel.messages[Symbol.asyncIterator]();
    try {
      const hello = await this.#greet(messages);
      await this.#parts.onHello(this, hello);
      await this.#welcome();
      this.#hasBegun = true;
      this.#sendAssignment(true);
      await this.#listen(messages);
    } finally {
      this.#sessionKey?.wipe();
      this.#sessionKey = undefined;
    }
  }

  /** True when a node that has applied this revision knows nothing of the task any more. */
  isRidOf(taskId: string, appliedRevision: number): boolean {
    return appliedRevision > 0 && appliedRevision >= this.#sentRevision && !this.#sent.tasks.has(taskId);
  }

  /** The view has changed, and this node may be concerned. */
  nudge(): void {
    if (this.#hasBegun) this.#sendAssignment(false);
  }

  /** Ends the stream; the agent comes back when it is still one of ours. */
  close(reason?: InroError): void {
    this.#channel.close(reason);
  }

  async #greet(messages: AsyncIterator<AgentMessage>): Promise<Hello> {
    const { clusterId, clock, random } = this.#parts;
    const nonce = random(32);
    const late = clock.timer(managerLimits.helloMs, () => this.#channel.close());
    try {
      await this.#channel.send({ message: { case: 'challenge', value: { nonce, clusterId } } });
      const first = await messages.next();
      const hello = first.done === true ? undefined : first.value.message;
      if (hello?.case !== 'hello')
        throw new InroError('protocol', 'the first message of a stream must be Hello');
      this.#prove(nonce, hello.value);
      return hello.value;
    } finally {
      late.cancel();
    }
  }

  /** A session key counts only with the node key's signature over this stream's nonce. */
  #prove(nonce: Uint8Array, { bootId, sessionKey, proof, holdings }: Hello): void {
    const { clusterId, keyring } = this.#parts;
    const statement = sessionKeyStatement({ nonce, clusterId, nodeId: this.nodeId, bootId, sessionKey });
    if (!verifyBytes(this.#peer.certificate.publicKey, statement, proof)) {
      throw new InroError(
        'unauthenticated',
        'the session key is not signed by the node key of this certificate',
      );
    }
    if (holdings.length > managerLimits.maxHoldings) {
      throw new InroError(
        'too_large',
        `${holdings.length} holdings are more than ${managerLimits.maxHoldings}`,
      );
    }
    this.#sessionKey = keyring.sessionKey(sessionKey);
    for (const { secretId, version, ciphertextDigest } of holdings) {
      this.#held.set(versionKey(secretId, version), Buffer.from(ciphertextDigest).toString('hex'));
    }
  }

  async #welcome(): Promise<void> {
    const { clusterId, keyring, sealingSignature, managerAddresses } = this.#parts;
    await this.#channel.send({
      message: {
        case: 'welcome',
        value: {
          heartbeatPeriodMs: managerLimits.heartbeatPeriodMs,
          leaseMs: BigInt(managerLimits.leaseMs),
          managerAddresses: [...managerAddresses()],
          sealingKey: { clusterId, publicKey: keyring.sealingPublicKey, signature: sealingSignature },
        },
      },
    });
  }

  async #listen(messages: AsyncIterator<AgentMessage>): Promise<void> {
    for (let next = await messages.next(); next.done !== true; next = await messages.next()) {
      const silentMs = this.#parts.clock.boottimeMs() - this.heardAtMs;
      this.heardAtMs += silentMs;
      if (silentMs > managerLimits.missedBeats * managerLimits.heartbeatPeriodMs) this.#parts.onBack();
      const { message } = next.value;
      switch (message.case) {
        case 'heartbeat':
          await this.#channel.send({
            message: { case: 'heartbeatAck', value: { sequence: message.value.sequence } },
          });
          break;
        case 'applied':
          await this.#applied(message.value);
          break;
        default:
          throw new InroError('protocol', `a second ${message.case ?? 'unknown message'} in one stream`);
      }
    }
  }

  async #applied(applied: Applied): Promise<void> {
    if (applied.tasks.length > managerLimits.maxStatusesPerMessage) {
      throw new InroError('too_large', `${applied.tasks.length} task states in one message`);
    }
    if (applied.receipts.length > managerLimits.maxReceiptsPerMessage) {
      throw new InroError('too_large', `${applied.receipts.length} receipts in one message`);
    }
    for (const receipt of applied.receipts) this.#checkReceipt(receipt);
    // States first: whoever waits for the revision wants to see them.
    await this.#parts.onApplied(this, applied);
    this.appliedRevision = Math.max(
      this.appliedRevision,
      Math.min(Number(applied.revision), this.#sentRevision),
    );
    this.#parts.log.debug({ node: this.nodeId, revision: this.appliedRevision }, 'applied');
    this.onProgress?.();
  }

  /** Set by the dispatcher: called when `appliedRevision` may have grown. */
  onProgress: (() => void) | undefined;

  #checkReceipt({ secretId, version, reason, wipedMs, durationUs, signature }: Receipt): void {
    if (!isId(secretId) || !receiptReasons.has(reason)) {
      throw new InroError('protocol', 'a receipt that names no secret or no reason that is known');
    }
    const { clusterId, log } = this.#parts;
    const { nodeId } = this;
    if ([wipedMs, durationUs].some((time) => time < 0n || time > BigInt(Number.MAX_SAFE_INTEGER)))
      throw new InroError('protocol', 'a receipt has a time that cannot be');
    const statement = receiptStatement({
      clusterId,
      nodeId,
      secretId,
      version,
      reason,
      wipedMs: Number(wipedMs),
      durationUs: Number(durationUs),
    });
    if (!verifyBytes(this.#peer.certificate.publicKey, statement, signature)) {
      throw new InroError('unauthenticated', 'a receipt is not signed by the node key of this certificate');
    }
    log.info(
      { node: nodeId, secret: secretId, version, reason, durationUs: Number(durationUs) },
      'wiped, by receipt',
    );
  }

  #sendAssignment(complete: boolean): void {
    this.#dirty = true;
    if (this.#isPushing) return;
    this.#isPushing = true;
    void this.#pushAll(complete);
  }

  async #pushAll(complete: boolean): Promise<void> {
    try {
      await this.#push(complete);
    } catch (error) {
      this.#parts.log.warn(
        { err: error, node: this.nodeId },
        'an assignment could not be sent; the stream ends',
      );
      this.#channel.close();
    }
  }

  async #push(complete: boolean): Promise<void> {
    for (let first = complete; this.#dirty; first = false) {
      this.#dirty = false;
      const { view } = this.#parts;
      const revision = view.revision;
      const wanted = assignmentOf(view, this.nodeId);
      const difference = differenceOf(this.#sent, wanted);
      if (!first && isEmpty(difference)) {
        await this.#upToDate(revision);
        continue;
      }
      const { send } = this.#channel;
      await send({ message: { case: 'begin', value: { complete: first } } });
      for (const id of difference.removeTasks) {
        await send({ message: { case: 'change', value: { change: { case: 'removeTaskId', value: id } } } });
      }
      for (const needed of difference.putVersions) await this.#sendVersion(needed);
      for (const task of difference.putTasks) {
        await send({ message: { case: 'change', value: { change: { case: 'putTask', value: task } } } });
      }
      this.#sentRevision = revision;
      this.#sent = wanted;
      this.#held = new Map(); // counts for the first, complete assignment alone
      await send({ message: { case: 'commit', value: { revision: BigInt(revision) } } });
    }
    this.#isPushing = false; // in the step that saw nothing left to do: a nudge is never lost in between
  }

  /** Nothing to send for this revision: the node has it as soon as it has what was sent before. */
  async #upToDate(revision: number): Promise<void> {
    const isOnItsWay = this.appliedRevision < this.#sentRevision;
    this.#sentRevision = revision;
    if (!isOnItsWay) {
      this.appliedRevision = revision;
      this.onProgress?.();
      return;
    }
    // The commit on its way is acknowledged under its own number: ask for one under the new number.
    const { send } = this.#channel;
    await send({ message: { case: 'begin', value: { complete: false } } });
    await send({ message: { case: 'commit', value: { revision: BigInt(revision) } } });
  }

  async #sendVersion(needed: NeededVersion): Promise<void> {
    const value = await this.#delivery(needed);
    await this.#channel.send({
      message: { case: 'change', value: { change: { case: 'putVersion', value } } },
    });
  }

  /** A record that does not open concerns the tasks that need it, and nobody else. */
  async #delivery({
    secretId,
    version,
  }: NeededVersion): Promise<MessageInitShape<typeof DeliveredVersionSchema>> {
    const { clusterId, view, store, keyring, log } = this.#parts;
    const key = versionKey(secretId, version);
    try {
      const record = view.version(secretId, version);
      if (record === undefined || this.#sessionKey === undefined)
        throw new InroError('store_corrupt', `the record of ${key} is missing`);
      const { ciphertextDigest, createdMs } = record;
      const head = { secretId, version, createdMs, ciphertextDigest };
      if (this.#held.get(key) === Buffer.from(ciphertextDigest).toString('hex')) return head;
      const ciphertext = (await store.get(ciphertextPrefix + key))?.value;
      if (ciphertext === undefined)
        throw new InroError('store_corrupt', `the ciphertext of ${key} is missing`);
      const sealedKey = keyring.deliver(
        record.sealedKey,
        { clusterId, secretId, version, ciphertextDigest },
        this.#sessionKey,
      );
      return { ...head, ciphertext, sealedKey };
    } catch (error) {
      log.error({ err: error, secret: secretId, version }, 'a version cannot be delivered');
      return { secretId, version, error: asInroError(error).message };
    }
  }
}
