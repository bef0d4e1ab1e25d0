/**
 * One stream to one manager, from hello to its end: proves the session key, takes assignments in, answers
 * each, beats. Knows nothing of coming back: that is the session's.
 */
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Logger } from 'pino';
import type { Arena } from '../crypto/arena.js';
import { drawExchangeKey, sharedKey } from '../crypto/exchange.js';
import type { Plaintext } from '../crypto/plaintext.js';
import { signBytes } from '../crypto/signing.js';
import { sealingKeyStatement, sessionKeyStatement } from '../crypto/statement.js';
import type { Clock, Random } from '../model/clock.js';
import { InroError } from '../model/error.js';
import { isSignedByAuthority } from '../pki/root.js';
import type {
  AgentMessageSchema,
  AssignedTask,
  AssignmentChange,
  Challenge,
  DeliveredVersion,
  ManagerMessage,
  Welcome,
} from '../proto/gen/inro/v1/dispatcher_pb.js';
import { wireState } from '../proto/task_state.js';
import type { Channel } from '../rpc/stream.js';
import { bootId, type Description } from './describe.js';
import type { HostTasks, TaskReport } from './host_tasks.js';
import type { Identity } from './identity.js';
import type { Lease } from './lease.js';
import { agentLimits } from './limits.js';
import type { Receipts } from './receipts.js';
import { heldKey, type Vault } from './vault.js';

export type AgentChannel = Channel<MessageInitShape<typeof AgentMessageSchema>, ManagerMessage>;

export interface StreamParts {
  identity: Identity;
  arena: Arena;
  vault: Vault;
  tasks: HostTasks;
  lease: Lease;
  receipts: Receipts;
  clock: Clock;
  random: Random;
  log: Logger;
  describe: () => Promise<Description>;
  onWelcome: (welcome: Welcome) => void;
  onApplied: (revision: number) => void;
}

type Message<C extends ManagerMessage['message']['case']> = Extract<ManagerMessage['message'], { case: C }>;

/** @throws protocol, unauthenticated, and whatever the channel throws. Returns when the manager ends the stream. */
export async function attach(channel: AgentChannel, parts: StreamParts): Promise<void> {
  const ephemeral = drawExchangeKey(parts.arena);
  let shared: Plaintext | undefined;
  const over = new AbortController();
  const running: Promise<void>[] = [];
  const late = parts.clock.timer(agentLimits.welcomeMs, () => channel.close());
  try {
    const messages = channel.messages[Symbol.asyncIterator]();
    const { value: challenge } = await expect(messages, 'challenge');
    const value = await hello(challenge, ephemeral.publicKey, parts);
    const helloMs = parts.clock.boottimeMs();
    await channel.send({ message: { case: 'hello', value } });
    const { value: welcome } = await expect(messages, 'welcome');
    late.cancel();
    shared = sharedKey(provedSealingKey(welcome, parts.identity), ephemeral.secret, parts.arena);
    parts.lease.extend(helloMs, Number(welcome.leaseMs));
    parts.onWelcome(welcome);
    const heart = new Heart(channel, welcome, parts);
    const beating = heart.beat(over.signal);
    const assignment = new AssignmentReader(parts, shared, channel);
    const reporting = assignment.reportWipes(over.signal);
    const reading = readAll(messages, heart, assignment);
    running.push(beating, reporting, reading);
    await Promise.race(running);
  } finally {
    late.cancel();
    over.abort();
    channel.close();
    await Promise.allSettled(running); // nothing uses the keys any more
    ephemeral.secret.wipe();
    shared?.wipe();
  }
}

async function expect<C extends 'challenge' | 'welcome'>(
  messages: AsyncIterator<ManagerMessage>,
  wanted: C,
): Promise<Message<C>> {
  const next = await messages.next();
  if (next.done === true)
    throw new InroError('unreachable', 'the manager ended the stream before it had begun');
  const { message } = next.value;
  if (message.case !== wanted)
    throw new InroError(
      'protocol',
      `the manager sent ${message.case ?? 'nothing known'} instead of ${wanted}`,
    );
  return message as Message<C>;
}

