/**
 * The agent's side of a stream, spoken by hand: every message can be what an honest agent would send, or not.
 * It speaks to whatever is at the other end, in memory or on a network.
 */
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { drawExchangeKey, sharedKey, type ExchangeKey } from '../../src/crypto/exchange.js';
import { openArena, type Arena } from '../../src/crypto/arena.js';
import { digestOf, openValue, unwrap } from '../../src/crypto/envelope.js';
import { readPrivateKey, signBytes } from '../../src/crypto/signing.js';
import { receiptStatement, sessionKeyStatement, type ReceiptFields } from '../../src/crypto/statement.js';
import type { AgentChannel } from '../../src/agent/channel.js';
import type { TaskState } from '../../src/model/task.js';
import {
  ReceiptSchema,
  type AccessBatchSchema,
  type AssignedTask,
  type Challenge,
  type DeliveredVersion,
  type Holding,
  type ManagerMessage,
  type Receipt,
  type ReceiptsTaken,
  type RevokedVersion,
  type TrustedRoots,
  type Welcome,
} from '../../src/proto/gen/inro/v1/dispatcher_pb.js';
import { wireState } from '../../src/proto/task_state.js';
import type { FakeIdentity } from './fake_authority.js';

export interface Assignment {
  complete: boolean;
  revision: number;
  tasks: AssignedTask[];
  removed: string[];
  revoked: RevokedVersion[];
  versions: DeliveredVersion[];
}

export interface HelloChanges {
  /** Signs the session key instead of the node's own. */
  signWith?: string;
  /** Signed instead of this stream's. */
  nonce?: Uint8Array;
  clusterId?: string;
  nodeId?: string;
  sessionKey?: Uint8Array;
  proof?: Uint8Array;
  holdings?: (Pick<Holding, 'secretId' | 'version' | 'ciphertextDigest'> & { retiring?: boolean })[];
  hasMoreHoldings?: boolean;
  lastReceipt?: bigint;
  hostname?: string;
}

export type Said = Omit<ReceiptFields, 'clusterId' | 'nodeId' | 'taskIds'> & { taskIds: string[] };

/** What a receipt says unless a test says otherwise. */
export const anyReceipt: Said = {
  runId: 'r'.repeat(25),
  number: 1,
  secretId: 's'.repeat(25),
  version: 1,
  taskIds: [],
  reason: 'removed',
  wipedMs: 1_000,
  durationUs: 5,
  mapped: false,
};

export class FakeNode {
  readonly channel: AgentChannel;
  readonly identity: FakeIdentity;
  readonly arena: Arena = openArena(8 << 20);
  readonly session: ExchangeKey = drawExchangeKey(this.arena);
  challenge: Challenge | undefined;
  welcome: Welcome | undefined;
  /** Called with each word on what is to be trusted, as it is read; it does not show otherwise. */
  onRoots: ((roots: TrustedRoots) => void) | undefined;
  readonly #messages: AsyncIterator<ManagerMessage>;
  /** Messages that `taken` was not looking for. */
  readonly #passed: ManagerMessage['message'][] = [];

  constructor(channel: AgentChannel, identity: FakeIdentity) {
    this.channel = channel;
    this.identity = identity;
    this.#messages = channel.messages[Symbol.asyncIterator]();
  }

  /** The next message; undefined when the manager ended the stream. @throws when it broke it. */
  async next(): Promise<ManagerMessage['message'] | undefined> {
    return this.#passed.shift() ?? this.#arrived();
  }

