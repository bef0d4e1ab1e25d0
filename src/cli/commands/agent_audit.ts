/** inro agent audit */
import { Agent, type AccessEntry } from '../../proto/gen/inro/v1/agent_pb.js';
import { withAgent } from '../../rpc/agent_socket.js';
import { openStream } from '../../rpc/client.js';
import { paths } from '../paths.js';
import { iso, isoOrNull, padded, printJson, printLine, printTable } from '../print.js';

interface AuditOptions {
  follow?: boolean;
  secret?: string;
  socket?: string;
  json?: boolean;
}

const head = ['TIME', 'OUTCOME', 'SECRET', 'SERVICE', 'USER', 'PROCESS', 'WORKLOAD'];
/** As wide as what usually stands there, so that lines that come one by one stand under each other. */
const widths = [24, 15, 24, 16, 7, 24, 0];

export async function agentAudit({ follow = false, secret = '', socket, json }: AuditOptions): Promise<void> {
  await withAgent(socket ?? paths.agentSocket, async (agent) => {
    const channel = openStream(agent, Agent, 'listAccesses');
    await channel.send({ secret, follow });
    if (json !== true && follow) printLine(padded(head, widths));
    const all: AccessEntry[] = [];
    for await (const entry of channel.messages) {
      if (!follow) all.push(entry);
      else printLine(json === true ? JSON.stringify(entryJson(entry)) : padded(rowOf(entry), widths));
    }
    if (follow) return;
    if (json === true) printJson(all.map(entryJson));
    else printTable(head, all.map(rowOf));
  });
}

function rowOf(entry: AccessEntry): string[] {
  if (entry.outcome === 'dropped')
    return [iso(entry.atMs), 'dropped', `${entry.count} accesses are only counted`, '', '', '', ''];
  const { processName, processId } = entry;
  return [
    iso(entry.atMs),
    entry.outcome,
    // Of what was asked for and is not there, only its name is known.
    entry.secretName === '' ? `(${entry.target || '-'})` : `${entry.secretName}@${entry.version}`,
    entry.serviceName || '-',
    String(entry.uid),
    processId === 0 ? '-' : `${processName}[${processId}]`,
    entry.workload || entry.cgroup || '-',
  ];
}

function entryJson(entry: AccessEntry) {
  return {
    time: iso(entry.atMs),
    outcome: entry.outcome,
    count: Number(entry.count),
    secret: entry.secretName,
    secretId: entry.secretId,
    version: entry.version,
    service: entry.serviceName,
    task: entry.taskId,
    target: entry.target,
    uid: entry.uid,
    gid: entry.gid,
    threadId: entry.threadId,
    processId: entry.processId,
    processStartedAt: isoOrNull(entry.processStartedMs),
    processName: entry.processName,
    cgroup: entry.cgroup,
    workload: entry.workload,
  };
}
