/** What an operator lets a node do: Swarm's words. */
import { InroError } from './error.js';
import { quoted } from './name.js';

export const availabilities = ['active', 'pause', 'drain'] as const;
/** `pause`: it keeps its tasks and is given no more. `drain`: its tasks end, and are replaced elsewhere. */
export type Availability = (typeof availabilities)[number];

/** @throws bad_input */
export function checkAvailability(word: string): Availability {
  const found = availabilities.find((each) => each === word);
  if (found === undefined)
    throw new InroError('bad_input', `a node’s availability is not ${quoted(word)}`, {
      remedy: `write ${availabilities.join(', ')}`,
    });
  return found;
}
