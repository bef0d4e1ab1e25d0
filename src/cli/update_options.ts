/** The options that say how an update rolls, on `service create` and `service update`. */
import { InvalidArgumentError, Option, type Command } from 'commander';
import { parseDuration } from '../model/duration.js';
import { failureActions, updateOrders, type UpdatePolicy } from '../model/update_policy.js';

export interface PolicyOptions {
  updateParallelism?: number;
  updateDelay?: string;
  updateOrder?: UpdatePolicy['order'];
  updateFailureAction?: UpdatePolicy['failureAction'];
  updateMonitor?: string;
  updateMaxFailureRatio?: number;
}

/** @throws bad_input */
export function changedPolicy(before: UpdatePolicy, options: PolicyOptions): UpdatePolicy {
  const { updateParallelism, updateOrder, updateFailureAction, updateMaxFailureRatio } = options;
  return {
    parallelism: updateParallelism ?? before.parallelism,
    delayMs: milliseconds(options.updateDelay) ?? before.delayMs,
    order: updateOrder ?? before.order,
    failureAction: updateFailureAction ?? before.failureAction,
    monitorMs: milliseconds(options.updateMonitor) ?? before.monitorMs,
    maxFailuresPermille:
      updateMaxFailureRatio === undefined
        ? before.maxFailuresPermille
        : Math.round(updateMaxFailureRatio * 1000),
  };
}

export function givesPolicy(options: PolicyOptions): boolean {
  return Object.entries(options).some(([key, value]) => /^update[A-Z]/.test(key) && value !== undefined);
}

export function policyText(policy: UpdatePolicy): string {
  const { parallelism, delayMs, order, failureAction, monitorMs, maxFailuresPermille } = policy;
  const count = parallelism === 0 ? 'all at once' : `${parallelism} at a time`;
  const pause = delayMs === 0 ? '' : `, ${delayMs / 1000} s between`;
  const ratio = maxFailuresPermille === 0 ? 'a failure' : `more than ${maxFailuresPermille / 10} % failures`;
  return `${order}, ${count}${pause}, ${monitorMs / 1000} s of monitoring, ${failureAction} at ${ratio}`;
}

export function withPolicyOptions<C extends Command>(command: C, wholeNumber: (text: string) => number): C {
  return command
    .option(
      '--update-parallelism <N>',
      'tasks that an update replaces at the same time, 0 for all (1)',
      wholeNumber,
    )
    .option('--update-delay <DURATION>', 'after a new task runs, before the next one is replaced (0s)')
    .addOption(
      new Option(
        '--update-order <ORDER>',
        'whether the old or the new task comes first (stop-first)',
      ).choices(updateOrders),
    )
    .addOption(
      new Option('--update-failure-action <ACTION>', 'what a failed update does (pause)').choices(
        failureActions,
      ),
    )
    .option('--update-monitor <DURATION>', 'so long new tasks have to run until the update is done (5s)')
    .option(
      '--update-max-failure-ratio <RATIO>',
      'more than that of its tasks is a failure, 0 to 1 (0)',
      ratio,
    );
}

function ratio(text: string): number {
  const value = Number(text);
  if (!/^[0-9.]{1,8}$/.test(text) || !(value >= 0 && value <= 1))
    throw new InvalidArgumentError('write a number from 0 to 1.');
  return value;
}

function milliseconds(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  return text === '0' || text === '0s' ? 0 : parseDuration(text);
}