async function hello(
  { nonce, clusterId }: Challenge,
  sessionKey: Uint8Array,
  { identity, vault, describe }: StreamParts,
) {
  if (clusterId !== identity.clusterId) {
    throw new InroError(
      'foreign_cluster',
      `the manager is of cluster ${clusterId}, this node of cluster ${identity.clusterId}`,
    );
  }
  const { nodeId } = identity;
  const boot = bootId();
  const statement = sessionKeyStatement({ nonce, clusterId, nodeId, bootId: boot, sessionKey });
  return {
    description: await describe(),
    bootId: boot,
    sessionKey,
    proof: signBytes(identity.key, statement),
    holdings: vault
      .holdings()
      .slice(0, agentLimits.maxHoldings)
      .map(({ secretId, version, ciphertextDigest }) => ({ secretId, version, ciphertextDigest })),
  };
}

/** The key that deliveries come from counts only with the CA's signature. */
function provedSealingKey({ sealingKey }: Welcome, { rootPem, clusterId }: Identity): Uint8Array {
  if (sealingKey === undefined) throw new InroError('protocol', 'the manager sent no sealing key');
  const { publicKey, signature } = sealingKey;
  if (!isSignedByAuthority(rootPem, sealingKeyStatement(clusterId, publicKey), signature)) {
    throw new InroError('unauthenticated', "the manager's sealing key is not signed by this cluster's CA", {
      remedy:
        'somebody may stand between this node and the manager; compare the manager address with its operators',
    });
  }
  return publicKey;
}

async function readAll(
  messages: AsyncIterator<ManagerMessage>,
  heart: Heart,
  assignment: AssignmentReader,
): Promise<void> {
  for (let next = await messages.next(); next.done !== true; next = await messages.next()) {
    const { message } = next.value;
    heart.heard();
    switch (message.case) {
      case 'heartbeatAck':
        heart.answered(message.value.sequence);
        break;
      case 'begin':
        assignment.begin(message.value.complete);
        break;
      case 'change':
        assignment.change(message.value);
        break;
      case 'commit':
        await assignment.commit(Number(message.value.revision));
        break;
      default:
        throw new InroError(
          'protocol',
          `the manager sent ${message.case ?? 'a message this version does not know'}`,
          {
            remedy: 'upgrade the agent to the version of the manager',
          },
        );
    }
  }
}

/** Beats, and extends the lease by what was answered. Silence for long ends the stream. */
class Heart {
  readonly #channel: AgentChannel;
  readonly #periodMs: number;
  readonly #leaseMs: number;
  readonly #parts: StreamParts;
  /** By sequence: when beats that are not answered yet were sent. */
  readonly #sentMs = new Map<number, number>();
  #silentBeats = 0;

  constructor(channel: AgentChannel, { heartbeatPeriodMs, leaseMs }: Welcome, parts: StreamParts) {
    this.#channel = channel;
    this.#periodMs = Math.min(Math.max(heartbeatPeriodMs, 100), 60_000);
    this.#leaseMs = Number(leaseMs);
    this.#parts = parts;
  }

