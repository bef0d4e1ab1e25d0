/**
 * An agent as a manager sees it: a connection and a certificate of its own, a proved session key, heartbeats, and its word for what
 * it was told. Values are not opened: what that costs is the host's, not the manager's.
 */
import { setTimeout as pause } from 'node:timers/promises';
import type { AgentChannel } from '../../src/agent/channel.js';
import { generateNodeKey, readPrivateKey, signBytes, type KeyObject } from '../../src/crypto/signing.js';
import { sessionKeyStatement } from '../../src/crypto/statement.js';
import { createCsr } from '../../src/pki/csr.js';
import { TaskState } from '../../src/proto/gen/inro/v1/common_pb.js';
import { Dispatcher, type ManagerMessage } from '../../src/proto/gen/inro/v1/dispatcher_pb.js';
import { Enrollment } from '../../src/proto/gen/inro/v1/enrollment_pb.js';
import { call, connectTls, openStream, type Connection } from '../../src/rpc/client.js';
import { nodeCredentials, rootCredentials } from '../../src/rpc/tls.js';

export interface ClusterAddress {
  address: string;
  rootPem: string;
  token: string;
}

interface Identity {
  nodeId: string;
  certificatePem: string;
  keyPem: string;
}

const bootId = 'a-boot';
const jitter = 0.1;

export class SimulatedAgent {
  readonly #cluster: ClusterAddress;
  readonly #identity: Identity;
  readonly #key: KeyObject;
  readonly #sessionKey: Uint8Array;
  #connection: Connection | undefined;
  #channel: AgentChannel | undefined;
  #tasks = new Set<string>();
  /** Streams that were begun in vain. */
  failures = 0;
  /** Tasks that it has said to run. */
  get tasks(): number {
    return this.#tasks.size;
  }
  /** Called with each version that is delivered, once its assignment is committed; `performance.now()`. */
  onVersion: ((version: number, atMs: number) => void) | undefined;

  private constructor(cluster: ClusterAddress, identity: Identity, sessionKey: Uint8Array) {
    this.#cluster = cluster;
    this.#identity = identity;
    this.#key = readPrivateKey(identity.keyPem);
    this.#sessionKey = sessionKey;
  }

  static async enrol(cluster: ClusterAddress, sessionKey: Uint8Array): Promise<SimulatedAgent> {
    const { address, rootPem, token } = cluster;
    const connection = connectTls(address, rootCredentials(rootPem));
    try {
      const { privateKey, privatePem: keyPem } = generateNodeKey();
      const request = { csrPem: createCsr(privateKey), token };
      const { certificatePem, nodeId } = await call(
        connection,
        Enrollment,
        'issueCertificate',
        request,
        60_000,
      );
      return new SimulatedAgent(cluster, { nodeId, certificatePem, keyPem }, sessionKey);
    } finally {
      connection.close();
    }
  }

  /** Resolves when the first assignment is there; tries again with a jittered pause. Goes on beating until it is closed. */
  async attach(): Promise<void> {
    for (;;) {
      try {
        return await this.#begin();
      } catch {
        this.failures += 1;
        this.close();
        await pause(500 * (1 + Math.random()));
      }
    }
  }

  close(): void {
    this.#channel?.close();
    this.#connection?.close();
    this.#channel = undefined;
    this.#tasks.clear();
  }

  async #begin(): Promise<void> {
    const { rootPem, address } = this.#cluster;
    const { nodeId, certificatePem, keyPem } = this.#identity;
    const connection = connectTls(address, nodeCredentials({ rootPem, certificatePem, keyPem }));
    this.#connection = connection;
    const channel = openStream(connection, Dispatcher, 'attach');
    this.#channel = channel;
    const messages = channel.messages[Symbol.asyncIterator]();
    const challenge = await next(messages, 'challenge');
    const { nonce, clusterId } = challenge.value;
    const statement = sessionKeyStatement({ nonce, clusterId, nodeId, bootId, sessionKey: this.#sessionKey });
    const value = {
      description: { hostname: `host-${nodeId.slice(0, 6)}` },
      bootId,
      sessionKey: this.#sessionKey,
      proof: signBytes(this.#key, statement),
      holdings: [],
      hasMoreHoldings: false,
    };
    await channel.send({ message: { case: 'hello', value } });
    const welcome = await next(messages, 'welcome');
    void this.#beat(channel, welcome.value.heartbeatPeriodMs);
    await new Promise<void>((resolve, reject) => {
      this.#listen(channel, messages, resolve).then(() => reject(new Error('the stream is over')), reject);
    });
  }

  async #beat(channel: AgentChannel, periodMs: number): Promise<void> {
    for (let sequence = 1; !channel.closed.aborted; sequence++) {
      await pause(periodMs * (1 - jitter + 2 * jitter * Math.random()), undefined, { ref: false });
      await channel.send({ message: { case: 'heartbeat', value: { sequence } } }).catch(() => undefined);
    }
  }

  async #listen(
    channel: AgentChannel,
    messages: AsyncIterator<ManagerMessage>,
    onAssignment: () => void,
  ): Promise<void> {
    const changed = new Map<string, TaskState>();
    let versions: number[] = [];
    for (let one = await messages.next(); one.done !== true; one = await messages.next()) {
      const { message } = one.value;
      if (message.case === 'presence') await channel.send({ message });
      if (message.case === 'change') {
        const { change } = message.value;
        if (change.case === 'putTask') changed.set(change.value.id, TaskState.RUNNING);
        if (change.case === 'removeTaskId') changed.set(change.value, TaskState.SHUTDOWN);
        if (change.case === 'putVersion') versions.push(change.value.version);
      }
      if (message.case !== 'commit') continue;
      const atMs = performance.now();
      for (const version of versions) this.onVersion?.(version, atMs);
      versions = [];
      for (const [id, state] of changed)
        if (state === TaskState.RUNNING) this.#tasks.add(id);
        else this.#tasks.delete(id);
      const tasks = [...changed].map(([taskId, state]) => ({ taskId, state, error: '', atMs: 0n }));
      changed.clear();
      const value = { revision: message.value.revision, tasks, receipts: [] };
      await channel.send({ message: { case: 'applied', value } });
      onAssignment();
    }
  }
}

async function next<C extends 'challenge' | 'welcome'>(
  messages: AsyncIterator<ManagerMessage>,
  wanted: C,
): Promise<Extract<ManagerMessage['message'], { case: C }>> {
  const { done, value } = await messages.next();
  const message = done === true ? undefined : value.message;
  if (message?.case !== wanted) throw new Error(`got ${message?.case ?? 'the end'} instead of ${wanted}`);
  return message as Extract<ManagerMessage['message'], { case: C }>;
}