  async #arrived(): Promise<ManagerMessage['message'] | undefined> {
    for (;;) {
      const { done, value } = await this.#messages.next();
      if (done === true) return undefined;
      if (value.message.case !== 'trustedRoots') return value.message;
      this.onRoots?.(value.message.value);
    }
  }

  /** The next message, which must be of this kind. */
  async expect<C extends ManagerMessage['message']['case']>(
    wanted: C,
  ): Promise<Extract<ManagerMessage['message'], { case: C }>> {
    const message = await this.next();
    if (message?.case !== wanted) throw new Error(`got ${message?.case ?? 'the end'} instead of ${wanted}`);
    return message as Extract<ManagerMessage['message'], { case: C }>;
  }

  /** Everything up to the end of the stream. */
  async rest(): Promise<ManagerMessage['message'][]> {
    const all: ManagerMessage['message'][] = [];
    for (let next = await this.next(); next !== undefined; next = await this.next()) all.push(next);
    return all;
  }

  /** Answers the challenge with a Hello. */
  async hello(changes: HelloChanges = {}): Promise<void> {
    this.challenge ??= (await this.expect('challenge')).value;
    const { nodeId, keyPem } = this.identity;
    const sessionKey = changes.sessionKey ?? this.session.publicKey;
    const bootId = 'a-boot';
    const statement = sessionKeyStatement({
      nonce: changes.nonce ?? this.challenge.nonce,
      clusterId: changes.clusterId ?? this.challenge.clusterId,
      nodeId: changes.nodeId ?? nodeId,
      bootId,
      sessionKey,
    });
    const proof = changes.proof ?? signBytes(readPrivateKey(changes.signWith ?? keyPem), statement);
    const description = { hostname: changes.hostname ?? `host-${nodeId.slice(0, 4)}` };
    const { holdings = [], hasMoreHoldings = false, lastReceipt = 0n } = changes;
    const value = { description, bootId, sessionKey, proof, holdings, hasMoreHoldings, lastReceipt };
    await this.channel.send({ message: { case: 'hello', value } });
  }

  /** An honest beginning: hello, welcome, the complete assignment. */
  async begin(changes: HelloChanges = {}): Promise<Assignment> {
    await this.hello(changes);
    this.welcome = (await this.expect('welcome')).value;
    return this.assignment();
  }

  /** The next assignment, from begin to commit. */
  async assignment(): Promise<Assignment> {
    const { complete } = (await this.expect('begin')).value;
    const assignment: Assignment = {
      complete,
      revision: 0,
      tasks: [],
      removed: [],
      revoked: [],
      versions: [],
    };
    for (;;) {
      const message = await this.next();
      if (message?.case === 'commit') return { ...assignment, revision: Number(message.value.revision) };
      if (message?.case !== 'change') throw new Error(`got ${message?.case ?? 'the end'} in an assignment`);
      const { change } = message.value;
      if (change.case === 'putTask') assignment.tasks.push(change.value);
      else if (change.case === 'putVersion') assignment.versions.push(change.value);
      else if (change.case === 'removeTaskId') assignment.removed.push(change.value);
      else if (change.case === 'revoke') assignment.revoked.push(change.value);
    }
  }

  /** Says that the assignment is done, and its tasks in this state. */
  async applied(
    { revision, tasks }: Pick<Assignment, 'revision'> & { tasks: readonly { id: string }[] },
    state: TaskState = 'RUNNING',
    error = '',
    absent: { secretId: string; version: number }[] = [],
  ): Promise<void> {
    const statuses = tasks.map(({ id }) => ({ taskId: id, state: wireState(state), error, atMs: 0n }));
    const value = { revision: BigInt(revision), tasks: statuses, receipts: [], absent };
    await this.channel.send({ message: { case: 'applied', value } });
  }

  /** Signed by this node, or by another key. */
  receipt(says: Partial<Said> = {}, changes: { signWith?: string } = {}): Receipt {
    const { nodeId, keyPem } = this.identity;
    const said = { ...anyReceipt, ...says };
    const statement = receiptStatement({ clusterId: this.challenge?.clusterId ?? '', nodeId, ...said });
    return create(ReceiptSchema, {
      ...said,
      number: BigInt(said.number),
      wipedMs: BigInt(said.wipedMs),
      durationUs: BigInt(said.durationUs),
      signature: signBytes(readPrivateKey(changes.signWith ?? keyPem), statement),
    });
  }

  async report(receipts: readonly Receipt[], revision = 0): Promise<void> {
    const value = { revision: BigInt(revision), tasks: [], receipts: [...receipts] };
    await this.channel.send({ message: { case: 'applied', value } });
  }

  /** A heartbeat that tells of accesses. */
  async beat(sequence: number, accesses: MessageInitShape<typeof AccessBatchSchema>): Promise<void> {
    await this.channel.send({ message: { case: 'heartbeat', value: { sequence, accesses } } });
  }

  /** The next acknowledgement of receipts; what comes before it stays to be read. */
  async taken(): Promise<ReceiptsTaken> {
    return (await this.hears('receiptsTaken')).value;
  }

  /** The next message of this kind; what comes before it stays to be read. */
  async hears<C extends ManagerMessage['message']['case']>(
    wanted: C,
  ): Promise<Extract<ManagerMessage['message'], { case: C }>> {
    const is = (message: ManagerMessage['message']): message is Extract<typeof message, { case: C }> =>
      message.case === wanted;
    const at = this.#passed.findIndex(is);
    let message = at < 0 ? await this.#arrived() : this.#passed.splice(at, 1)[0];
    for (; message !== undefined && !is(message); message = await this.#arrived()) this.#passed.push(message);
    if (message === undefined) throw new Error(`the stream ended before ${wanted} came`);
    return message;
  }

  /** @returns the value in clear. @throws envelope when it is not for this session, or not what it says. */
  open(delivered: DeliveredVersion, session: ExchangeKey = this.session): string {
    const { ciphertext, sealedKey, secretId, version } = delivered;
    const sealingKey = this.welcome?.sealingKey?.publicKey ?? new Uint8Array();
    const clusterId = this.challenge?.clusterId ?? '';
    const key = sharedKey(sealingKey, session.secret, this.arena);
    const binding = { clusterId, secretId, version, ciphertextDigest: digestOf(ciphertext) };
    const contentKey = unwrap('delivered', sealedKey, binding, key, this.arena);
    return new TextDecoder().decode(openValue(ciphertext, contentKey, this.arena).expose());
  }
}
