/** Calling: typed calls on a connection, errors in our words. */
import {
  ChannelCredentials,
  Client,
  Metadata,
  connectivityState,
  type ClientOptions,
  type ServiceError,
} from '@grpc/grpc-js';
import {
  definitionOf,
  type InputInit,
  type Output,
  type Service,
  type StreamNames,
  type UnaryNames,
} from './definition.js';
import { fromServiceError } from './errors.js';
import { rpcLimits } from './limits.js';
import { channelOf, type Channel } from './stream.js';
import { InroError } from '../model/error.js';
import { deadlineIn, systemClock } from '../system/clock.js';
import { managerServerName } from './tls.js';

export interface Connection {
  /** Who is at the other end, as an operator knows it. */
  readonly to: string;
  readonly client: Client;
  /** Goes on with the manager at that address, if that one can be reached. */
  redirect?(address: string): Promise<boolean>;
  /** The root under which the other side proved itself. */
  readonly root?: { pem: string; clusterId: string };
  close(): void;
}

/** @param address HOST:PORT of a manager. */
export function connectTls(
  address: string,
  credentials: ChannelCredentials,
  maxAnswerBytes: number = rpcLimits.maxMessageBytes,
): Connection {
  const open = (at: string): Connection => managerAt(at, credentials, maxAnswerBytes);
  let present = open(address);
  return {
    get to() {
      return present.to;
    },
    get client() {
      return present.client;
    },
    async redirect(to) {
      const next = open(to);
      if (!(await stands(next, rpcLimits.redirectMs))) {
        next.close();
        return false;
      }
      present.close();
      present = next;
      return true;
    },
    close: () => present.close(),
  };
}

function managerAt(address: string, credentials: ChannelCredentials, maxAnswerBytes: number): Connection {
  return connection(`the manager at ${address}`, address, credentials, {
    'grpc.ssl_target_name_override': managerServerName,
    'grpc.max_receive_message_length': maxAnswerBytes,
    'grpc.keepalive_time_ms': rpcLimits.keepaliveMs,
    'grpc.keepalive_timeout_ms': rpcLimits.keepaliveAnswerMs,
    // Our own back-off decides when to try again.
    'grpc.enable_retries': 0,
    'grpc.use_local_subchannel_pool': 1,
  });
}

export function connectUnix(path: string, who: string): Connection {
  return connection(`${who} at unix:${path}`, `unix:${path}`, ChannelCredentials.createInsecure(), {
    'grpc.max_receive_message_length': rpcLimits.maxOperatorMessageBytes,
  });
}

/** @param to who it is, as an operator knows it. */
export function connection(
  to: string,
  target: string,
  credentials: ChannelCredentials,
  options: ClientOptions,
): Connection {
  const client = new Client(target, credentials, { ...options, 'grpc.enable_http_proxy': 0 });
  return { to, client, close: () => client.close() };
}

/** True when it stands; false as soon as the first try to reach the other side has failed. */
export function stands({ client }: Connection, timeoutMs: number = rpcLimits.connectMs): Promise<boolean> {
  const channel = client.getChannel();
  const deadline = deadlineIn(timeoutMs);
  return new Promise((resolve) => {
    const look = (late?: Error): void => {
      const state = channel.getConnectivityState(true);
      if (state === connectivityState.READY) resolve(true);
      else if (late !== undefined || state === connectivityState.TRANSIENT_FAILURE) resolve(false);
      else channel.watchConnectivityState(state, deadline, look);
    };
    look();
  });
}

/** Closes the connection after its use. */
export async function withConnection<T>(
  connection: Connection,
  use: (connection: Connection) => Promise<T>,
): Promise<T> {
  try {
    return await use(connection);
  } finally {
    connection.close();
  }
}

/**
 * Where several managers take turns, the one that leads is asked, as soon as there is one: who does not lead has done nothing.
 * @param timeoutMs how long an answer may take. @throws whatever the other side threw, or unreachable.
 */
export async function call<S extends Service, K extends UnaryNames<S>>(
  connection: Connection,
  service: S,
  name: K,
  request: InputInit<S['method'][K]>,
  timeoutMs: number = rpcLimits.callMs,
): Promise<Output<S['method'][K]>> {
  const patientUntil = systemClock.boottimeMs() + rpcLimits.leaderMs;
  for (;;) {
    try {
      return await callOnce(connection, service, name, request, timeoutMs);
    } catch (error) {
      if (!(error instanceof InroError) || error.code !== 'not_leader') throw error;
      if (systemClock.boottimeMs() >= patientUntil) throw error;
      if (error.leader !== undefined && (await connection.redirect?.(error.leader)) === true) continue;
      await systemClock.sleep(rpcLimits.leaderPauseMs);
    }
  }
}

function callOnce<S extends Service, K extends UnaryNames<S>>(
  connection: Connection,
  service: S,
  name: K,
  request: InputInit<S['method'][K]>,
  timeoutMs: number,
): Promise<Output<S['method'][K]>> {
  const method = methodOf(service, name);
  return new Promise((resolve, reject) => {
    connection.client.makeUnaryRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize as (bytes: Buffer) => Output<S['method'][K]>,
      request,
      { deadline: deadlineIn(timeoutMs) },
      (error: ServiceError | null, response?: Output<S['method'][K]>) => {
        if (error !== null) reject(fromServiceError(error, connection.to));
        else resolve(response as Output<S['method'][K]>);
      },
    );
  });
}

/** Opens a bidirectional stream. */
export function openStream<S extends Service, K extends StreamNames<S>>(
  connection: Connection,
  service: S,
  name: K,
  metadata: Record<string, string> = {},
): Channel<InputInit<S['method'][K]>, Output<S['method'][K]>> {
  const method = methodOf(service, name);
  const stream = connection.client.makeBidiStreamRequest(
    method.path,
    method.requestSerialize,
    method.responseDeserialize,
    Metadata.fromHttp2Headers(metadata),
  );
  return channelOf(stream as never, (error) => fromServiceError(error as ServiceError, connection.to));
}

function methodOf(service: Service, name: string) {
  const method = definitionOf(service)[name];
  if (method === undefined) throw new TypeError(`${service.typeName} has no call ${name}`);
  return method;
}
