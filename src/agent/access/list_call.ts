/** The call that lists what has been read, and goes on with what is being read. */
import { InroError } from '../../model/error.js';
import type { AccessEntrySchema, AccessQuery } from '../../proto/gen/inro/v1/agent_pb.js';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Channel } from '../../rpc/stream.js';
import { agentLimits } from '../limits.js';
import type { AccessLog, AuditEntry } from './access_log.js';

type Wire = MessageInitShape<typeof AccessEntrySchema>;

/** @throws protocol, too_large for a listener that does not keep up. */
export async function listAccesses(log: AccessLog, channel: Channel<Wire, AccessQuery>): Promise<void> {
  const first = await channel.messages[Symbol.asyncIterator]().next();
  if (first.done === true) throw new InroError('protocol', 'the call ended before it asked for anything');
  const { secret, follow } = first.value;
  const isWanted = (entry: AuditEntry): boolean =>
    secret === '' || entry.outcome === 'dropped' || entry.secret === secret || entry.secretId === secret;
  const waiting: AuditEntry[] = [];
  let wake = (): void => undefined;
  // First: what comes while the history is being told is not lost.
  const stop = log.listen((entry) => {
    if (isWanted(entry)) waiting.push(entry);
    wake();
  });
  try {
    const told = [...log.history()].filter(isWanted);
    waiting.length = 0; // what came meanwhile is in the history
    for (const entry of told) await channel.send(wireOf(entry));
    if (!follow) return;
    channel.closed.addEventListener('abort', () => wake(), { once: true });
    while (!channel.closed.aborted) {
      if (waiting.length > agentLimits.maxUntakenEntries)
        throw new InroError('too_large', 'more is being read than this terminal takes');
      const entry = waiting.shift();
      if (entry !== undefined) await channel.send(wireOf(entry));
      else await new Promise<void>((resolve) => (wake = resolve));
    }
  } finally {
    stop();
  }
}

function wireOf(entry: AuditEntry): Wire {
  const { time, secret, version, service, task, processStartedAt, count, ...same } = entry;
  return {
    ...same,
    atMs: BigInt(Date.parse(time)),
    secretName: secret,
    version,
    serviceName: service,
    taskId: task,
    processStartedMs: BigInt(processStartedAt === null ? 0 : Date.parse(processStartedAt)),
    count: BigInt(count),
  };
}