  async beat(signal: AbortSignal): Promise<void> {
    const { clock, random } = this.#parts;
    for (let sequence = 1; ; sequence++) {
      const drawn = ((random(1)[0] as number) / 255) * 2 - 1;
      await clock.sleep(this.#periodMs * (1 + drawn * agentLimits.heartbeatJitter), signal);
      if (signal.aborted) return;
      if (this.#silentBeats >= agentLimits.missedAnswers) {
        throw new InroError('unreachable', `the manager has been silent for ${this.#silentBeats} heartbeats`);
      }
      this.#silentBeats += 1;
      this.#sentMs.set(sequence, clock.boottimeMs());
      this.#sentMs.delete(sequence - agentLimits.maxUnansweredBeats);
      await this.#channel.send({ message: { case: 'heartbeat', value: { sequence } } });
    }
  }

  /** Whatever the manager says is a sign of life; an answer may wait behind a large assignment. */
  heard(): void {
    this.#silentBeats = 0;
  }

  answered(sequence: number): void {
    const sentMs = this.#sentMs.get(sequence);
    if (sentMs === undefined) return;
    for (const earlier of this.#sentMs.keys()) if (earlier <= sequence) this.#sentMs.delete(earlier);
    this.#parts.lease.extend(sentMs, this.#leaseMs);
  }
}

/** Collects an assignment, bounded, and applies it at its commit. */
class AssignmentReader {
  readonly #parts: StreamParts;
  readonly #sessionKey: Plaintext;
  readonly #channel: AgentChannel;
  #wanted = new Map<string, AssignedTask>();
  #delivered = new Map<string, DeliveredVersion>();
  #pendingBytes = 0;
  #open = false;
  #hasApplied = false;

  constructor(parts: StreamParts, sessionKey: Plaintext, channel: AgentChannel) {
    this.#parts = parts;
    this.#sessionKey = sessionKey;
    this.#channel = channel;
  }

  begin(complete: boolean): void {
    if (this.#open) throw new InroError('protocol', 'an assignment began inside another');
    this.#open = true;
    if (complete) this.#wanted = new Map();
  }

  change({ change }: AssignmentChange): void {
    if (!this.#open) throw new InroError('protocol', 'a change outside of an assignment');
    switch (change.case) {
      case 'putTask':
        this.#wanted.set(change.value.id, change.value);
        if (this.#wanted.size > agentLimits.maxTasks)
          throw new InroError('too_large', `more than ${agentLimits.maxTasks} tasks`);
        break;
      case 'removeTaskId':
        this.#wanted.delete(change.value);
        break;
      case 'putVersion': {
        const { secretId, version, ciphertext } = change.value;
        this.#pendingBytes += ciphertext.length;
        // Beyond this nothing fits the arena anyway: those tasks fail and say so, the others do not suffer.
        if (this.#pendingBytes <= agentLimits.maxPendingBytes)
          this.#delivered.set(heldKey(secretId, version), change.value);
        break;
      }
      default:
        throw new InroError('protocol', 'a change that this version does not know', {
          remedy: 'upgrade the agent',
        });
    }
  }

  async commit(revision: number): Promise<void> {
    if (!this.#open) throw new InroError('protocol', 'a commit outside of an assignment');
    const { tasks, onApplied } = this.#parts;
    const reports = tasks.apply(this.#wanted, this.#delivered, this.#sessionKey);
    this.#delivered = new Map();
    this.#pendingBytes = 0;
    this.#open = false;
    this.#hasApplied = true;
    onApplied(revision);
    await this.#report(revision, reports);
  }

  /** Wipes that happen on their own, such as at the end of a grace, are reported as they come. */
  async reportWipes(signal: AbortSignal): Promise<void> {
    const { clock, receipts } = this.#parts;
    while (!signal.aborted) {
      await clock.sleep(agentLimits.leaseCheckMs, signal);
      if (receipts.pending > 0 && this.#hasApplied && !signal.aborted) await this.#report(0, []);
    }
  }

  /** In messages of bounded size; the revision stands in the last one, when everything else has been said. */
  async #report(revision: number, reports: readonly TaskReport[]): Promise<void> {
    const { receipts } = this.#parts;
    const statuses = reports.map(({ taskId, state, error, atMs }) => ({
      taskId,
      state: wireState(state),
      error: error.slice(0, agentLimits.maxErrorChars),
      atMs: BigInt(atMs),
    }));
    for (let isLast = false; !isLast;) {
      const tasks = statuses.splice(0, agentLimits.maxStatusesPerMessage);
      const wiped = receipts.take(agentLimits.maxReceiptsPerMessage);
      isLast = statuses.length === 0 && receipts.pending === 0;
      const signed = wiped.map((one) => receipts.signed(one));
      const value = { revision: BigInt(isLast ? revision : 0), tasks, receipts: signed };
      await this.#channel.send({ message: { case: 'applied', value } }).catch((error: unknown) => {
        receipts.putBack(wiped);
        throw error;
      });
    }
  }
}
