/** The events, as operators follow them. */
import type { Clock } from '../model/clock.js';
import type { Control } from '../proto/gen/inro/v1/control_pb.js';
import type { Handlers } from '../rpc/server.js';
import type { EventBook } from './event_book.js';
import { managerLimits } from './limits.js';
import { waitUntil } from './wait_until.js';

export interface EventHandlersParts {
  events: EventBook;
  /** Of this manager: numbers are its own. */
  runId: string;
  clock: Clock;
}

export function eventHandlers({
  events,
  runId,
  clock,
}: EventHandlersParts): Pick<Handlers<typeof Control, 'operator'>, 'listEvents'> {
  return {
    listEvents: async ({ after, waitMs, runId: known }, { signal }) => {
      const from = known !== '' && known !== runId ? 0 : Number(after);
      if (waitMs > 0) {
        const timeoutMs = Math.min(waitMs, managerLimits.maxWaitMs);
        const listen = (look: () => void): (() => void) => events.onEvent(look);
        await waitUntil(() => events.last > from, listen, { clock, timeoutMs, signal });
      }
      const page = events.after(from).slice(0, managerLimits.maxEventsPerPage);
      return {
        runId,
        last: BigInt(events.last),
        events: page.map(({ number, atMs, ...event }) => ({
          ...event,
          number: BigInt(number),
          atMs: BigInt(atMs),
        })),
      };
    },
  };
}
