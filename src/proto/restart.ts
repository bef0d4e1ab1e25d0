/** The restart condition between its word and its number on the wire. */
import { restartConditions, type RestartCondition as Condition } from '../model/container.js';
import { RestartCondition } from './gen/inro/v1/common_pb.js';

/** What this version does not know is the default. */
export function restartOf(wire: RestartCondition): Condition {
  return restartConditions[wire - RestartCondition.ANY] ?? 'any';
}

export function wireRestart(condition: Condition): RestartCondition {
  return RestartCondition.ANY + restartConditions.indexOf(condition);
}
