/** TLS 1.3 on both sides, as grpc-js wants it. */
import tls from 'node:tls';
import { ChannelCredentials, experimental, type ServerCredentials } from '@grpc/grpc-js';

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
} {
  const root = { caCertificate: Buffer.from(rootPem) };
  const identityOf = ({ certificatePem, keyPem }: KeyPair) => ({
    certificate: Buffer.from(certificatePem),
    privateKey: Buffer.from(keyPem),
  });
  type Listener = (update: ReturnType<typeof identityOf>) => void;
  let identity = identityOf(own);
  const listeners = new Set<Listener>();
  // Listeners must not be called from inside add...Listener: grpc-js would drop every connection.
  const provider = {
    addCaCertificateListener: (listener: (update: typeof root) => void) =>
      queueMicrotask(() => listener(root)),
    removeCaCertificateListener: () => undefined,
    addIdentityCertificateListener: (listener: Listener) => {
      listeners.add(listener);
      queueMicrotask(() => listener(identity));
    },
    removeIdentityCertificateListener: (listener: Listener) => void listeners.delete(listener),
  };
  return {
    credentials: experimental.createCertificateProviderServerCredentials(provider, provider, false),
    replace: (next) => {
      identity = identityOf(next);
      for (const listener of listeners) listener(identity);
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
