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

/**
 * Certificates are verified if given: one port serves those who have none yet (Enrollment) and nodes. What a
 * caller without one may do is decided where services are registered.
 */
export function serverCredentials({ rootPem, certificatePem, keyPem }: ServerIdentity): ServerCredentials {
  const root = { caCertificate: Buffer.from(rootPem) };
  const identity = { certificate: Buffer.from(certificatePem), privateKey: Buffer.from(keyPem) };
  // Listeners must not be called from inside add...Listener: grpc-js would drop every connection.
  const provider = {
    addCaCertificateListener: (listener: (update: typeof root) => void) =>
      queueMicrotask(() => listener(root)),
    removeCaCertificateListener: () => undefined,
    addIdentityCertificateListener: (listener: (update: typeof identity) => void) =>
      queueMicrotask(() => listener(identity)),
    removeIdentityCertificateListener: () => undefined,
  };
  return experimental.createCertificateProviderServerCredentials(provider, provider, false);
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
