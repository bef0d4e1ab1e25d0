/** How a host becomes a node: the root for everybody, a certificate for who shows a join token. */
import { Enrollment } from '../proto/gen/inro/v1/enrollment_pb.js';
import { constantTimeEqual, sha256 } from '../crypto/signing.js';
import { serve, type Registration } from '../rpc/server.js';
import type { Authorities } from './authorities.js';
import type { Admission } from './admission.js';

export interface EnrollmentParts {
  authority: Authorities;
  admission: Admission;
}

export function enrollment({ authority, admission }: EnrollmentParts): Registration {
  return serve(Enrollment, 'anyone', {
    getRoot: async ({ digest }) => {
      const { pem } = authority.rootFor((der) => constantTimeEqual(sha256(der), digest));
      return { rootPem: pem, clusterId: authority.clusterId };
    },
    issueCertificate: async (request, { peer }) => {
      const address = peer.kind === 'local' ? 'local' : peer.address;
      const { issued, ...rest } = await admission.admit(request, address);
      return { certificatePem: issued?.chainPem ?? '', clusterId: authority.clusterId, ...rest };
    },
  });
}
