/**
 * One stream to one manager, from hello to its end: proves the session key, takes assignments in, answers
 * each, beats. Knows nothing of coming back: that is the session's.
 */
import type { Logger } from 'pino';
import type { Arena } from '../crypto/arena.js';
import { drawExchangeKey, sharedKey } from '../crypto/exchange.js';
import type { Plaintext } from '../crypto/plaintext.js';
import { signBytes } from '../crypto/signing.js';
import { sessionKeyStatement } from '../crypto/statement.js';
import type { Clock, Random } from '../model/clock.js';
import { InroError } from '../model/error.js';
import { checkedSealingKey } from '../pki/sealing_key.js';
import type { Challenge, ManagerMessage, TrustedRoots, Welcome } from '../proto/gen/inro/v1/dispatcher_pb.js';
import type { CountBatches } from './access/count_batches.js';
import { AssignmentReader } from './assignment_reader.js';
import type { AgentChannel } from './channel.js';
import { bootId, type Description } from './describe.js';
import { Heart } from './heart.js';
import type { HostTasks } from './host_tasks.js';
import type { Identity } from './identity.js';
import type { Lease } from './lease.js';
import { agentLimits } from './limits.js';
import type { Receipts } from './receipts.js';
import type { Vault } from './vault.js';

export interface StreamParts {
  identity: Identity;
  arena: Arena;
  vault: Vault;
  tasks: HostTasks;
  lease: Lease;
  receipts: Receipts;
  counts: Pick<CountBatches, 'current' | 'taken'>;
  clock: Clock;
  random: Random;
  log: Logger;
  describe: () => Promise<Description>;
  onWelcome: (welcome: Welcome) => void;
  onApplied: (revision: number) => void;
  /** @throws unauthenticated, bad_certificate, state_unusable. */
  onRoots: (roots: TrustedRoots) => void;
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
    shared = sharedKey(provedSealingKey(welcome, parts), ephemeral.secret, parts.arena);
    parts.lease.extend(helloMs, Number(welcome.leaseMs));
    parts.onWelcome(welcome);
    const heart = new Heart(channel, welcome, parts);
    const beating = heart.beat(over.signal);
    const assignment = new AssignmentReader(parts, shared, channel);
    const reporting = assignment.reportWipes(over.signal);
    const reading = readAll(channel, heart, assignment, { ...parts, messages });
    const states = assignment.reportTasks(over.signal);
    running.push(beating, reporting, states, reading);
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
  { identity, vault, receipts, describe }: StreamParts,
) {
  if (clusterId !== identity.clusterId) {
    throw new InroError(
      'foreign_cluster',
      `the manager is of cluster ${clusterId}, this node of cluster ${identity.clusterId}`,
    );
  }
  const { nodeId } = identity;
  const holdings = vault.holdings();
  const lastReceipt = BigInt(receipts.lastNumber);
  const boot = bootId();
  const statement = sessionKeyStatement({ nonce, clusterId, nodeId, bootId: boot, sessionKey });
  return {
    description: await describe(),
    bootId: boot,
    sessionKey,
    proof: signBytes(identity.key, statement),
    holdings: holdings
      .slice(0, agentLimits.maxHoldings)
      .map(({ secretId, version, ciphertextDigest, retiring }) => ({
        secretId,
        version,
        ciphertextDigest,
        retiring,
      })),
    hasMoreHoldings: holdings.length > agentLimits.maxHoldings,
    lastReceipt,
  };
}

/** The key that deliveries come from counts only when the CA vouches for it. */
function provedSealingKey({ sealingKey }: Welcome, { identity, clock }: StreamParts): Uint8Array {
  if (sealingKey === undefined) throw new InroError('protocol', 'the manager sent no sealing key');
  const { rootPem, clusterId } = identity;
  return checkedSealingKey(sealingKey, { rootPem, clusterId, now: clock.now() });
}

async function readAll(
  channel: AgentChannel,
  heart: Heart,
  assignment: AssignmentReader,
  {
    messages,
    receipts,
    counts,
    onRoots,
  }: Pick<StreamParts, 'receipts' | 'counts' | 'onRoots'> & { messages: AsyncIterator<ManagerMessage> },
): Promise<void> {
  for (let next = await messages.next(); next.done !== true; next = await messages.next()) {
    const { message } = next.value;
    heart.heard();
    switch (message.case) {
      case 'heartbeatAck':
        heart.answered(message.value.sequence);
        break;
      case 'begin':
        assignment.begin(message.value);
        break;
      case 'change':
        assignment.change(message.value);
        break;
      case 'commit':
        await assignment.commit(Number(message.value.revision));
        break;
      case 'receiptsTaken':
        receipts.taken(message.value);
        break;
      case 'accessesTaken':
        counts.taken(message.value);
        break;
      case 'trustedRoots':
        onRoots(message.value);
        break;
      case 'presence':
        await channel.send({ message });
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
