/** Who is calling: learnt from the connection, never from a message. */
import type { ServerUnaryCall } from '@grpc/grpc-js';
import { readCertificate, type Certificate } from '../pki/certificate.js';
import type { Role } from '../pki/role.js';

export type Peer =
  /** Through the local socket, which only its owner can open; that of another manager, where it came `through` one. */
  | { kind: 'local'; through?: { nodeId: string; address: string } }
  /** Through TLS, with a certificate that this cluster's CA signed and that is valid now. */
  | {
      kind: 'node';
      nodeId: string;
      role: NodeRole;
      clusterId: string;
      certificate: Certificate;
      address: string;
    }
  /** The same, of a person. Whether it is one that the cluster still has, and what it may do, the manager knows. */
  | { kind: 'operator'; operatorId: string; clusterId: string; certificate: Certificate; address: string }
  /** Through TLS, without such a certificate. */
  | { kind: 'anonymous'; address: string };

type NodeRole = Exclude<Role, 'operator'>;

type Call = Pick<ServerUnaryCall<unknown, unknown>, 'getAuthContext' | 'getPeer'>;

/** grpc-js gives a certificate here only when OpenSSL verified it against our root (`socket.authorized`). */
export function peerOf(call: Call, local: boolean): Peer {
  if (local) return { kind: 'local' };
  const address = call.getPeer();
  const raw = call.getAuthContext().sslPeerCertificate?.raw;
  if (raw === undefined) return { kind: 'anonymous', address };
  const certificate = readCertificate(raw);
  const { nodeId, role, clusterId } = certificate;
  if (role === 'operator') return { kind: 'operator', operatorId: nodeId, clusterId, certificate, address };
  return { kind: 'node', nodeId, role, clusterId, certificate, address };
}
