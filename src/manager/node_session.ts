/**
 * One agent's stream, from the manager's side: proves the session key, tells the node what it should have,
 * and takes its word for what it has done. It is an actor: the dispatcher nudges it, it looks at the view.
 */
import type { SealingKeySchema } from '../proto/gen/inro/v1/common_pb.js';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Logger } from 'pino';
import type { Plaintext } from '../crypto/plaintext.js';
import { sessionKeyStatement } from '../crypto/statement.js';
import { verifyBytes } from '../crypto/signing.js';
import type { Clock, Random } from '../model/clock.js';
import { InroError } from '../model/error.js';
import type { Certificate } from '../pki/certificate.js';
import type {
  AccessBatch,
  AgentMessage,
  Applied,
  AssignmentChangeSchema,
  Hello,
  ManagerMessageSchema,
} from '../proto/gen/inro/v1/dispatcher_pb.js';
import type { Peer } from '../rpc/peer.js';
import type { Channel } from '../rpc/stream.js';
import { notLeader } from '../store/etcd.js';
import type { Store } from '../store/store.js';
import { versionKey } from '../store/tables.js';
import {
  assignmentOf,
  differenceOf,
  emptyAssignment,
  isEmpty,
  revokedOn,
  type Assignment,
  type NeededVersion,
} from './assignment.js';
import { deliveryOf } from './delivery.js';
import type { Authorities } from './authorities.js';
import type { Keyring } from './keyring.js';
import type { Ledger } from './ledger.js';
import { managerLimits } from './limits.js';
import { NodeCopies } from './node_copies.js';
import type { Pace } from './pace.js';
import type { ReadBook } from './read_book.js';
import { checkBatch } from './read_check.js';
import type { ClusterView } from './view.js';

export type NodeChannel = Channel<MessageInitShape<typeof ManagerMessageSchema>, AgentMessage>;
export type NodePeer = Extract<Peer, { kind: 'node' }>;

export interface NodeSessionParts {
  clusterId: string;
  view: ClusterView;
  store: Store;
  keyring: Keyring;
  ledger: Ledger;
  reads: ReadBook;
  sealingKey: () => MessageInitShape<typeof SealingKeySchema>;
  authority: Pick<Authorities, 'trusted' | 'signerOf' | 'check'>;
  clock: Clock;
  random: Random;
  log: Logger;
  managerAddresses: () => readonly string[];
  /** How much this node may say, in all its streams. */
  words: Pace;
  /** Whether another manager may lead by now. */
  isOver?: () => boolean;
  /** Called with what the node said of itself, once its session key is proved; before it gets anything. */
  onHello: (session: NodeSession, hello: Hello) => Promise<void>;
  /** Called when a node that had been silent for so long that it was down is heard again. */
  onBack: () => void;
  /** Called for each message in which the node says what it has done. */
  onApplied: (session: NodeSession, applied: Applied) => Promise<void>;
}

export class NodeSession {
  readonly nodeId: string;
  readonly address: string;
  readonly #parts: NodeSessionParts;
  readonly #peer: NodePeer;
  readonly #channel: NodeChannel;
  #sent: Assignment = emptyAssignment();
  /** What is being sent now. */
  #wanted: Assignment = emptyAssignment();
  readonly #copies: NodeCopies;
  #sessionKey: Plaintext | undefined;
  #isPushing = false;
  #isCounting = false;
  #hasBegun = false;
  #dirty = false;
  #sentRevision = 0;
  /** Whether it is there. */
  #asked: { nonce: Uint8Array; answer: () => void } | undefined;
  /** Tasks that it was told to have no more, and whose containers have not ended yet; the service of each. */
  #ending: ReadonlyMap<string, string> = new Map();
  /** The store revision that the node has applied, by its own word. */
  appliedRevision = 0;
  /** Boot-time ms at which it was heard last. */
  heardAtMs: number;
  /** For each message that it has not taken yet: boot-time ms since when. */
  readonly #untaken = new Set<{ sinceMs: number }>();

