/** The agent: takes its identity, mounts, serves its status, and keeps a session with a manager. */
import type { Logger } from 'pino';
import { openServedArena } from '../crypto/arena.js';
import type { Clock, Random } from '../model/clock.js';
import { asInroError, InroError } from '../model/error.js';
import { newId } from '../model/id.js';
import { Dispatcher } from '../proto/gen/inro/v1/dispatcher_pb.js';
import { connectTls, openStream } from '../rpc/client.js';
import { answers, listenUnix } from '../rpc/server.js';
import { nodeCredentials } from '../rpc/tls.js';
import { addon } from '../system/addon.js';
import { claimStateFolder } from '../system/files.js';
import { arenaSize } from './arena_size.js';
import type { AgentChannel } from './channel.js';
import { describeHost } from './describe.js';
import { HostTasks } from './host_tasks.js';
import { loadIdentity, saveManagers } from './identity.js';
import { Lease } from './lease.js';
import { agentLimits } from './limits.js';
import { createDriver, type DriverName } from './mount/drivers.js';
import { Receipts } from './receipts.js';
import { Session } from './session.js';
import { statusService } from './status.js';
import { attach } from './stream.js';
import { Vault } from './vault.js';

export interface AgentOptions {
  stateFolder: string;
  mountPath: string;
  socketPath: string;
  /** Instead of the managers that the identity knows. */
  managers?: readonly string[];
  driver: DriverName;
  clock: Clock;
  random: Random;
  log: Logger;
}

export interface RunningAgent {
  nodeId: string;
  clusterId: string;
  /** Resolves when the first session with a manager has begun. */
  connected: Promise<void>;
  /** From now on these, instead of those that the identity knows; undefined: those again. */
  useManagers(managers: readonly string[] | undefined): void;
  /** Wipes, unmounts, ends the session. */
  stop(): Promise<void>;
}

