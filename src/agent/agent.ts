/** The agent: takes its identity, mounts, serves its status, and keeps a session with a manager. */
import { dirname, join } from 'node:path';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Logger } from 'pino';
import type { Clock, Random } from '../model/clock.js';
import { asInroError, InroError } from '../model/error.js';
import { newId } from '../model/id.js';
import {
  Agent,
  type AccessEntrySchema,
  type AccessQuery,
  type AttachRequest,
  type DetachRequest,
} from '../proto/gen/inro/v1/agent_pb.js';
import { Dispatcher } from '../proto/gen/inro/v1/dispatcher_pb.js';
import { connectTls, openStream } from '../rpc/client.js';
import { answers, listenUnix, serve } from '../rpc/server.js';
import type { Channel } from '../rpc/stream.js';
import { nodeCredentials } from '../rpc/tls.js';
import { addon } from '../system/addon.js';
import { claimStateFolder } from '../system/files.js';
import type { ServiceManager } from '../system/service_manager.js';
import { AccessLog } from './access/access_log.js';
import { CountBatches } from './access/count_batches.js';
import { AuditFile } from './access/audit_file.js';
import { listAccesses } from './access/list_call.js';
import type { AgentChannel } from './channel.js';
import { AgentCore } from './core.js';
import { Engine } from './docker/engine.js';
import { ContainerRunner } from './docker/runner.js';
import type { ContainerActions, Hooks } from './workloads/actions.js';
import { Changes } from './workloads/changes.js';
import { servePlugin } from './docker/plugin_server.js';
import { DockerVolumes, type DockerVolumesParts } from './docker/volumes.js';
import { Credentials, type CredentialsParts } from './credentials/credentials.js';
import { openListener } from './credentials/listener.js';
import { describeHost } from './describe.js';
import { giver } from './handover/giver.js';
import { forget, keep, keepCredentials, keeperName, takeLeft } from './handover/store.js';
import { takeFrom } from './handover/taker.js';
import { HeldIdentity } from './held_identity.js';
import { loadIdentity, saveManagers, settleKeys } from './identity.js';
import { finishJoining } from './joining.js';
import { agentLimits } from './limits.js';
import type { MountDriver } from './mount/driver.js';
import type { DriverName } from './mount/drivers.js';
import { askForRenewal } from './renew.js';
import { Renewal } from './renewal.js';
import { openServing, type Left } from './serving.js';
import { agentStatus } from './status.js';
import { attachCall } from './workloads/attach_call.js';
import { Attachments } from './workloads/attachments.js';
import { detachEnded, watchWorkloads } from './workloads/watch.js';

export interface AgentOptions {
  stateFolder: string;
  mountPath: string;
  socketPath: string;
  /** Where units of systemd ask for credentials; beside `socketPath` if not given. */
  credentialsPath?: string;
  /** Instead of the managers that the identity knows. */
  managers?: readonly string[];
  driver: DriverName;
  /** The container engine whose containers can have services as volumes; undefined for none. */
  docker?: DockerOptions | undefined;
  /** What a change may have run here. */
  hooks?: Hooks | undefined;
  /** Goes on where the agent behind the socket is now. */
  takeover?: boolean;
  /** Keeps the mount for a successor, and has what a predecessor left. */
  serviceManager?: ServiceManager | undefined;
  clock: Clock;
  random: Random;
  log: Logger;
}

export interface DockerOptions {
  /** Of the engine's API. */
  engineSocket: string;
  /** Where the engine looks for plugins. */
  pluginSocket: string;
  /** Nobody asked for it: a host where it cannot be had is served without. */
  optional: boolean;
  /** Whether the cluster's operators may have containers run here. */
  runsContainers: boolean;
}

export interface RunningAgent {
  nodeId: string;
  clusterId: string;
  /** Resolves when the first session with a manager has begun. */
  connected: Promise<void>;
  /** Resolves when somebody asked over the socket for the end, or another process has taken the mount over. */
  asked: Promise<'stop' | 'taken over'>;
  /** A successor will find the mount and go on with it. */
  readonly isKept: boolean;
  /** From now on these, instead of those that the identity knows; undefined: those again. */
  useManagers(managers: readonly string[] | undefined): void;
  /** From now on these. */
  useHooks(hooks: Hooks | undefined): void;
  /** Wipes, unmounts, ends the session. */
  stop(): Promise<void>;
  /** Ends and leaves the mount, its readers waiting, to a successor. */
  leave(): Promise<void>;
  /** For the service manager: one line, and whether the mount is served. */
  summary(): { text: string; isServed: boolean };
}

