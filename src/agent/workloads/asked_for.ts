/** What new files and new values ask for. Pure. */
import type { AssignedTask } from '../../proto/gen/inro/v1/dispatcher_pb.js';

/**
 * @param before which value each target showed. @param after the same for what it shows now.
 * @returns the actions (model/on_change.ts), each once; a file that has gone asks for none.
 */
export function askedFor(
  { references, onChange }: AssignedTask,
  before: ReadonlyMap<string, string>,
  after: ReadonlyMap<string, string>,
): string[] {
  const actions = references.flatMap(({ reference }) => {
    const target = reference?.target ?? '';
    return before.get(target) === after.get(target) ? [] : [reference?.onChange || onChange];
  });
  return [...new Set(actions)].filter((action) => action !== '' && action !== 'none');
}
