/** Update policies between their words and their numbers on the wire. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import {
  defaultUpdatePolicy,
  failureActions,
  updateOrders,
  type UpdatePolicy as Policy,
} from '../model/update_policy.js';
import {
  UpdateFailureAction,
  UpdateOrder,
  UpdateState,
  type UpdatePolicy,
  type UpdatePolicySchema,
} from './gen/inro/v1/common_pb.js';

/** Nothing is the default, and what this version does not know the more careful. */
export function policyOf(wire: UpdatePolicy | undefined): Policy {
  if (wire === undefined) return defaultUpdatePolicy;
  const { parallelism, delayMs, monitorMs, maxFailuresPermille } = wire;
  const order = updateOrders[wire.order - UpdateOrder.STOP_FIRST] ?? 'stop-first';
  const failureAction = failureActions[wire.failureAction - UpdateFailureAction.PAUSE] ?? 'pause';
  return { parallelism, delayMs, order, failureAction, monitorMs, maxFailuresPermille };
}

export function wirePolicy(policy: Policy): MessageInitShape<typeof UpdatePolicySchema> {
  return {
    ...policy,
    order: UpdateOrder.STOP_FIRST + updateOrders.indexOf(policy.order),
    failureAction: UpdateFailureAction.PAUSE + failureActions.indexOf(policy.failureAction),
  };
}

const states = ['updating', 'paused', 'completed', 'rollback_started', 'rollback_completed'] as const;

/** Swarm's words. */
export function updateStateOf(wire: UpdateState): (typeof states)[number] {
  return states[wire - UpdateState.UPDATING] ?? 'paused';
}
