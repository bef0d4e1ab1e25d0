/** inro node ls|inspect */
import { Control, type Node } from '../../proto/gen/inro/v1/control_pb.js';
import type { CloneAlarm } from '../../proto/gen/inro/v1/common_pb.js';
import { call } from '../../rpc/client.js';
import { withManager, type ManagerOption } from '../operator.js';
import { ago, iso, isoOrNull, labelText, printFacts, printJson, printLine, printTable } from '../print.js';

interface Common extends ManagerOption {
  json?: boolean;
}

export async function nodeLs(options: Common & { filter: string[]; quiet?: boolean }): Promise<void> {
  const { nodes } = await withManager(options, (manager) =>
    call(manager, Control, 'listNodes', { filters: options.filter }),
  );
  if (options.json === true) return printJson(nodes.map(nodeJson));
  if (options.quiet === true) return nodes.forEach(({ id }) => printLine(id));
  const rows = nodes.map((n) => [
    n.id,
    n.description?.hostname || '-',
    [n.status, ...(n.clone === undefined ? [] : ['used twice']), ...(n.mustEnrol ? ['must enrol'] : [])].join(
      ', ',
    ),
    n.availability,
    String(n.tasks),
    n.description?.agentVersion || '-',
    ago(n.lastSeenMs),
    labelText(n.labels),
  ]);
  printTable(['ID', 'HOSTNAME', 'STATUS', 'AVAILABILITY', 'TASKS', 'VERSION', 'SEEN', 'LABELS'], rows);
}

export async function nodeInspect(names: string[], options: Common): Promise<void> {
  const nodes = await withManager(options, (manager) =>
    Promise.all(names.map((name) => call(manager, Control, 'getNode', { name }))),
  );
  if (options.json === true) return printJson(nodes.map(nodeJson));
  for (const node of nodes) {
    const d = node.description;
    printFacts([
      ['ID', node.id],
      ['Hostname', d?.hostname || '-'],
      ['Role', node.role],
      ['Status', statusText(node)],
      ['Availability', node.availability],
      ['Labels', labelText(node.labels)],
      ['Address', node.address || '-'],
      ['Tasks', String(node.tasks)],
      ['System', `${d?.distribution ?? ''} ${d?.kernel ?? ''} ${d?.architecture ?? ''}`.trim() || '-'],
      ['Size', `${d?.cpus ?? 0} CPUs, ${Math.round(Number(d?.memoryBytes ?? 0n) / 2 ** 20)} MiB`],
      ['Agent', d?.agentVersion || '-'],
      ['Joined', `${iso(node.createdMs)} (${ago(node.createdMs)})`],
      ['Seen', ago(node.lastSeenMs)],
      ['Certificate', certificateText(node)],
      ...(node.clone === undefined ? [] : [['Alarm', alarmText(node.id, node.clone)] as [string, string]]),
    ]);
  }
}

function statusText({ status, id, pendingUntilMs }: Node): string {
  return status === 'pending'
    ? `pending until ${iso(pendingUntilMs)}: inro node approve ${id}, or inro node reject ${id}`
    : status;
}

function alarmText(id: string, clone: CloneAlarm): string {
  const { kind, sinceMs, seenMs, count, address, otherAddress, otherHostname } = clone;
  const other = `${otherAddress}${otherHostname === '' ? '' : ` (${otherHostname})`}`;
  const what =
    kind === 'two hosts'
      ? `its identity is used by two hosts: ${address}, which is served, and ${other}, which is held back`
      : `${other} came with its certificate from before a renewal: a copy, or a backup that was restored`;
  const seen = `${count} times since ${iso(sinceMs)}, last ${ago(seenMs)}`;
  return `${what}; ${seen}. Once one of them has joined anew: inro node clear-alarm ${id}`;
}

function alarmJson(clone: CloneAlarm | undefined) {
  if (clone === undefined) return null;
  const { kind, sinceMs, seenMs, ...rest } = clone;
  return {
    kind,
    since: iso(sinceMs),
    lastSeen: iso(seenMs),
    count: rest.count,
    address: rest.address,
    otherAddress: rest.otherAddress,
    otherHostname: rest.otherHostname,
    otherBootId: rest.otherBootId,
  };
}

function certificateText({ certificateExpiresMs, mustEnrol }: Node): string {
  if (mustEnrol)
    return 'of a CA that is not in use any more: on that host stop the agent, then inro agent join --again --token - --manager HOST:PORT';
  return certificateExpiresMs === 0n
    ? 'none yet'
    : `expires ${iso(certificateExpiresMs)} (${ago(certificateExpiresMs)})`;
}

function nodeJson(node: Node) {
  const d = node.description;
  return {
    id: node.id,
    hostname: d?.hostname ?? '',
    role: node.role,
    status: node.status,
    availability: node.availability,
    address: node.address,
    tasks: node.tasks,
    platform: d?.platform ?? '',
    architecture: d?.architecture ?? '',
    distribution: d?.distribution ?? '',
    kernel: d?.kernel ?? '',
    cpus: d?.cpus ?? 0,
    memoryBytes: Number(d?.memoryBytes ?? 0n),
    agentVersion: d?.agentVersion ?? '',
    joinedAt: iso(node.createdMs),
    version: node.version,
    lastSeenAt: isoOrNull(node.lastSeenMs),
    certificateExpiresAt: isoOrNull(node.certificateExpiresMs),
    labels: node.labels,
    pendingUntil: isoOrNull(node.pendingUntilMs),
    alarm: alarmJson(node.clone),
    mustEnrol: node.mustEnrol,
  };
}
