/** TLS 1.3 on both sides, as grpc-js wants it. */
import tls from 'node:tls';
import { ChannelCredentials, experimental, type ServerCredentials } from '@grpc/grpc-js';

import { rpcLimits } from './limits.js';

// grpc-js has no option for the lowest version; it takes Node's default at the time it makes a context.
tls.DEFAULT_MIN_VERSION = 'TLSv1.3';

/** The name that each manager's certificate carries; callers insist on it whatever address they dialled. */
export const managerServerName = 'inro-manager';

export interface ServerIdentity {
  rootPem: string;
  certificatePem: string;
  keyPem: string;
}

type KeyPair = Pick<ServerIdentity, 'certificatePem' | 'keyPem'>;

/**
 * Certificates are verified if given: one port serves those who have none yet (Enrollment) and nodes. What a
 * caller without one may do is decided where services are registered.
 */
export function serverCredentials({ rootPem, ...own }: ServerIdentity): {
  credentials: ServerCredentials;
  /** For connections that begin from now on; those that are open do not notice. */
  replace: (own: KeyPair) => void;
  /** The same, with these roots. */
  believe: (rootPem: string) => void;
} {
  const rootsOf = (pem: string) => ({ caCertificate: Buffer.from(pem) });
  const identityOf = ({ certificatePem, keyPem }: KeyPair) => ({
    certificate: Buffer.from(certificatePem),
    privateKey: Buffer.from(keyPem),
  });
  type Listener = (update: ReturnType<typeof identityOf>) => void;
  type RootListener = (update: ReturnType<typeof rootsOf>) => void;
  let identity = identityOf(own);
  let roots = rootsOf(rootPem);
  const listeners = new Set<Listener>();
  const rootListeners = new Set<RootListener>();
  // Listeners must not be called from inside add...Listener: grpc-js would drop every connection.
  const provider = {
    addCaCertificateListener: (listener: RootListener) => {
      rootListeners.add(listener);
      queueMicrotask(() => listener(roots));
    },
    removeCaCertificateListener: (listener: RootListener) => void rootListeners.delete(listener),
    addIdentityCertificateListener: (listener: Listener) => {
      listeners.add(listener);
      queueMicrotask(() => listener(identity));
    },
    removeIdentityCertificateListener: (listener: Listener) => void listeners.delete(listener),
  };
  const credentials = experimental.createCertificateProviderServerCredentials(provider, provider, false);
  // grpc-js has no option for it; Node's own limit is two minutes, in which each silent caller has a descriptor.
  Object.assign(credentials._getConstructorOptions() ?? {}, { handshakeTimeout: rpcLimits.handshakeMs });
  return {
    credentials,
    replace: (next) => {
      identity = identityOf(next);
      for (const listener of listeners) listener(identity);
    },
    believe: (pem) => {
      roots = rootsOf(pem);
      for (const listener of rootListeners) listener(roots);
    },
  };
}

/** For a node that has a certificate: both sides verified. */
export function nodeCredentials({ rootPem, certificatePem, keyPem }: ServerIdentity): ChannelCredentials {
  return ChannelCredentials.createSsl(Buffer.from(rootPem), Buffer.from(keyPem), Buffer.from(certificatePem));
}

/** For a host that has the root but no certificate yet. */
export function rootCredentials(rootPem: string): ChannelCredentials {
  return ChannelCredentials.createSsl(Buffer.from(rootPem));
}

/** For the very first question only, whose answer is checked against the join token's digest. */
export function unverifiedCredentials(): ChannelCredentials {
  return ChannelCredentials.createSsl(null, null, null, { rejectUnauthorized: false });
}
