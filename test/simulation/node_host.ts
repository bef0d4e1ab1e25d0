/** A host with an agent, in a simulation: the agent's own rules on a simulated clock, network, arena and mount. */
import type { Logger } from 'pino';
import { AgentCore } from '../../src/agent/core.js';
import type { AgentChannel } from '../../src/agent/channel.js';
import { agentLimits } from '../../src/agent/limits.js';
import type { Identity } from '../../src/agent/identity.js';
import { Attachments } from '../../src/agent/workloads/attachments.js';
import type { Wiped } from '../../src/agent/vault.js';
import { newId } from '../../src/model/id.js';
import type { ManagerMessage } from '../../src/proto/gen/inro/v1/dispatcher_pb.js';
import type { Chance } from './chance.js';
import type { HostClock } from './host_clock.js';
import { BoundedArena, driverOf, KeptMemory } from './kept_memory.js';
import type { Link } from './network.js';
import { Process, type World } from './world.js';

export interface NodeHostParts {
  name: string;
  identity: Identity;
  world: World;
  chance: Chance;
  clock: HostClock;
  link: Link;
  arenaBytes: number;
  /** Opens a stream to the manager; tells of each message that the agent takes. */
  open: (host: NodeHost, process: Process, tell: (message: ManagerMessage) => void) => AgentChannel;
  log: Logger;
}

export class NodeHost {
  readonly name: string;
  readonly clock: HostClock;
  readonly link: Link;
  readonly #parts: NodeHostParts;
  identity: Identity;
  memory: KeptMemory;
  process: Process | undefined;
  core: AgentCore | undefined;
  /** Told of each message that the agent takes, each value that it wipes, and each memory that takes another's place. */
  onMessage: (message: ManagerMessage) => void = () => undefined;
  onWiped: (wiped: Wiped) => void = () => undefined;
  /** Told of each agent that begins, before it does anything. */
  onStart: (core: AgentCore, memory: KeptMemory) => void = () => undefined;
  onMemory: (before: KeptMemory, memory: KeptMemory) => void = () => undefined;

  constructor(parts: NodeHostParts) {
    this.#parts = parts;
    ({ name: this.name, clock: this.clock, link: this.link, identity: this.identity } = parts);
    this.memory = new KeptMemory(() => this.clock.boottimeMs());
  }

  get nodeId(): string {
    return this.identity.nodeId;
  }

  /** Not everything that may come fits its arena. */
  get isCramped(): boolean {
    return this.#parts.arenaBytes < 10_000;
  }

  get runs(): boolean {
    return this.process?.runs === true;
  }

  /** What an agent of the host has, and nobody who could be asked about it. */
  start(): void {
    if (this.process?.isAlive === true) return;
    const { world, chance, arenaBytes, open, log } = this.#parts;
    const process = new Process(world);
    const { memory, identity } = this;
    const kept = memory.inheritance();
    const inherits = kept.generations.length + kept.values.length + memory.note.length > 0;
    const random = chance.bytes;
    const clock = this.clock.for(process);
    const usedBytes = kept.values.reduce((sum, { value }) => sum + value.size, 0);
    const core = new AgentCore({
      node: identity,
      runId: newId(random),
      arena: new BoundedArena(arenaBytes, usedBytes),
      driver: driverOf(memory),
      attachments: new Attachments(),
      notes: { keep: (note) => (memory.note = note), left: memory.note },
      managers: () => ['manager'],
      open: () => ({ channel: open(this, process, (message) => this.onMessage(message)), identity }),
      counts: () => ({ current: () => undefined, taken: () => undefined }),
      describe: async () => ({ hostname: this.name }),
      onWelcome: () => undefined,
      onRoots: () => undefined,
      onApplied: () => undefined,
      obstacle: () => undefined,
      onFailed: () => false,
      clock,
      random,
      log,
    });
    const { receipts } = core;
    const add = receipts.add.bind(receipts);
    receipts.add = (wiped) => {
      this.onWiped(wiped);
      add(wiped);
    };
    this.onStart(core, memory);
    if (inherits) core.inherit(memory.servedUntilMs, kept);
    this.process = process;
    this.core = core;
    void core.run(new AbortController().signal);
  }

  /** SIGKILL. What is served goes on, if somebody keeps it for the next one. */
  kill({ keeps }: { keeps: boolean }): void {
    this.process?.kill();
    this.#forget();
    if (!keeps) this.#lose();
  }

  /** All of it is gone, without a word to anybody. */
  losePower(): void {
    this.process?.kill(true);
    this.#forget();
    this.#lose();
  }

  /** As SIGTERM ends it: everything is wiped, and a manager is told if it hears. */
  async end(): Promise<void> {
    const { process, core } = this;
    if (process?.runs !== true || core === undefined) return;
    core.tasks.wipeAll('stopped');
    if (core.session.status.state === 'connected')
      await core.receipts.untilTaken(this.clock.for(process), agentLimits.lastReceiptsMs);
    if (this.process !== process) return;
    process.kill();
    this.#forget();
    this.#lose();
  }

  /** It joins anew, as another node. */
  become(identity: Identity): void {
    this.kill({ keeps: false });
    this.identity = identity;
  }

  #forget(): void {
    this.process = undefined;
    this.core = undefined;
  }

  #lose(): void {
    for (const { value } of this.memory.inheritance().values) value.wipe();
    const before = this.memory;
    this.memory = new KeptMemory(() => this.clock.boottimeMs());
    this.onMemory(before, this.memory);
  }
}
