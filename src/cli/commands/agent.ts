/** inro agent status; `join` and `run` are in files of their own, because they need much more. */
import { Agent, type AgentStatus } from '../../proto/gen/inro/v1/agent_pb.js';
import { stateOf } from '../../proto/task_state.js';
import { withAgent } from '../../rpc/agent_socket.js';
import { call } from '../../rpc/client.js';
import { paths } from '../paths.js';
import { ago, iso, isoOrNull, printFacts, printJson, printLine, printTable } from '../print.js';

export async function agentStatus({ socket, json }: { socket?: string; json?: boolean }): Promise<void> {
  const status = await withAgent(socket ?? paths.agentSocket, (agent) => call(agent, Agent, 'getStatus', {}));
  if (json === true) return printJson(statusJson(status));
  const { session, mount, arena } = status;
  const lease = Number(session?.leaseLeftMs ?? 0n);
  printFacts([
    ['Node', status.nodeId],
    ['Cluster', status.clusterId],
    ['Certificate', certificateText(status)],
    ['Renewal', renewalText(status)],
    ['Session', `${session?.state ?? '-'} ${session?.managerAddress ?? ''} (${ago(session?.sinceMs ?? 0n)})`],
    ...(session?.lastError ? [['Last error', session.lastError] as const] : []),
    ['Lease', lease > 0 ? `serves without a manager for ${duration(lease)}` : 'over: nothing is served'],
    ['Mount', `${mount?.path ?? '-'} (driver ${mount?.driver ?? '-'})`],
    [
      'Arena',
      `${arena?.kind ?? '-'}, values: ${arena?.values ?? 0}, ${arena?.usedBytes ?? 0n} of ${arena?.sizeBytes ?? 0n} bytes used`,
    ],
    ['Credentials', credentialsText(status)],
    ['Receipts', receiptsText(status)],
    ['Agent', `inro ${status.version}, process ${status.pid}, started ${ago(status.startedMs)}`],
  ]);
  printLine('\nTasks');
  printTable(
    ['ID', 'SERVICE', 'STATE', 'GENERATION', 'READERS', 'FILES'],
    status.tasks.map((task) => [
      task.id,
      task.serviceName,
      stateOf(task.state),
      String(task.generation),
      task.restricted ? `${task.attached.length} attached` : 'any',
      [...task.files.map((f) => `${f.target} (v${f.version}, ${f.sizeBytes} B)`), task.error]
        .filter((text) => text !== '')
        .join(', ') || '-',
    ]),
  );
  const attached = status.tasks.flatMap((task) => task.attached.map((each) => ({ task, each })));
  if (attached.length > 0) {
    printLine('\nAttached');
    printTable(
      ['WORKLOAD', 'SERVICE', 'SINCE', 'CGROUP'],
      attached.map(({ task, each: { kind, name, sinceMs, cgroup } }) => [
        `${kind} ${name}`,
        task.serviceName,
        ago(sinceMs),
        cgroup || '-',
      ]),
    );
  }
  printLine('\nProtections');
  printTable(
    ['IN FORCE', 'WHAT', 'HOW, OR WHY NOT'],
    status.protections.map((p) => [p.inForce ? 'yes' : 'NO', p.name, p.detail || '-']),
  );
  for (const note of mount?.notes ?? []) printLine(`  note: ${note}`);
}

/** @throws unreachable when no agent answers. */
export async function fetchStatus(socket: string): Promise<AgentStatus> {
  return withAgent(socket, (agent) => call(agent, Agent, 'getStatus', {}));
}

function certificateText({ certificateExpiresMs, renewal }: AgentStatus): string {
  const when = `${iso(certificateExpiresMs)} (${ago(certificateExpiresMs)})`;
  return (renewal?.expired ?? '') === '' ? `expires ${when}` : `EXPIRED ${when}`;
}

function renewalText({ renewal }: AgentStatus): string {
  const { dueMs = 0n, lastFailure = '', failedMs = 0n, onTrial = false, expired = '' } = renewal ?? {};
  if (expired !== '') return `none any more: ${expired}`;
  const due = `due ${iso(dueMs)} (${ago(dueMs)})`;
  const trial = onTrial ? '; no manager has welcomed the present one yet, the one before is kept' : '';
  return lastFailure === ''
    ? `${due}${trial}`
    : `${due}; the last try failed ${ago(failedMs)}: ${lastFailure}`;
}

function credentialsText({ credentials }: AgentStatus): string {
  const why = credentials?.notServed ?? '';
  return why === '' ? (credentials?.path ?? '-') : `not given to units: ${why}`;
}

function receiptsText({ receipts }: AgentStatus): string {
  const dropped = receipts?.dropped ?? 0n;
  const waiting = `${receipts?.pending ?? 0} wait for a manager`;
  return dropped === 0n ? waiting : `${waiting}, ${dropped} dropped: there was no room for more`;
}

function duration(ms: number): string {
  const minutes = Math.floor(ms / 60_000);
  if (minutes < 1) return `${Math.round(ms / 1000)} s`;
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function statusJson(status: AgentStatus) {
  const { session, mount, arena } = status;
  return {
    version: status.version,
    pid: status.pid,
    startedAt: iso(status.startedMs),
    nodeId: status.nodeId,
    clusterId: status.clusterId,
    certificateExpiresAt: iso(status.certificateExpiresMs),
    renewal: {
      dueAt: isoOrNull(status.renewal?.dueMs ?? 0n),
      lastFailure: status.renewal?.lastFailure ?? '',
      failedAt: isoOrNull(status.renewal?.failedMs ?? 0n),
      onTrial: status.renewal?.onTrial ?? false,
      expired: status.renewal?.expired ?? '',
    },
    session: {
      state: session?.state ?? '',
      manager: session?.managerAddress ?? '',
      since: iso(session?.sinceMs ?? 0n),
      lastError: session?.lastError ?? '',
      leaseLeftMs: Number(session?.leaseLeftMs ?? 0n),
      revision: Number(session?.revision ?? 0n),
    },
    mount: { path: mount?.path ?? '', driver: mount?.driver ?? '', notes: mount?.notes ?? [] },
    arena: {
      kind: arena?.kind ?? '',
      sizeBytes: Number(arena?.sizeBytes ?? 0n),
      usedBytes: Number(arena?.usedBytes ?? 0n),
      freeBytes: Number(arena?.freeBytes ?? 0n),
      largestBytes: Number(arena?.largestBytes ?? 0n),
      values: arena?.values ?? 0,
    },
    credentials: {
      path: status.credentials?.path ?? '',
      notServed: status.credentials?.notServed ?? '',
    },
    receipts: {
      pending: status.receipts?.pending ?? 0,
      dropped: Number(status.receipts?.dropped ?? 0n),
    },
    tasks: status.tasks.map((task) => ({
      id: task.id,
      service: task.serviceName,
      serviceId: task.serviceId,
      state: stateOf(task.state),
      error: task.error,
      generation: Number(task.generation),
      unit: task.unit,
      readers: task.readers,
      restricted: task.restricted,
      attached: task.attached.map(({ kind, name, cgroup, sinceMs }) => ({
        kind,
        name,
        cgroup,
        since: iso(sinceMs),
      })),
      files: task.files.map(({ target, secretName, version, sizeBytes }) => ({
        target,
        secret: secretName,
        version,
        sizeBytes,
      })),
    })),
    protections: status.protections.map(({ name, inForce, detail }) => ({ name, inForce, detail })),
  };
}
