/** The model's task states and their numbers on the wire and on disk. */
import type { TaskState } from '../model/task.js';
import { TaskState as Wire } from './gen/inro/v1/common_pb.js';

/** @returns the state; NEW for a number that this version does not know. */
export function stateOf(wire: Wire): TaskState {
  const name = Wire[wire];
  return name === undefined || wire === Wire.UNSPECIFIED ? 'NEW' : (name as TaskState);
}

export function wireState(state: TaskState): Wire {
  return Wire[state];
}
