/** Which version of a secret a reference gets: the one that it names, or one that is tried there first, or the current one. */
import type { Reference } from '../proto/gen/inro/v1/common_pb.js';
import type { SecretRecord } from '../proto/gen/inro/v1/records_pb.js';

export interface Place {
  serviceId: string;
  nodeId: string;
}

export function servedVersion(
  { currentVersion, stage }: Pick<SecretRecord, 'currentVersion' | 'stage'>,
  { version }: Pick<Reference, 'version'>,
  { serviceId, nodeId }: Place,
): number {
  if (version > 0) return version;
  if (stage?.serviceIds.includes(serviceId) === true || stage?.nodeIds.includes(nodeId) === true)
    return stage.version;
  return currentVersion;
}
