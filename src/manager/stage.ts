/** Where a new version is tried before everybody gets it. */
import { create } from '@bufbuild/protobuf';
import { InroError } from '../model/error.js';
import { quoted } from '../model/name.js';
import { VersionStageSchema, type SecretRecord, type VersionStage } from '../proto/gen/inro/v1/records_pb.js';
import { find } from './find.js';
import type { ClusterView } from './view.js';

/**
 * @param places services that use the secret, by name or id; or on how many of the nodes that have tasks of such services.
 * @returns undefined where nobody asks for one. @throws not_found, bad_input.
 */
export function stageOf(
  version: number,
  { name, serviceIds }: SecretRecord,
  places: { services: readonly string[]; nodes: number },
  view: ClusterView,
): VersionStage | undefined {
  const services = places.services.map((typed) => {
    const { id, name: service } = find('service', view.services, typed, (one) => one.name);
    if (serviceIds.includes(id)) return id;
    throw new InroError('bad_input', `service ${quoted(service)} does not use secret ${quoted(name)}`, {
      remedy: `'inro secret inspect ${name}' shows who does`,
    });
  });
  if (services.length === 0 && places.nodes === 0) return undefined;
  const nodes = [...view.nodesOfServices(serviceIds)].toSorted().slice(0, places.nodes);
  if (places.nodes > nodes.length)
    throw new InroError(
      'bad_input',
      `${nodes.length} nodes have tasks that use secret ${quoted(name)}, not ${places.nodes}`,
      { remedy: 'name fewer, or stage it at a service: --stage SERVICE' },
    );
  return create(VersionStageSchema, { version, serviceIds: services, nodeIds: nodes });
}