/** @throws already_running, no_identity, bad_certificate, mount_failed, no_fuse, not_permitted, socket_taken, state_unusable. */
export async function startAgent(options: AgentOptions): Promise<RunningAgent> {
  const { stateFolder, mountPath, socketPath, clock, random, log } = options;
  const dumpsForbidden = addon().forbidDumps() === 0;
  claimStateFolder(stateFolder, 'agent');
  const identity = loadIdentity(stateFolder, clock.now());
  // Before the mount: what looks like a dead mount may be the live one of the agent behind this socket.
  if (await answers(socketPath)) {
    throw new InroError('already_running', `an agent serves ${socketPath} already`, {
      remedy: "look at it with 'inro agent status', or choose another with --socket PATH and --mount DIR",
    });
  }

  const size = arenaSize((bytes) => addon().lockable(bytes));
  const arena = openServedArena(size.heapBytes, size.nodes);
  const receipts = new Receipts(identity, newId(random));
  const vault = new Vault(arena, clock, (wiped) => receipts.add(wiped));
  const driver = createDriver(options.driver, {
    arena,
    clock,
    onError: (error, operation) => log.error({ err: error, operation }, 'a file system request failed'),
  });
  const lease = new Lease(clock, (deadlineMs) => driver.serveUntil(deadlineMs));
  const tasks = new HostTasks({ vault, driver, clock, log, clusterId: identity.clusterId });
  let { managers: named } = options;
  let known = identity.managers;
  let swapBytes = 0;
  const describe = async () => {
    const description = await describeHost(clock);
    swapBytes = Number(description.swapBytes ?? 0n);
    return description;
  };

  let welcomed = (): void => undefined;
  const connected = new Promise<void>((resolve) => (welcomed = resolve));
  const session = new Session({
    managers: () => named ?? known,
    open: (manager) => open(manager, nodeCredentials(identity)),
    attach: (channel, onWelcome) =>
      attach(channel, {
        identity,
        arena,
        vault,
        tasks,
        lease,
        receipts,
        clock,
        random,
        log,
        describe,
        onWelcome: ({ managerAddresses }) => {
          const usable = managerAddresses.filter(isDialable);
          if (named === undefined && usable.length > 0) known = remember(stateFolder, known, usable, log);
          onWelcome();
          welcomed();
        },
        onApplied: (revision) => session.applied(revision),
      }),
    onExpelled: () => {
      lease.end();
      tasks.wipeAll('removed');
    },
    clock,
    random,
    log,
  });

  await driver.mount({ path: mountPath });
  const ended = new AbortController();
  const stopServing = async (): Promise<void> => {
    tasks.wipeAll('stopped');
    // A manager that does not answer keeps nobody waiting for long.
    const hears = session.status.state === 'connected';
    try {
      await Promise.all([driver.unmount(), hears && receipts.untilTaken(clock, agentLimits.lastReceiptsMs)]);
    } finally {
      ended.abort();
    }
  };
  try {
    const startedMs = clock.now();
    const status = {
      identity,
      session,
      lease,
      arena,
      lockLimitBytes: size.limitBytes,
      vault,
      tasks,
      receipts,
      driver,
      mountPath,
      clock,
      startedMs,
      dumpsForbidden,
      swapBytes: () => swapBytes,
    };
    const server = await listenUnix(socketPath, [statusService(status)]);
    const running = session.run(ended.signal);
    const watching = watchLease({ lease, tasks, session, clock, log }, ended.signal);
    if (!arena.facts().locked) log.warn({ why: arena.facts().note }, 'values may be swapped out');
    log.info({ node: identity.nodeId, mount: mountPath, socket: socketPath }, 'agent is ready');
    return {
      nodeId: identity.nodeId,
      clusterId: identity.clusterId,
      connected,
      useManagers: (managers) => {
        named = managers;
        if (!(named ?? known).includes(session.status.manager)) session.reconnect();
      },
      stop: async () => {
        await stopServing();
        await Promise.all([running, watching, server.stop(agentLimits.stopGraceMs)]);
      },
    };
  } catch (error) {
    await stopServing();
    throw asInroError(error);
  }
}

function open(manager: string, credentials: ReturnType<typeof nodeCredentials>): AgentChannel {
  const connection = connectTls(manager, credentials);
  const channel = openStream(connection, Dispatcher, 'attach');
  channel.closed.addEventListener('abort', () => connection.close(), { once: true });
  return channel;
}

interface WatchedParts {
  lease: Lease;
  tasks: HostTasks;
  session: Session;
  clock: Clock;
  log: Logger;
}

/** Past its lease the node wipes, whatever else is going on. */
async function watchLease(
  { lease, tasks, session, clock, log }: WatchedParts,
  signal: AbortSignal,
): Promise<void> {
  let held = false;
  while (!signal.aborted) {
    const holds = lease.holds();
    if (held && !holds) {
      log.error('the lease is over: everything is wiped until a manager is heard again');
      tasks.wipeAll('lease');
      // What was wiped comes back with a complete assignment only.
      session.reconnect();
    }
    held = holds;
    await clock.sleep(agentLimits.leaseCheckMs, signal);
  }
}

/** A manager that listens on all addresses does not know which of them this node can reach. */
function isDialable(address: string): boolean {
  return !/^(0\.0\.0\.0|\[?::\]?):/.test(address);
}

/** The address book is a convenience: a disk that cannot be written must not keep the node from its secrets. */
function remember(
  stateFolder: string,
  known: readonly string[],
  told: readonly string[],
  log: Logger,
): readonly string[] {
  const all = [...new Set([...told, ...known])].slice(0, agentLimits.maxManagers);
  if (all.length === known.length && all.every((address) => known.includes(address))) return all;
  try {
    saveManagers(stateFolder, all);
  } catch (error) {
    log.warn({ err: error }, 'the addresses of the managers could not be kept');
  }
  return all;
}
