/** Asking an etcd of one or several members: whichever answers. */
import { isIP } from 'node:net';
import { checkServerIdentity as checkIdentity, type PeerCertificate } from 'node:tls';
import { ChannelCredentials, status, type ServiceError } from '@grpc/grpc-js';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Clock } from '../model/clock.js';
import { InroError } from '../model/error.js';
import {
  KV,
  Lease,
  Watch,
  type LeaseKeepAliveResponse,
  type RangeRequestSchema,
  type RangeResponse,
  type TxnRequestSchema,
  type TxnResponse,
  type WatchRequestSchema,
  type WatchResponse,
} from '../proto/gen/etcdserverpb/rpc_pb.js';
import { call, connection, openStream, type Connection } from '../rpc/client.js';
import type { Channel } from '../rpc/stream.js';

const limits = {
  /** For one member to answer; a leader's election takes one to two seconds. */
  answerMs: 3_000,
  /** For any member to answer. */
  patienceMs: 12_000,
  /** Between two rounds through all members. */
  pauseMs: 200,
  /** etcd closes connections that ask more often than every 5 s. */
  keepaliveMs: 10_000,
  keepaliveAnswerMs: 4_000,
  /** Of a page of records: etcd takes 1.5 MiB in one request if nobody set more. */
  maxAnswerBytes: 256 * 1024 * 1024,
} as const;

/** What another member may answer, or the same one a moment later. */
const passing = new Set([status.UNAVAILABLE, status.DEADLINE_EXCEEDED, status.CANCELLED, status.UNKNOWN]);

/** PEM; null: those that Node believes, and none of its own. */
export interface EtcdCertificates {
  ca: Buffer | null;
  key: Buffer | null;
  cert: Buffer | null;
}

export interface EtcdTarget {
  /** HOST:PORT of each member. */
  endpoints: readonly string[];
  certificates: EtcdCertificates;
}

export class EtcdClient {
  readonly to: string;
  readonly #members: readonly Connection[];
  readonly #clock: Clock;
  readonly #closed = new AbortController();
  #at = 0;