  constructor(parts: NodeSessionParts, peer: NodePeer, channel: NodeChannel) {
    this.#parts = parts;
    this.#peer = peer;
    this.#channel = channel;
    this.nodeId = peer.nodeId;
    this.address = peer.address;
    this.heardAtMs = parts.clock.boottimeMs();
    const { publicKey } = peer.certificate;
    const needs = (version: NeededVersion): boolean => this.#needs(version);
    const isOver = (): boolean => this.#channel.closed.aborted;
    this.#copies = new NodeCopies(parts, { nodeId: this.nodeId, publicKey, needs, isOver });
  }

  /** Runs until the stream ends. @throws protocol, unauthenticated, and what the stream throws. */
  async run(): Promise<void> {
    const messages = this.#channel.messages[Symbol.asyncIterator]();
    try {
      const hello = await this.#greet(messages);
      await this.#parts.onHello(this, hello);
      await this.#copies.greet(hello);
      await this.#welcome();
      this.#hasBegun = true;
      this.#sendAssignment(true);
      await this.#listen(messages);
    } finally {
      this.#sessionKey?.wipe();
      this.#sessionKey = undefined;
    }
  }

  get certificate(): Certificate {
    return this.#peer.certificate;
  }

  /** True when a node that has applied this revision knows nothing of the task any more. */
  isRidOf(taskId: string, appliedRevision: number): boolean {
    const isTold = appliedRevision > 0 && appliedRevision >= this.#sentRevision;
    return isTold && !this.#sent.tasks.has(taskId) && !this.#ending.has(taskId);
  }

