/** What an operator should see where a service uses a secret whose current version is revoked. */
import type { Reference } from '../proto/gen/inro/v1/common_pb.js';
import type { ClusterView } from './view.js';

/** True when there is no value to serve until the secret gets a new version. */
export function hasNoValue(view: ClusterView, secretId: string): boolean {
  const secret = view.secrets.get(secretId);
  return secret !== undefined && view.isRevoked(secretId, secret.currentVersion);
}

/** '' when each of the references has a value. */
export function revokedNotice(view: ClusterView, references: readonly Reference[]): string {
  const ids = new Set(references.map(({ secretId }) => secretId).filter((id) => hasNoValue(view, id)));
  const names = [...ids].map((id) => view.secrets.get(id)?.name ?? id);
  if (names.length === 0) return '';
  return names.length === 1
    ? `secret ${names[0]} is revoked: no value to serve`
    : `secrets ${names.join(', ')} are revoked: no values to serve`;
}
