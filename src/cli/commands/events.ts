/** inro events */
import { parseDuration } from '../../model/duration.js';
import { InroError } from '../../model/error.js';
import { Control, type ClusterEvent } from '../../proto/gen/inro/v1/control_pb.js';
import { call } from '../../rpc/client.js';
import { systemClock } from '../../system/clock.js';
import { withManager, type ManagerOption } from '../operator.js';
import { Patient } from '../patient.js';
import { iso, padded, printJson, printLine } from '../print.js';

interface EventsOptions extends ManagerOption {
  filter: string[];
  since?: string;
  follow: boolean;
  json?: boolean;
}

const waitMs = 20_000;
const widths = [24, 9, 12, 26, 0];
const keys = ['type', 'action', 'id', 'name'] as const;

/** Goes on over a restart of the manager, which begins to count anew. */
export async function eventsCommand({
  filter,
  since,
  follow,
  json,
  ...options
}: EventsOptions): Promise<void> {
  const wanted = filter.map(parseFilter);
  const sinceMs = since === undefined ? undefined : systemClock.now() - parseDuration(since);
  let [runId, after] = ['', sinceMs === undefined && follow ? undefined : 0n] as [string, bigint | undefined];
  const patient = new Patient();
  const all: unknown[] = [];
  for (;;) {
    const isFirst = after === undefined || runId === '';
    const request = { after: after ?? maxNumber, waitMs: isFirst || !follow ? 0 : waitMs, runId };
    const page = await patient.ask(() =>
      withManager(options, (manager) => call(manager, Control, 'listEvents', request, waitMs + 10_000)),
    );
    for (const event of page.events) {
      if (Number(event.atMs) < (sinceMs ?? 0) || !wanted.every((one) => fits(event, one))) continue;
      if (json !== true) printLine(padded(rowOf(event), widths));
      else if (follow) printLine(JSON.stringify(eventJson(event)));
      else all.push(eventJson(event));
    }
    if (page.runId !== runId && runId !== '') after = 0n;
    runId = page.runId;
    after = page.events.at(-1)?.number ?? after ?? page.last;
    if (follow || after < page.last) continue;
    if (json === true) printJson(all);
    return;
  }
}

/** Beyond every number: nothing is after it. */
const maxNumber = 2n ** 53n;

interface Filter {
  key: (typeof keys)[number];
  value: string;
}

function parseFilter(text: string): Filter {
  const [, key, value] = /^([a-z]+)=(.+)$/.exec(text) ?? [];
  const known = keys.find((one) => one === key);
  if (known === undefined || value === undefined)
    throw new InroError('bad_input', `filter ${JSON.stringify(text)} is not understood`, {
      remedy: `write --filter KEY=VALUE with ${keys.join(', ')}: --filter type=node`,
    });
  return { key: known, value };
}

function fits(event: ClusterEvent, { key, value }: Filter): boolean {
  return event[key] === value;
}

function rowOf({ atMs, type, action, id, name, attributes }: ClusterEvent): string[] {
  const more = Object.entries(attributes).map(([key, value]) => `${key}=${value}`);
  return [iso(atMs), type, action, name === '' ? id : name, more.join(' ')];
}

function eventJson({ number, atMs, type, action, id, name, attributes }: ClusterEvent) {
  return { number: Number(number), time: iso(atMs), type, action, id, name, attributes };
}