  /** Whether a container of a task of this service, which is removed, has not ended yet. */
  isEnding(serviceId: string): boolean {
    return [...this.#ending.values()].includes(serviceId);
  }

  /** For how long it has let something lie that it was sent. */
  get lagMs(): number {
    const [oldest] = this.#untaken;
    return oldest === undefined ? 0 : this.#parts.clock.boottimeMs() - oldest.sinceMs;
  }

  /** Over, for whatever reason. */
  get closed(): AbortSignal {
    return this.#channel.closed;
  }

  /** Whether its agent answers within this time. @param signal that nobody wants to know any more. */
  async presence(ms: number, signal: AbortSignal): Promise<'answers' | 'absent'> {
    const { clock, random } = this.#parts;
    const over = new AbortController();
    const nonce = random(32);
    const answered = new Promise<'answers'>((resolve) => {
      this.#asked = { nonce, answer: () => resolve('answers') };
    });
    const end = (): void => over.abort();
    for (const one of [signal, this.#channel.closed]) one.addEventListener('abort', end, { once: true });
    if (this.#channel.closed.aborted) end();
    // One that reads nothing any more takes no message either.
    this.#send({ message: { case: 'presence', value: { nonce } } }).catch(end);
    try {
      return await Promise.race([answered, clock.sleep(ms, over.signal).then(() => 'absent' as const)]);
    } finally {
      this.#asked = undefined;
      over.abort();
      for (const one of [signal, this.#channel.closed]) one.removeEventListener('abort', end);
    }
  }

  /** The view has changed, and this node may be concerned. */
  nudge(): void {
    if (this.#hasBegun) this.#sendAssignment(false);
  }

  /** @param renew whether it is to ask for another certificate now. */
  tellRoots({ renew }: { renew: boolean }): void {
    // The stream ended: it is told in the next one.
    if (this.#hasBegun) this.#sendRoots({ renew }).catch(() => undefined);
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
      await this.#send({ message: { case: 'challenge', value: { nonce, clusterId } } });
      const first = await messages.next();
      const hello = first.done === true ? undefined : first.value.message;
      if (hello?.case !== 'hello')
        throw new InroError('protocol', 'the first message of a stream must be Hello');
      this.#prove(nonce, hello.value);
      // From when it has sent this its lease counts: it may be long after the stream began.
      this.heardAtMs = clock.boottimeMs();
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
  }

  /** A connection is verified when it begins, and may last for longer than its certificate. */
  #checkTime(): void {
    const { notAfterMs } = this.#peer.certificate;
    if (this.#parts.clock.now() <= notAfterMs) return;
    throw new InroError(
      'unauthenticated',
      `the certificate of node ${this.nodeId} expired at ${new Date(notAfterMs).toISOString()}`,
      {
        remedy: 'enrol that host again with a fresh token: inro agent join --token - --manager HOST:PORT',
      },
    );
  }

  async #welcome(): Promise<void> {
    const { sealingKey, managerAddresses } = this.#parts;
    await this.#send({
      message: {
        case: 'welcome',
        value: {
          heartbeatPeriodMs: managerLimits.heartbeatPeriodMs,
          leaseMs: BigInt(managerLimits.leaseMs),
          managerAddresses: [...managerAddresses()],
          sealingKey: sealingKey(),
        },
      },
    });
    await this.#sendRoots({ renew: false });
  }

  async #sendRoots({ renew }: { renew: boolean }): Promise<void> {
    const { trusted } = this.#parts.authority;
    if (trusted === undefined) return;
    await this.#send({ message: { case: 'trustedRoots', value: { ...trusted, renew } } });
  }

  async #listen(messages: AsyncIterator<AgentMessage>): Promise<void> {
    for (let next = await messages.next(); next.done !== true; next = await messages.next()) {
      if (this.#parts.isOver?.() === true) throw notLeader();
      const silentMs = this.#parts.clock.boottimeMs() - this.heardAtMs;
      this.heardAtMs += silentMs;
      this.#checkTime();
      if (silentMs > managerLimits.missedBeats * managerLimits.heartbeatPeriodMs) this.#parts.onBack();
      const { message } = next.value;
      const waitMs = this.#parts.words.take(costOf(message));
      if (waitMs > 0) await this.#parts.clock.sleep(waitMs, this.#channel.closed);
      if (this.#channel.closed.aborted) continue;
      switch (message.case) {
        case 'heartbeat':
          await this.#send({
            message: { case: 'heartbeatAck', value: { sequence: message.value.sequence } },
          });
          if (message.value.accesses !== undefined) {
            checkBatch(message.value.accesses);
            void this.#count(message.value.accesses);
          }
          break;
        case 'applied':
          await this.#applied(message.value);
          break;
        case 'presence':
          if (this.#asked !== undefined && Buffer.compare(this.#asked.nonce, message.value.nonce) === 0)
            this.#asked.answer();
          break; // an answer that comes late says nothing
        default:
          throw new InroError('protocol', `a second ${message.case ?? 'unknown message'} in one stream`);
      }
    }
  }

  /** Beats do not wait for it. One at a time: what is told meanwhile is told again. */
  async #count(batch: AccessBatch): Promise<void> {
    if (this.#isCounting) return;
    this.#isCounting = true;
    try {
      const { runId, number } = batch;
      if (await this.#parts.reads.take(this.nodeId, batch))
        await this.#send({ message: { case: 'accessesTaken', value: { runId, number } } });
    } catch (error) {
      // The stream is over: it is told again in the next one.
      this.#parts.log.debug(
        { err: error, node: this.nodeId },
        'counts of accesses could not be acknowledged',
      );
    } finally {
      this.#isCounting = false;
    }
  }

  async #applied(applied: Applied): Promise<void> {
    if (applied.tasks.length > managerLimits.maxStatusesPerMessage) {
      throw new InroError('too_large', `${applied.tasks.length} task states in one message`);
    }
    if (applied.receipts.length > managerLimits.maxReceiptsPerMessage) {
      throw new InroError('too_large', `${applied.receipts.length} receipts in one message`);
    }
    if (applied.ending.length > managerLimits.maxStatusesPerMessage) {
      throw new InroError('too_large', `${applied.ending.length} ending tasks in one message`);
    }
    if (applied.absent.length > managerLimits.maxStatusesPerMessage) {
      throw new InroError('too_large', `${applied.absent.length} absent versions in one message`);
    }
    this.#ending = new Map(applied.ending.map(({ taskId, serviceId }) => [taskId, serviceId]));
    if (applied.receipts.length > 0) {
      const value = await this.#copies.take(applied.receipts);
      await this.#send({ message: { case: 'receiptsTaken', value } });
    }
    this.#copies.lacks(applied.absent);
    if (applied.revision > 0n) {
      const revision = Number(applied.revision);
      const isAll = revision >= this.#sentRevision;
      await this.#copies.applied(revision, isAll ? this.#sent.revoked : undefined);
    }
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

  #needs({ secretId, version }: NeededVersion): boolean {
    const key = versionKey(secretId, version);
    return this.#sent.versions.has(key) || this.#wanted.versions.has(key);
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
      this.#wanted = wanted;
      const difference = differenceOf(this.#sent, wanted);
      if (!first && isEmpty(difference)) {
        await this.#upToDate(revision);
        continue;
      }
      const { revoke, removeTasks, putVersions, putTasks } = difference;
      if (putVersions.length > 0) await this.#copies.sends(putVersions, revision);
      const send = this.#send.bind(this);
      // Of a node that is removed nothing waits for its containers.
      const atOnce = (view.nodes.get(this.nodeId)?.removingMs ?? 0n) > 0n;
      await send({ message: { case: 'begin', value: { complete: first, atOnce } } });
      for (const value of revoke) await this.#sendChange({ case: 'revoke', value });
      for (const value of removeTasks) await this.#sendChange({ case: 'removeTaskId', value });
      for (const needed of putVersions) {
        if (this.#dirty) await this.#sendRevoked(wanted);
        await this.#sendVersion(needed);
      }
      for (const value of putTasks) await this.#sendChange({ case: 'putTask', value });
      this.#sentRevision = revision;
      this.#sent = wanted;
      this.#copies.assigned();
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
    await this.#send({ message: { case: 'begin', value: { complete: false } } });
    await this.#send({ message: { case: 'commit', value: { revision: BigInt(revision) } } });
  }

  /** What is revoked while much else is being told does not wait for the end of that. */
  async #sendRevoked(told: Assignment): Promise<void> {
    for (const [key, value] of revokedOn(this.#parts.view, this.nodeId)) {
      if (told.revoked.has(key)) continue;
      told.revoked.set(key, value);
      await this.#sendChange({ case: 'revoke', value });
    }
  }

  /** Nothing is delivered once its revocation is stored: what is revoked meanwhile is looked at in the step that sends. */
  async #sendVersion(needed: NeededVersion): Promise<void> {
    const receiver = { sessionKey: this.#sessionKey, copies: this.#copies };
    const value = await deliveryOf(needed, receiver, this.#parts);
    const isRevoked = this.#parts.view.isRevoked(needed.secretId, needed.version);
    await this.#sendChange(isRevoked ? { case: 'revoke', value: needed } : { case: 'putVersion', value });
  }

  #sendChange(change: NonNullable<MessageInitShape<typeof AssignmentChangeSchema>['change']>): Promise<void> {
    return this.#send({ message: { case: 'change', value: { change } } });
  }

  async #send(message: MessageInitShape<typeof ManagerMessageSchema>): Promise<void> {
    const untaken = { sinceMs: this.#parts.clock.boottimeMs() };
    this.#untaken.add(untaken);
    try {
      await this.#channel.send(message);
    } finally {
      this.#untaken.delete(untaken);
    }
  }
}

/** In the units of `wordsPace`. */
function costOf(message: AgentMessage['message']): number {
  if (message.case === 'heartbeat') return 1 + (message.value.accesses?.counts.length ?? 0) / 10;
  if (message.case !== 'applied') return 1;
  const { receipts, tasks, ending, absent } = message.value;
  return 1 + receipts.length + (tasks.length + ending.length + absent.length) / 10;
}