  constructor({ endpoints, certificates }: EtcdTarget, clock: Clock) {
    this.to = `the etcd at ${endpoints.join(',')}`;
    this.#clock = clock;
    this.#members = endpoints.map((endpoint) =>
      connection(`the etcd member at ${endpoint}`, endpoint, credentialsFor(endpoint, certificates), {
        ...(isIP(hostOf(endpoint)) === 0 ? {} : { 'grpc.ssl_target_name_override': 'etcd' }),
        'grpc.max_receive_message_length': limits.maxAnswerBytes,
        'grpc.keepalive_time_ms': limits.keepaliveMs,
        'grpc.keepalive_timeout_ms': limits.keepaliveAnswerMs,
        'grpc.enable_retries': 0,
        'grpc.use_local_subchannel_pool': 1,
        // Ours below: a member that was away is asked again soon.
        'grpc.initial_reconnect_backoff_ms': 100,
        'grpc.max_reconnect_backoff_ms': 1_000,
      }),
    );
  }

  range(request: MessageInitShape<typeof RangeRequestSchema>): Promise<RangeResponse> {
    return this.#ask((member) => call(member, KV, 'range', request, limits.answerMs));
  }

  /** To be such that doing it twice is doing it once: it is sent again when an answer got lost. */
  txn(request: MessageInitShape<typeof TxnRequestSchema>): Promise<TxnResponse> {
    const unknown = ' (whether the change was made is not known: look before you try again)';
    return this.#ask((member) => call(member, KV, 'txn', request, limits.answerMs), unknown);
  }

  /** What was so before that revision is forgotten, of all that is in this etcd. */
  async compact(revision: bigint): Promise<void> {
    try {
      await this.#ask((member) => call(member, KV, 'compact', { revision, physical: true }, limits.answerMs));
    } catch (error) {
      // It was forgotten before.
      if (!(error instanceof InroError) || error.code !== 'conflict') throw error;
    }
  }

  /** @param ttlS seconds. @returns its id; a grant whose answer got lost ends by itself. */
  async grantLease(ttlS: number): Promise<bigint> {
    const { ID } = await this.#ask((member) => call(member, Lease, 'leaseGrant', { TTL: BigInt(ttlS) }, limits.answerMs)); // prettier-ignore
    return ID;
  }

  /** @returns false when there is no such lease any more. */
  async keepLease(id: bigint): Promise<boolean> {
    const { TTL } = await this.#ask((member) => keepAlive(member, id, this.#clock));
    return TTL > 0n;
  }

  async revokeLease(id: bigint): Promise<void> {
    await this.#ask((member) => call(member, Lease, 'leaseRevoke', { ID: id }, limits.answerMs));
  }

  /** Ends, or throws, when its member is away or has no leader. */
  watch(): Channel<MessageInitShape<typeof WatchRequestSchema>, WatchResponse> {
    return openStream(this.#member(), Watch, 'watch', { hasleader: 'true' });
  }

  /** The next member, from now on. */
  turn(): void {
    this.#at = (this.#at + 1) % this.#members.length;
  }

  close(): void {
    this.#closed.abort();
    for (const member of this.#members) member.close();
  }

  #member(): Connection {
    if (this.#closed.signal.aborted) throw new InroError('unreachable', 'the store is closed');
    return this.#members[this.#at] as Connection;
  }

  /** @throws unreachable when no member answers in time; store_full, too_large; what else etcd says. */
  async #ask<T>(ask: (member: Connection) => Promise<T>, outcome = ''): Promise<T> {
    const until = this.#clock.boottimeMs() + limits.patienceMs;
    for (let attempt = 1; ; attempt++) {
      const member = this.#member();
      try {
        return await ask(member);
      } catch (error) {
        if (this.#closed.signal.aborted) throw new InroError('unreachable', 'the store is closed');
        const { cause } = error as { cause?: ServiceError };
        const isPassing =
          cause === undefined
            ? error instanceof InroError && error.code === 'unreachable'
            : passing.has(cause.code);
        if (!isPassing) throw inWords(error, this.to, cause);
        if (this.#clock.boottimeMs() >= until) {
          throw new InroError(
            'unreachable',
            `${this.to} does not answer: ${cause?.details ?? (error as Error).message}${outcome}`,
            {
              remedy:
                'look at it with: etcdctl endpoint status --cluster; it needs more than half of its members',
              cause: error,
            },
          );
        }
        if (this.#members[this.#at] === member) this.turn();
        if (attempt % this.#members.length === 0)
          await this.#clock.sleep(limits.pauseMs, this.#closed.signal);
      }
    }
  }
}

/** TLS names no server by its IP address, so it is asked for by a name, and what it shows is checked for that address. */
function credentialsFor(endpoint: string, { ca, key, cert }: EtcdCertificates): ChannelCredentials {
  const host = hostOf(endpoint);
  if (isIP(host) === 0) return ChannelCredentials.createSsl(ca, key, cert);
  const checkServerIdentity = (_name: string, shown: PeerCertificate): Error | undefined =>
    checkIdentity(host, shown);
  return ChannelCredentials.createSsl(ca, key, cert, { checkServerIdentity });
}

function hostOf(endpoint: string): string {
  return endpoint.slice(0, endpoint.lastIndexOf(':')).replace(/^\[|\]$/g, '');
}

/** A stream for one answer: etcd has no other call for it. */
async function keepAlive(member: Connection, id: bigint, clock: Clock): Promise<LeaseKeepAliveResponse> {
  const stream = openStream(member, Lease, 'leaseKeepAlive', { hasleader: 'true' });
  const late = clock.timer(limits.answerMs, () =>
    stream.close(new InroError('unreachable', `${member.to} does not answer`)),
  );
  try {
    await stream.send({ ID: id });
    for await (const answer of stream.messages) return answer;
    throw new InroError('unreachable', `${member.to} does not answer`);
  } finally {
    late.cancel();
    stream.close();
  }
}

function inWords(error: unknown, to: string, cause: ServiceError | undefined): unknown {
  const details = cause?.details ?? '';
  if (details.includes('database space exceeded')) {
    return new InroError('store_full', `${to} is full; nothing was changed`, {
      remedy:
        'free space there (etcdctl compact, defrag, then alarm disarm), or raise its --quota-backend-bytes',
      cause: error,
    });
  }
  if (details.includes('request is too large') || details.includes('message larger than max')) {
    return new InroError('too_large', `${to} takes no request of that size; nothing was changed`, {
      remedy: 'raise its --max-request-bytes',
      cause: error,
    });
  }
  if (details.includes('too many operations')) {
    return new InroError('too_large', `${to} takes no change of so many records; nothing was changed`, {
      remedy: 'raise its --max-txn-ops',
      cause: error,
    });
  }
  if (details.includes('revision has been compacted')) {
    return new InroError('conflict', `${to} forgot that moment while it was being read`, {
      remedy: 'try again; keep more of its past with --auto-compaction-retention=1h',
      cause: error,
    });
  }
  return error;
}