/**
 * @throws already_running, no_identity, bad_certificate, mount_failed, no_fuse, not_permitted, socket_taken, state_unusable; when
 * taking over also unreachable, not_supported.
 */
export async function startAgent(options: AgentOptions): Promise<RunningAgent> {
  const { stateFolder, mountPath, socketPath, serviceManager, clock, random, log } = options;
  const dumpsForbidden = addon().forbidDumps() === 0;
  const { held, left, releaseState } = await claim(options);
  // Its ids, root and managers; certificate and key change.
  const identity = held.current;
  if (left === undefined) forget(serviceManager); // what cannot be used is not to come again
  const { arena, driver, lockLimitBytes, used } = await openServing({
    driver: options.driver,
    mountPath,
    of: identity,
    left,
    onRefused: () => forget(serviceManager),
    clock,
    log,
  });
  const runId = newId(random);
  const attachments = new Attachments();
  let welcomed = (): void => undefined;
  const connected = new Promise<void>((resolve) => (welcomed = resolve));
  const core = new AgentCore({
    node: identity,
    runId,
    arena,
    driver,
    attachments,
    notes: {
      keep: (note) => arena.served.keepNote(note),
      left: used?.arena === undefined ? new Uint8Array() : arena.served.keptNote(),
    },
    managers: () => named ?? known,
    open: (manager) => ({ channel: open(manager, nodeCredentials(held.current)), identity: held.current }),
    counts: () => counts,
    describe: () => describe(),
    onWelcome: ({ managerAddresses }, shown) => {
      const usable = managerAddresses.filter(isDialable);
      if (named === undefined && usable.length > 0) known = remember(stateFolder, known, usable, log);
      held.worked(shown);
      welcomed();
    },
    onRoots: (roots) => {
      held.trust(roots, clock.now());
      if (roots.renew) renewal.renewNow();
    },
    onApplied: () => credentials?.open(),
    obstacle: () => renewal.expired(),
    onFailed: (shown, error) => held.refused(shown, error, clock.now()),
    clock,
    random,
    log,
  });
  const { receipts, vault, lease, tasks, session } = core;
  const ended = new AbortController();
  const engine = options.docker === undefined ? undefined : new Engine(options.docker.engineSocket);
  const runner =
    engine !== undefined && options.docker?.runsContainers === true
      ? new ContainerRunner({ engine, tasks, mountPath, clock, log })
      : undefined;
  let hooks = options.hooks ?? {};
  const containers = engine && containerActions(engine, runner);
  const told = { attachments, containers, hooks: () => hooks, mountPath, tasks, clock, log };
  const changes = new Changes(told, ended.signal);
  tasks.runsContainers = runner !== undefined;
  tasks.onChange = () => {
    runner?.reconcile();
    changes.look();
  };
  const file = new AuditFile({
    folder: join(stateFolder, 'audit'),
    maxBytes: agentLimits.auditBytes,
    maxFiles: agentLimits.auditFiles,
    log,
  });
  const accesses = new AccessLog({ driver, attachments, file, clock, log });
  const counts = new CountBatches(accesses, runId);
  if (used?.arena !== undefined && driver.handover !== undefined) {
    core.inherit(arena.served.servedUntil(), driver.handover.inheritance);
    log.info({ tasks: tasks.list().length, values: vault.size }, 'goes on where the former agent was');
    tasks.onChange();
  }
  let isKept = keep(serviceManager, driver, used, log);
  const { credentialsPath = join(dirname(socketPath), 'credentials.sock') } = options;
  const { credentials, whyNoCredentials } = openCredentials(
    { served: arena.served, driver, tasks, lease, accesses, random, log },
    credentialsPath,
    left?.credentials,
  );
  const isKeptAlready = used?.arena !== undefined && credentials?.listener.descriptor === left?.credentials;
  if (isKept && credentials !== undefined && !isKeptAlready)
    keepCredentials(serviceManager, credentials.listener.descriptor, log);
  let { managers: named } = options;
  let known = identity.managers;
  let swapBytes = 0;
  const describe = async () => {
    const description = await describeHost(clock);
    swapBytes = Number(description.swapBytes ?? 0n);
    return description;
  };

  const renewal = new Renewal({
    held,
    managers: () => {
      const { state, manager } = session.status;
      const all = named ?? known;
      return state === 'connected' ? [manager, ...all.filter((one) => one !== manager)] : all;
    },
    ask: (own, manager) => askForRenewal(own, manager, () => clock.now()),
    reconnect: () => session.reconnect(),
    clock,
    random,
    log,
  });

  let stopping: Promise<void> | undefined;
  const stopServing = (): Promise<void> => {
    stopping ??= (async () => {
      forget(serviceManager);
      isKept = false;
      detachEnded(attachments, tasks);
      // They may need their secrets until they have stopped.
      if (runner !== undefined) {
        const late = new AbortController();
        await Promise.race([runner.stop(), clock.sleep(agentLimits.containersStopMs, late.signal)]);
        late.abort();
      }
      tasks.wipeAll('stopped');
      credentials?.end();
      // A manager that does not answer keeps nobody waiting for long.
      const hears = session.status.state === 'connected';
      try {
        await Promise.all([
          driver.unmount(),
          runner?.stop(),
          hears && receipts.untilTaken(clock, agentLimits.lastReceiptsMs),
        ]);
      } finally {
        accesses.collect();
        file.close();
        ended.abort();
      }
    })();
    return stopping;
  };
  const letGo = (): void => {
    stopping = Promise.resolve();
    runner?.leave();
    accesses.collect();
    file.close();
    credentials?.letGo();
    tasks.letGo();
    ended.abort();
    driver.handover?.letGo();
    held.letGo();
    releaseState();
  };
  try {
    const startedMs = clock.now();
    const parts = {
      identity: () => held.current,
      renewal,
      session,
      lease,
      arena,
      lockLimitBytes,
      vault,
      tasks,
      receipts,
      attachments,
      driver,
      mountPath,
      clock,
      startedMs,
      dumpsForbidden,
      swapBytes: () => swapBytes,
      keptBy: () => (isKept ? keeperName : ''),
      credentials: { path: credentialsPath, notServed: () => whyNoCredentials },
    };
    let ask = (_wish: 'stop' | 'taken over'): void => undefined;
    const asked = new Promise<'stop' | 'taken over'>((resolve) => (ask = resolve));
    const whyNot = (): string => {
      if (serviceManager !== undefined) return 'a service manager runs it';
      return driver.facts().handover ? '' : `driver ${driver.facts().name} cannot here`;
    };
    const handlers = {
      getStatus: () => agentStatus(parts),
      stop: async () => {
        await stopServing();
        ask('stop');
        return {};
      },
      attach: async (request: AttachRequest) => attachCall({ tasks, mountPath, random }, request),
      detach: async ({ attachmentId }: DetachRequest) => {
        tasks.detach(attachmentId);
        return {};
      },
      listAccesses: (channel: Channel<MessageInitShape<typeof AccessEntrySchema>, AccessQuery>) =>
        listAccesses(accesses, channel),
      handOver: giver({
        driver,
        credentials: () => credentials?.listener.descriptor,
        whyNot,
        letGo: () => {
          letGo();
          ask('taken over');
        },
      }),
    };
    const server = await listenUnix(socketPath, [serve(Agent, 'local', handlers)]);
    const volumes = await serveVolumes(options, { tasks, attachments, mountPath, clock, log }, ended.signal);
    const running = core.run(ended.signal);
    const renewing = renewal.run(ended.signal);
    const recording = accesses.run(ended.signal);
    const attached = watchWorkloads({ attachments, tasks, clock }, ended.signal);
    if (used?.arena !== undefined) credentials?.open();
    const opening = clock.sleep(agentLimits.firstAssignmentMs, ended.signal).then(() => {
      if (!ended.signal.aborted) credentials?.open();
    });
    const end = async (): Promise<void> => {
      await Promise.all([
        running,
        renewing,
        recording,
        attached,
        volumes.ended,
        opening,
        server.stop(agentLimits.stopGraceMs),
      ]);
    };
    if (!arena.facts().locked) log.warn({ why: arena.facts().note }, 'values may be swapped out');
    log.info({ node: identity.nodeId, mount: mountPath, socket: socketPath }, 'agent is ready');
    return {
      useHooks: (given) => (hooks = given ?? {}),
      nodeId: identity.nodeId,
      clusterId: identity.clusterId,
      connected,
      asked,
      get isKept() {
        return isKept;
      },
      useManagers: (managers) => {
        named = managers;
        if (!(named ?? known).includes(session.status.manager)) session.reconnect();
      },
      stop: async () => {
        await stopServing();
        await end();
      },
      leave: async () => {
        if (stopping === undefined) letGo();
        await end();
      },
      summary: () => summary(core, driver),
    };
  } catch (error) {
    // What a predecessor's readers wait for is not this start's to end: the next one may succeed, and if none does there is an end.
    if (isKept && used?.arena !== undefined) letGo();
    else await stopServing();
    throw asInroError(error);
  }
}

