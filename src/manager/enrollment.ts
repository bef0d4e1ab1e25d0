/** How a host becomes a node: the root for everybody, a certificate for who shows a join token. */
import { Enrollment } from '../proto/gen/inro/v1/enrollment_pb.js';
import { constantTimeEqual, sha256 } from '../crypto/signing.js';
import type { Peer } from '../rpc/peer.js';
import { serve, type Handlers, type Registration } from '../rpc/server.js';
import type { Authorities } from './authorities.js';
import type { JoinManagerRequest, JoinManagerResponseSchema } from '../proto/gen/inro/v1/enrollment_pb.js';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Admission } from './admission.js';

export interface EnrollmentParts {
  authority: Authorities;
  admission: Admission;
  admitManager: (
    request: JoinManagerRequest,
    address: string,
  ) => Promise<MessageInitShape<typeof JoinManagerResponseSchema>>;
}

export function enrollment({ authority, admission, admitManager }: EnrollmentParts): Registration {
  return serve(Enrollment, 'anyone', {
    getRoot: rootTeller(authority),
    joinManager: (request, { peer }) => admitManager(request, addressOf(peer)),
    issueCertificate: async (request, { peer }) => {
      const { issued, ...rest } = await admission.admit(request, addressOf(peer));
      return { certificatePem: issued?.chainPem ?? '', clusterId: authority.clusterId, ...rest };
    },
  });
}

export function rootTeller(authority: Authorities): Handlers<typeof Enrollment, 'anyone'>['getRoot'] {
  return async ({ digest }) => {
    const { pem } = authority.rootFor((der) => constantTimeEqual(sha256(der), digest));
    return { rootPem: pem, clusterId: authority.clusterId };
  };
}

function addressOf(peer: Peer): string {
  return peer.kind === 'local' ? 'local' : peer.address;
}
