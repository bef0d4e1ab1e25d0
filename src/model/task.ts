/** A task's states: Swarm's names, in the order in which a task goes through them. */
export const taskStates = [
  'NEW',
  'ASSIGNED',
  'READY',
  'RUNNING',
  'COMPLETE',
  'SHUTDOWN',
  'FAILED',
  'REJECTED',
  'ORPHANED',
] as const;

export type TaskState = (typeof taskStates)[number];

/** A task that has ended never runs again and holds no secret: a new one takes its place. */
export function hasEnded(state: TaskState): boolean {
  return taskStates.indexOf(state) > taskStates.indexOf('RUNNING');
}

/** States only go forward: a late report must not bring a task back. */
export function isForward(from: TaskState, to: TaskState): boolean {
  return !hasEnded(from) && taskStates.indexOf(to) >= taskStates.indexOf(from);
}