/** A container that the agent runs is its runner's to restart. */
function containerActions(engine: Engine, runner: ContainerRunner | undefined): ContainerActions {
  return {
    signal: (id, signal) => engine.signal(id, signal),
    restart: (id) => runner?.restart(id) ?? engine.restart(id, undefined),
  };
}

/** Resolves once they are served, to what ends with the signal. @throws socket_taken, state_unusable, unless it is optional. */
async function serveVolumes(
  { docker, stateFolder }: AgentOptions,
  parts: Omit<DockerVolumesParts, 'engine' | 'file'>,
  signal: AbortSignal,
): Promise<{ ended: Promise<void> }> {
  if (docker === undefined) return { ended: Promise.resolve() };
  try {
    const engine = new Engine(docker.engineSocket);
    const volumes = new DockerVolumes({ ...parts, engine, file: join(stateFolder, 'volumes.json') });
    const stop = await servePlugin(docker.pluginSocket, volumes.handlers, parts.log);
    signal.addEventListener('abort', () => void stop(), { once: true });
    return { ended: volumes.run(signal) };
  } catch (error) {
    if (!docker.optional) throw error;
    parts.log.info({ why: asInroError(error).message }, 'containers cannot have services as volumes here');
    return { ended: Promise.resolve() };
  }
}

