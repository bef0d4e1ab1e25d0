/** The operators' service: the parts of it, and what concerns the cluster. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { SealingKeySchema } from '../proto/gen/inro/v1/common_pb.js';
import { Control } from '../proto/gen/inro/v1/control_pb.js';
import type { Handlers, Registration } from '../rpc/server.js';
import { callerOf, seesService } from './caller.js';
import { applyHandlers } from './control_apply.js';
import { auditHandlers, type AuditHandlersParts } from './control_audit.js';
import { caHandlers, type CaHandlersParts } from './control_ca.js';
import { eventHandlers, type EventHandlersParts } from './control_events.js';
import { guarded } from './control_guard.js';
import { managerHandlers, type ManagerHandlersParts } from './control_managers.js';
import { nodeHandlers, type NodeHandlersParts } from './control_nodes.js';
import { operatorHandlers, type OperatorHandlersParts } from './control_operators.js';
import { receiptHandlers } from './control_receipts.js';
import { revokeHandlers } from './control_revoke.js';
import { secretHandlers, type ControlParts } from './control_secrets.js';
import { serviceHandlers } from './control_services.js';
import { statusHandlers, type StatusHandlersParts } from './control_status.js';
import { tokenHandlers, type TokenHandlersParts } from './control_tokens.js';
import { versionHandlers } from './control_versions.js';
import type { NodeStates } from './placement.js';
import { waitForNodes } from './wait.js';

export interface AllControlParts
  extends
    ControlParts,
    Omit<TokenHandlersParts, 'authority'>,
    ManagerHandlersParts,
    NodeHandlersParts,
    Omit<OperatorHandlersParts, 'authority'>,
    CaHandlersParts,
    AuditHandlersParts,
    EventHandlersParts,
    StatusHandlersParts {
  sealingKey: () => MessageInitShape<typeof SealingKeySchema>;
  createdMs: number;
  nodeStates: NodeStates;
}

export function control(parts: AllControlParts): Registration {
  const { clusterId, view, clock, dispatcher, nodeStates, authority, sealingKey, createdMs } = parts;
  const handlers: Handlers<typeof Control, 'operator'> = {
    ...caHandlers(parts),
    ...secretHandlers(parts),
    ...revokeHandlers(parts),
    ...versionHandlers(parts),
    ...serviceHandlers(parts),
    ...tokenHandlers(parts),
    ...managerHandlers(parts),
    ...nodeHandlers(parts),
    ...operatorHandlers(parts),
    ...auditHandlers(parts),
    ...eventHandlers(parts),
    ...statusHandlers(parts),
    ...receiptHandlers(parts),
    ...applyHandlers(parts),

    getCluster: async () => ({
      id: clusterId,
      rootPem: authority.root.pem,
      sealingKey: sealingKey(),
      createdMs: BigInt(createdMs),
    }),

    wait: (request, { peer, signal }) => {
      const caller = callerOf(view, peer);
      // What a deployer may not see, he does not hear of either.
      const serviceIds = request.serviceIds.filter((id) => {
        const service = view.services.get(id);
        return service === undefined || seesService(caller, service);
      });
      return waitForNodes({ ...request, serviceIds }, { view, nodes: nodeStates, dispatcher, clock }, signal);
    },
  };
  return { service: Control, access: 'operator', ...guarded(handlers, parts) };
}
