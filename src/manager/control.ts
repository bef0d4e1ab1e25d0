/** The operators' service: the parts of it, and what concerns the cluster. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { SealingKeySchema } from '../proto/gen/inro/v1/common_pb.js';
import { Control } from '../proto/gen/inro/v1/control_pb.js';
import { serve, type Registration } from '../rpc/server.js';
import { caHandlers } from './control_ca.js';
import { nodeHandlers, type NodeHandlersParts } from './control_nodes.js';
import { revokeHandlers } from './control_revoke.js';
import { secretHandlers, type ControlParts } from './control_secrets.js';
import { serviceHandlers } from './control_services.js';
import { tokenHandlers, type TokenHandlersParts } from './control_tokens.js';
import { waitForNodes } from './wait.js';

export interface AllControlParts extends ControlParts, TokenHandlersParts, NodeHandlersParts {
  sealingKey: MessageInitShape<typeof SealingKeySchema>;
  createdMs: number;
}

export function control(parts: AllControlParts): Registration {
  const { clusterId, view, clock, dispatcher, root, sealingKey, createdMs } = parts;
  return serve(Control, 'local', {
    ...caHandlers(parts),
    ...secretHandlers(parts),
    ...revokeHandlers(parts),
    ...serviceHandlers(parts),
    ...tokenHandlers(parts),
    ...nodeHandlers(parts),

    getCluster: async () => ({
      id: clusterId,
      rootPem: root.pem,
      sealingKey,
      createdMs: BigInt(createdMs),
    }),

    wait: (request, { signal }) => waitForNodes(request, { view, dispatcher, clock }, signal),
  });
}
