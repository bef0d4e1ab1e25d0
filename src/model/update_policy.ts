/** How a service's tasks are replaced when what they are made of changes: Swarm's options and defaults. */
import { InroError } from './error.js';
import { limits } from './limits.js';

export const updateOrders = ['stop-first', 'start-first'] as const;
export const failureActions = ['pause', 'continue', 'rollback'] as const;

export interface UpdatePolicy {
  /** Tasks at the same time; 0: all. */
  parallelism: number;
  delayMs: number;
  order: (typeof updateOrders)[number];
  failureAction: (typeof failureActions)[number];
  /** How long the new tasks have to run before the update counts as done. */
  monitorMs: number;
  /** Of a thousand tasks: when more than that fail, the update has failed. */
  maxFailuresPermille: number;
}

export const defaultUpdatePolicy: UpdatePolicy = {
  parallelism: 1,
  delayMs: 0,
  order: 'stop-first',
  failureAction: 'pause',
  monitorMs: 5_000,
  maxFailuresPermille: 0,
};

/** @throws bad_input */
export function checkUpdatePolicy(policy: UpdatePolicy): UpdatePolicy {
  const { parallelism, delayMs, monitorMs, maxFailuresPermille } = policy;
  if (parallelism > limits.maxReplicas)
    throw new InroError('bad_input', `${parallelism} tasks at a time are more than ${limits.maxReplicas}`);
  if (delayMs > limits.maxUpdatePauseMs || monitorMs > limits.maxUpdatePauseMs)
    throw new InroError(
      'bad_input',
      `${Math.max(delayMs, monitorMs)} ms between two tasks of an update are more than ${limits.maxUpdatePauseMs}`,
    );
  if (maxFailuresPermille > 1000)
    throw new InroError('bad_input', 'more than all tasks cannot fail', {
      remedy: 'write the ratio as a number from 0 to 1',
    });
  return policy;
}
