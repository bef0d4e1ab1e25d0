/**
 * Who may read a task's files, besides what their owner, group and mode say.
 *
 * attached: processes of attached workloads alone. any: whoever reaches the files. auto: as `any` until a workload attaches
 * to the task first, and as `attached` from then on.
 */
export type ReadersRule = 'auto' | 'attached' | 'any';
