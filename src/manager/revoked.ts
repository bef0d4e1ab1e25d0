/** What an operator should see where a service uses a version that is revoked. */
import type { Reference } from '../proto/gen/inro/v1/common_pb.js';
import { servedVersion, type Place } from './served_version.js';
import type { ClusterView } from './view.js';

/** '' when each of the references has a value there. */
export function revokedNotice(view: ClusterView, references: readonly Reference[], place: Place): string {
  const without = references.filter((reference) => {
    const secret = view.secrets.get(reference.secretId);
    return secret !== undefined && view.isRevoked(secret.id, servedVersion(secret, reference, place));
  });
  const names = [...new Set(without.map(({ secretId }) => view.secrets.get(secretId)?.name ?? secretId))];
  if (names.length === 0) return '';
  return names.length === 1
    ? `secret ${names[0]} is revoked: no value to serve`
    : `secrets ${names.join(', ')} are revoked: no values to serve`;
}
