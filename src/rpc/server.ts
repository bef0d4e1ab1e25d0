/**
 * Serving: each service is registered with who may call it, and everything else is refused. Handlers are
 * plain async functions; what they throw becomes a status with code and remedy.
 */
import { lstatSync, rmSync } from 'node:fs';
import net from 'node:net';
import { dirname } from 'node:path';
import type { Duplex } from 'node:stream';
import {
  logVerbosity,
  Server,
  ServerCredentials,
  setLogVerbosity,
  type sendUnaryData,
  type ServerDuplexStream,
  type ServerUnaryCall,
} from '@grpc/grpc-js';
import { InroError } from '../model/error.js';
import { systemClock } from '../system/clock.js';
import { makeFolder } from '../system/files.js';
import { definitionOf, type Input, type OutputInit, type Service } from './definition.js';
import { toStatus } from './errors.js';
import { rpcLimits } from './limits.js';
import { peerOf, type Peer } from './peer.js';
import { channelOf, type Channel } from './stream.js';
import { serverCredentials, type ServerIdentity } from './tls.js';

// What grpc-js would print on standard error, it also throws: it is said once, in our words.
setLogVerbosity(logVerbosity.NONE);

export interface CallContext<P extends Peer = Peer> {
  peer: P;
  /** Aborts when the caller goes away. */
  signal: AbortSignal;
}

/** Who may call a service. There is no default. */
export type Access = 'anyone' | 'local' | 'worker' | 'operator';

type PeerFor<A extends Access> = A extends 'local'
  ? Extract<Peer, { kind: 'local' }>
  : A extends 'worker'
    ? Extract<Peer, { kind: 'node' }>
    : A extends 'operator'
      ? Extract<Peer, { kind: 'local' | 'operator' }>
      : Peer;

export type Handlers<S extends Service, A extends Access> = {
  [K in keyof S['method'] & string]: S['method'][K]['methodKind'] extends 'unary'
    ? (
        request: Input<S['method'][K]>,
        context: CallContext<PeerFor<A>>,
      ) => Promise<OutputInit<S['method'][K]>>
    : (
        channel: Channel<OutputInit<S['method'][K]>, Input<S['method'][K]>>,
        context: CallContext<PeerFor<A>>,
      ) => Promise<void>;
};

export interface Registration {
  service: Service;
  access: Access;
  handlers: Record<string, (input: never, context: CallContext<never>) => Promise<unknown>>;
  /** What a caller hears who may not make the call, instead of why. */
  refused?: (method: string, peer: Peer, why: unknown) => unknown;
}

/** Ties a service to its handlers, with their types checked against each other. */
export function serve<S extends Service, A extends Access>(
  service: S,
  access: A,
  handlers: Handlers<S, A>,
): Registration {
  return { service, access, handlers };
}

export interface RunningServer {
  /** The port that was bound; 0 for a unix socket. */
  port: number;
  /** Refuses new calls, gives the running ones `graceMs`, then cuts them. */
  stop(graceMs: number): Promise<void>;
}

export interface RunningTlsServer extends RunningServer {
  /** Another certificate and key for connections that begin from now on; running calls do not notice. */
  showAs(own: Pick<ServerIdentity, 'certificatePem' | 'keyPem'>): void;
  /** The same, with callers verified against these roots. */
  believe(rootPem: string): void;
}

/** Asked on every call: who it is that calls, for what follows. Throws for a caller that is not to be served, whatever it calls. */
export type Admit = (peer: Peer) => Peer;

/**
 * @throws port_taken, bad_input for an address that cannot be bound.
 */
export async function listenTls(
  address: string,
  identity: ServerIdentity,
  registrations: readonly Registration[],
  admit: Admit = (peer) => peer,
): Promise<RunningTlsServer> {
  const server = build(registrations, false, admit);
  try {
    const { credentials, replace, believe } = serverCredentials(identity);
    const port = await bind(server, address, credentials);
    return { port, showAs: replace, believe, stop: (graceMs) => stop(server, graceMs) };
  } catch (error) {
    server.forceShutdown();
    const text = (error as Error).message;
    if (/EADDRINUSE/.test(text)) {
      throw new InroError('port_taken', `${address} is already in use`, {
        remedy: 'stop what listens there, or choose another address with --listen HOST:PORT',
        cause: error,
      });
    }
    const why = /EADDRNOTAVAIL/.test(text) ? 'it is not an address of this host' : text;
    throw new InroError('bad_input', `cannot listen on ${address}: ${why}`, {
      remedy: 'use an address of this host: --listen HOST:PORT',
      cause: error,
    });
  }
}

/**
 * Serves on a unix socket that its owner alone can open (0600). A socket file that nobody answers on is replaced.
 * @throws socket_taken when somebody does answer; state_unusable when the folder cannot be written.
 */