/** The identity, what a predecessor left, and the state folder for this process alone. */
async function claim(options: AgentOptions): Promise<{
  held: HeldIdentity;
  left: Left | undefined;
  releaseState: () => void;
}> {
  const { stateFolder, socketPath, clock, log } = options;
  const openHeld = (): HeldIdentity => {
    const settled = settleKeys(stateFolder);
    if (settled.length > 0) log.info({ files: settled }, 'private keys lie on disk as it is wanted now');
    return HeldIdentity.open(stateFolder, clock.now(), log);
  };
  if (options.takeover === true) {
    // All that can fail, before the other one lets go.
    loadIdentity(stateFolder, clock.now());
    const left = await takeFrom(socketPath, newId(options.random));
    const deadlineMs = clock.boottimeMs() + agentLimits.handOverMs;
    for (;;) {
      try {
        const releaseState = claimStateFolder(stateFolder, 'agent');
        while (clock.boottimeMs() < deadlineMs && (await answers(socketPath)))
          await clock.sleep(agentLimits.handOverRetryMs);
        // It may have renewed its certificate until the end.
        return { held: openHeld(), left, releaseState };
      } catch (error) {
        if (clock.boottimeMs() >= deadlineMs || asInroError(error).code !== 'already_running') throw error;
        await clock.sleep(agentLimits.handOverRetryMs);
      }
    }
  }
  const releaseState = claimStateFolder(stateFolder, 'agent');
  finishJoining(stateFolder);
  const held = openHeld();
  // Before the mount: what looks like a dead mount may be the live one of the agent behind this socket.
  if (await answers(socketPath)) {
    throw new InroError('already_running', `an agent serves ${socketPath} already`, {
      remedy:
        "look at it with 'inro agent status', take over from it with --takeover, or choose another with --socket PATH and --mount DIR",
    });
  }
  return { held, left: takeLeft(options.serviceManager?.stored ?? []), releaseState };
}

/** Without its socket an agent serves its mount all the same. @param inherited a predecessor's, which is taken. */
function openCredentials(
  parts: CredentialsParts,
  path: string,
  inherited: number | undefined,
): { credentials: Credentials | undefined; whyNoCredentials: string } {
  if (parts.driver.nodeOf === undefined)
    return { credentials: undefined, whyNoCredentials: 'this mount driver cannot' };
  try {
    return { credentials: new Credentials(parts, openListener(path, inherited)), whyNoCredentials: '' };
  } catch (thrown) {
    const why = (thrown as Error).message;
    parts.log.error({ socket: path, why }, 'units of systemd get no credentials here');
    return { credentials: undefined, whyNoCredentials: why };
  }
}

function summary(
  { session, vault, tasks }: AgentCore,
  driver: MountDriver,
): { text: string; isServed: boolean } {
  const { state, manager, lastError } = session.status;
  const running = tasks.list().filter((task) => task.state === 'RUNNING').length;
  const talk =
    state === 'connected' ? `connected to ${manager}` : `no manager (${lastError?.message ?? state})`;
  const isServed = (driver.facts().notServed ?? '') === '';
  const mount = isServed ? '' : '; the mount is not served';
  return { text: `${running} tasks, ${vault.size} values, ${talk}${mount}`, isServed };
}

function open(manager: string, credentials: ReturnType<typeof nodeCredentials>): AgentChannel {
  const connection = connectTls(manager, credentials);
  const channel = openStream(connection, Dispatcher, 'attach');
  channel.closed.addEventListener('abort', () => connection.close(), { once: true });
  return channel;
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
