/** What `inro agent status` shows: identity, session, tasks, and which protections are in force and which are not. */
import { realpath } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Arena } from '../crypto/arena.js';
import type { Clock } from '../model/clock.js';
import { sizeText } from '../model/size.js';
import type { AgentStatusSchema, ProtectionSchema } from '../proto/gen/inro/v1/agent_pb.js';
import { readersOf } from '../proto/readers.js';
import { wireState } from '../proto/task_state.js';
import { version } from '../system/version.js';
import { readersRule, type HostTask, type HostTasks } from './host_tasks.js';
import type { Identity } from './identity.js';
import type { Lease } from './lease.js';
import type { DriverFacts, MountDriver } from './mount/driver.js';
import { isInroMount, readMounts, topMountAt } from './mount/mountpoint.js';
import type { Renewal } from './renewal.js';
import type { Receipts } from './receipts.js';
import type { Session } from './session.js';
import { heldKey, type Vault } from './vault.js';
import type { Attachments } from './workloads/attachments.js';

export interface StatusParts {
  identity: () => Identity;
  renewal: Pick<Renewal, 'status'>;
  session: Session;
  lease: Lease;
  arena: Arena;
  /** RLIMIT_MEMLOCK, where the arena is smaller because of it. */
  lockLimitBytes: number | undefined;
  vault: Vault;
  tasks: HostTasks;
  receipts: Receipts;
  attachments: Attachments;
  driver: MountDriver;
  mountPath: string;
  clock: Clock;
  startedMs: number;
  dumpsForbidden: boolean;
  swapBytes: () => number;
  /** Who keeps what a successor needs, should this process be killed; '' for nobody. */
  keptBy: () => string;
  credentials: { path: string; notServed: () => string };
}

export async function agentStatus(parts: StatusParts): Promise<MessageInitShape<typeof AgentStatusSchema>> {
  const {
    renewal,
    session,
    lease,
    arena,
    vault,
    tasks,
    receipts,
    attachments,
    driver,
    mountPath,
    startedMs,
  } = parts;
  const identity = parts.identity();
  const { state, manager, sinceMs, lastError, revision } = session.status;
  const memory = arena.facts();
  const facts = driver.facts();
  return {
    version,
    nodeId: identity.nodeId,
    clusterId: identity.clusterId,
    certificateExpiresMs: BigInt(identity.certificate.notAfterMs),
    session: {
      state,
      managerAddress: manager,
      sinceMs: BigInt(sinceMs),
      lastError: lastError?.message ?? '',
      leaseLeftMs: BigInt(Math.round(lease.leftMs())),
      revision: BigInt(revision),
    },
    mount: {
      path: mountPath,
      driver: facts.name,
      notes: [...facts.notes],
      notServed: facts.notServed || (await whyNotMounted(mountPath)),
    },
    arena: {
      kind: memory.kind,
      sizeBytes: BigInt(memory.sizeBytes),
      usedBytes: BigInt(memory.usedBytes),
      freeBytes: BigInt(memory.freeBytes),
      largestBytes: BigInt(memory.largestBytes),
      values: vault.size,
    },
    tasks: tasks.list().map((task) => shownTask(task, vault, attachments)),
    protections: protections(parts, facts),
    startedMs: BigInt(startedMs),
    pid: process.pid,
    receipts: { pending: receipts.pending, dropped: BigInt(receipts.dropped) },
    credentials: { path: parts.credentials.path, notServed: parts.credentials.notServed() },
    renewal: renewal.status,
  };
}

function shownTask(
  { assigned, state, error, generation, shown }: HostTask,
  vault: Vault,
  attachments: Attachments,
) {
  const { id, serviceId, serviceName, references } = assigned;
  const files = shown === '' ? [] : references;
  return {
    id,
    serviceId,
    serviceName,
    state: wireState(state),
    error: error || assigned.notice,
    generation: BigInt(generation),
    files: files.map(({ reference, version: number }) => ({
      target: reference?.target ?? '',
      secretName: reference?.secretName ?? '',
      version: number,
      sizeBytes: vault.get(heldKey(reference?.secretId ?? '', number))?.value.size ?? 0,
    })),
    readers: readersOf(assigned.readers),
    unit: assigned.unit,
    restricted: attachments.isRestricted(assigned, readersRule(assigned)),
    attached: attachments.ofTask(assigned).map((each) => ({
      id: each.id,
      kind: each.kind,
      name: each.name,
      cgroup: each.cgroup?.path ?? '',
      sinceMs: BigInt(each.sinceMs),
    })),
  };
}

/** Somebody may have unmounted it, or mounted something over it. Only mountinfo is asked, never the mount. */
async function whyNotMounted(path: string): Promise<string> {
  const mounts = await readMounts().catch(() => undefined);
  if (mounts === undefined) return ''; // not on Linux: nobody can tell
  const folder = await realpath(dirname(path)).catch(() => dirname(path));
  const top = topMountAt(mounts, join(folder, basename(path)));
  if (top === undefined) return 'nothing is mounted there any more';
  return isInroMount(top) ? '' : `another file system is mounted over it (${top.fsType})`;
}

function protections(
  { arena, lockLimitBytes, dumpsForbidden, swapBytes, keptBy }: StatusParts,
  driver: DriverFacts,
): MessageInitShape<typeof ProtectionSchema>[] {
  const { kind, locked, note, sizeBytes } = arena.facts();
  const swap = swapBytes();
  const noSwap =
    swap === 0 ? 'the host has no swap' : `the host has ${Math.round(swap / 2 ** 20)} MiB of swap`;
  const limited =
    lockLimitBytes === undefined
      ? ''
      : `; only ${sizeText(sizeBytes)}, as RLIMIT_MEMLOCK is ${sizeText(lockLimitBytes)}`;
  return [
    { name: 'locked arena', inForce: locked, detail: locked ? `${kind}; ${noSwap}${limited}` : note },
    {
      name: 'arena outside of readable memory',
      inForce: kind === 'memfd_secret',
      detail: kind === 'memfd_secret' ? 'memfd_secret: not in /proc/PID/mem, core files or swap' : note,
    },
    {
      name: 'no core files',
      inForce: dumpsForbidden,
      detail: dumpsForbidden
        ? 'PR_SET_DUMPABLE is 0, RLIMIT_CORE is 0'
        : 'the kernel refused PR_SET_DUMPABLE',
    },
    {
      name: 'direct I/O',
      inForce: driver.directIo,
      detail: driver.directIo ? 'read(2) fills no page cache' : `driver ${driver.name}`,
    },
    notYet('no mmap or splice into the page cache', driver.strict, driver.name),
    { ...notYet('readers identified', driver.callerIdentity, driver.name), extra: true },
    { ...survival(keptBy(), driver), extra: true },
  ];
}

/** What a crash costs. */
function survival(keptBy: string, driver: DriverFacts): MessageInitShape<typeof ProtectionSchema> {
  const name = 'mount survives the agent';
  if (keptBy !== '') return { name, inForce: true, detail: `kept by ${keptBy}` };
  const cost = 'after a crash readers get ENOTCONN until the next start, in a bind mount for ever';
  const why = driver.handover ? 'nobody keeps its descriptors' : `driver ${driver.name} cannot here`;
  return { name, inForce: false, detail: `${why}: ${cost}` };
}

function notYet(name: string, inForce: boolean, driver: string): MessageInitShape<typeof ProtectionSchema> {
  return { name, inForce, detail: inForce ? '' : `driver ${driver} cannot` };
}
