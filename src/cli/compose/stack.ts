/**
 * Names of what a Compose file holds. With a stack's name they are NAME_KEY, as `docker stack deploy` makes them, and a label says to
 * which stack a secret or service belongs; without one they stand as they are.
 */
import { checkName } from '../../model/name.js';

const stackLabel = 'inro.stack';

export interface Stack {
  /** @throws bad_input */
  nameOf(kind: 'secret' | 'service' | 'volume', key: string): string;
  labels: Record<string, string>;
}

/** @throws bad_input */
export function stackOf(name: string | undefined): Stack {
  if (name === undefined)
    return { nameOf: (kind, key) => (kind === 'volume' ? key : checkName(kind, key)), labels: {} };
  checkName('stack', name);
  return {
    nameOf: (kind, key) => checkName(kind, `${name}_${key}`),
    labels: { [stackLabel]: name },
  };
}