export async function listenUnix(
  path: string,
  registrations: readonly Registration[],
  admit: Admit = (peer) => peer,
): Promise<RunningServer> {
  if (Buffer.byteLength(path) > 107) {
    throw new InroError('bad_input', `the socket path ${path} has more than 107 bytes`, {
      remedy: 'choose a shorter one with --socket',
    });
  }
  if (await answers(path)) {
    throw new InroError('socket_taken', `another process serves ${path}`, {
      remedy: "stop it first ('inro dev' runs once on a host), or choose another socket with --socket PATH",
    });
  }
  const server = build(registrations, true, admit);
  const umask = process.umask(0o177);
  try {
    process.umask(0o022);
    makeFolder(dirname(path), 0o755);
    if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() === false)
      throw new Error('something else is there, and stays');
    rmSync(path, { force: true });
    process.umask(0o177);
    await bind(server, `unix:${path}`, ServerCredentials.createInsecure());
  } catch (error) {
    server.forceShutdown();
    throw new InroError('state_unusable', `cannot serve the socket ${path}: ${(error as Error).message}`, {
      remedy: 'check that its folder can be written, or choose another with --socket PATH',
      cause: error,
    });
  } finally {
    process.umask(umask);
  }
  return {
    port: 0,
    stop: async (graceMs) => {
      const stopped = stop(server, graceMs);
      rmSync(path, { force: true }); // now: later it could be a successor's
      await stopped;
    },
  };
}

/** True when a process accepts connections on the socket. */
export function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(path);
    const done = (result: boolean): void => {
      socket.destroy();
      resolve(result);
    };
    socket.once('connect', () => done(true));
    socket.once('error', () => done(false));
  });
}

function build(registrations: readonly Registration[], local: boolean, admit: Admit): Server {
  const server = new Server({
    'grpc.max_receive_message_length': rpcLimits.maxMessageBytes,
    'grpc.max_send_message_length': -1,
    'grpc.max_concurrent_streams': rpcLimits.maxStreamsPerConnection,
    'grpc.max_connection_idle_ms': rpcLimits.idleMs,
    'grpc.keepalive_time_ms': rpcLimits.keepaliveMs,
    'grpc.keepalive_timeout_ms': rpcLimits.keepaliveAnswerMs,
  });
  for (const { service, access, handlers, refused } of registrations) {
    const check = (method: string, peer: Peer): Peer => {
      try {
        const admitted = admit(peer);
        checkAccess(access, admitted);
        return admitted;
      } catch (error) {
        throw refused?.(method, peer, error) ?? error;
      }
    };
    const implementation = Object.fromEntries(
      Object.entries(service.method).map(([name, method]) => {
        const handler = handlers[name] as (input: unknown, context: CallContext) => Promise<unknown>;
        return [
          name,
          method.methodKind === 'unary'
            ? unary(handler, (peer) => check(name, peer), local)
            : stream(handler, (peer) => check(name, peer), local),
        ];
      }),
    );
    server.addService(definitionOf(service), implementation);
  }
  return server;
}

type AnyHandler = (input: unknown, context: CallContext) => Promise<unknown>;

function unary(handler: AnyHandler, check: (peer: Peer) => Peer, local: boolean) {
  return (call: ServerUnaryCall<unknown, unknown>, callback: sendUnaryData<unknown>): void => {
    const gone = new AbortController();
    call.on('cancelled', () => gone.abort());
    const answer = async (): Promise<unknown> => {
      const peer = check(peerOf(call, local));
      return handler(call.request, { peer, signal: gone.signal });
    };
    answer().then(
      (response) => callback(null, response),
      (error: unknown) => callback(toStatus(error)),
    );
  };
}

function stream(handler: AnyHandler, check: (peer: Peer) => Peer, local: boolean) {
  return (call: ServerDuplexStream<unknown, unknown>): void => {
    const channel = channelOf<unknown, unknown>(
      call as unknown as Duplex,
      (error) => error,
      (reason) => call.emit('error', toStatus(reason)),
    );
    const run = async (): Promise<void> => {
      const peer = check(peerOf(call, local));
      await handler(channel, { peer, signal: channel.closed });
    };
    run().then(
      () => call.end(),
      (error: unknown) => call.emit('error', toStatus(error)),
    );
  };
}

function checkAccess(access: Access, peer: Peer): void {
  if (peer.kind === 'local') return;
  if (peer.kind === 'operator') {
    if (access === 'operator') return;
    throw new InroError('not_permitted', "an operator's certificate may not make this call", {
      remedy: 'agents show a certificate of their own: inro agent join',
    });
  }
  if (access === 'anyone') return;
  if (peer.kind === 'anonymous' && access === 'operator') {
    throw new InroError(
      'unauthenticated',
      "this call needs an operator's certificate, and none was accepted",
      {
        remedy:
          "it is missing, expired or of another cluster: name an identity of this cluster with --identity FILE; an admin makes one with 'inro operator create'",
      },
    );
  }
  if (peer.kind === 'anonymous') {
    throw new InroError(
      'unauthenticated',
      'this call needs a certificate of this cluster, and none was accepted',
      {
        remedy:
          "its certificate is missing, expired or of another cluster: on that host, check 'inro agent status', or join again with a fresh token",
      },
    );
  }
  if (access === 'worker' && peer.role === 'worker') return;
  throw new InroError('not_permitted', `a ${peer.role} certificate may not make this call`, {
    remedy: "operators use the manager's local socket, or a certificate of their own: inro operator create",
  });
}

function bind(server: Server, address: string, credentials: ServerCredentials): Promise<number> {
  return new Promise((resolve, reject) => {
    server.bindAsync(address, credentials, (error, port) => (error === null ? resolve(port) : reject(error)));
  });
}

function stop(server: Server, graceMs: number): Promise<void> {
  return new Promise((resolve) => {
    const force = systemClock.timer(graceMs, () => {
      server.forceShutdown();
      resolve();
    });
    server.tryShutdown(() => {
      force.cancel();
      resolve();
    });
  });
}
