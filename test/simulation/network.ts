/**
 * The network between hosts and a manager: messages take their time, arrive in their order, wait while the link is down, and a
 * connection breaks when the link is down, or one side says nothing, for too long.
 */
import { create, fromBinary, toBinary, type DescMessage } from '@bufbuild/protobuf';
import type { AgentChannel } from '../../src/agent/channel.js';
import type { NodeChannel } from '../../src/manager/node_session.js';
import { InroError } from '../../src/model/error.js';
import { AgentMessageSchema, ManagerMessageSchema } from '../../src/proto/gen/inro/v1/dispatcher_pb.js';
import { rpcLimits } from '../../src/rpc/limits.js';
import type { Chance } from './chance.js';
import type { Planned, Process, World } from './world.js';

/** Messages that have not been taken, after which a sender waits. */
const window = 12;
const lost = () => new InroError('unreachable', 'the connection is lost');

export class Link {
  readonly #world: World;
  readonly #chance: Chance;
  readonly #pipes = new Set<Pipe>();
  #isUp = true;
  /** Mean of what a message takes on its way, ms. */
  delayMs = 1;

  constructor(world: World, chance: Chance) {
    this.#world = world;
    this.#chance = chance;
  }

  get isUp(): boolean {
    return this.#isUp;
  }

  set isUp(isUp: boolean) {
    this.#isUp = isUp;
    for (const pipe of this.#pipes) pipe.look();
  }

  /** One way of one connection. */
  pipe(): Pipe {
    const takes = () => 0.1 + this.#chance.wait(this.delayMs);
    const pipe = new Pipe(this.#world, takes, () => this.#isUp);
    this.#pipes.add(pipe);
    pipe.onOver = () => this.#pipes.delete(pipe);
    return pipe;
  }
}

class Pipe {
  readonly #world: World;
  readonly #takesMs: () => number;
  readonly #isUp: () => boolean;
  readonly #items: { atMs: number; run: () => void }[] = [];
  #next: Planned | undefined;
  onOver: () => void = () => undefined;

  constructor(world: World, takesMs: () => number, isUp: () => boolean) {
    this.#world = world;
    this.#takesMs = takesMs;
    this.#isUp = isUp;
  }

  put(run: () => void): void {
    this.#items.push({ atMs: this.#world.nowMs + this.#takesMs(), run });
    this.look();
  }

  look(): void {
    const [first] = this.#items;
    if (this.#next !== undefined || first === undefined || !this.#isUp()) return;
    this.#next = this.#world.at(first.atMs, () => {
      this.#next = undefined;
      if (this.#isUp()) this.#items.shift()?.run();
      this.look();
    });
  }

  end(): void {
    this.#items.length = 0;
    this.#next?.cancel();
    this.onOver();
  }
}

/** One side of a connection, with the manners of rpc/stream.ts. */
class End {
  readonly process: Process;
  readonly #out: DescMessage;
  readonly #pipe: Pipe;
  other!: End;
  readonly #over = new AbortController();
  readonly #items: unknown[] = [];
  #wake = (): void => undefined;
  readonly #onRoom: (() => void)[] = [];
  #failure: Error | undefined;
  #isClosed = false;
  #hasEnded = false;
  /** Sent by the other side, and not taken yet. */
  untaken = 0;
  onMessage: (message: unknown) => void = () => undefined;

  constructor(process: Process, out: DescMessage, pipe: Pipe) {
    this.process = process;
    this.#out = out;
    this.#pipe = pipe;
    this.closed.addEventListener('abort', () => this.other.#letGo());
  }

  get closed(): AbortSignal {
    return this.#over.signal;
  }

  get isOver(): boolean {
    return this.#over.signal.aborted;
  }

  async send(message: unknown): Promise<void> {
    if (this.isOver) throw this.#failure ?? new InroError('unreachable', 'the stream is over');
    const schema = this.#out;
    // As it is now: what is sent may be changed by its sender later.
    const bytes = toBinary(schema, create(schema, message as never));
    const { other } = this;
    other.untaken += 1;
    this.#pipe.put(() => other.process.deliver(() => other.#arrive(fromBinary(schema, bytes))));
    while (other.untaken > window && !this.isOver)
      await new Promise<void>((resolve) => other.#onRoom.push(resolve));
    if (this.isOver) throw this.#failure ?? new InroError('unreachable', 'the stream is over');
  }

  /** Who waits for room looks again. */
  #letGo(): void {
    for (const resolve of this.#onRoom.splice(0)) resolve();
  }

  #arrive(message: unknown): void {
    if (this.isOver) return;
    this.#items.push(message);
    this.#wake();
  }

  /** From this side. What has been sent arrives before the other side hears of it. */
  close(reason?: InroError): void {
    if (this.isOver) return;
    this.#isClosed = true;
    this.fail(reason);
    const { other } = this;
    this.#pipe.put(() =>
      other.process.deliver(() => (reason === undefined ? other.end() : other.fail(reason))),
    );
  }

  /** The handler of this side has come to its end. */
  finish(error: InroError | undefined): void {
    if (this.isOver) return;
    const { other } = this;
    this.#over.abort();
    this.#pipe.put(() =>
      other.process.deliver(() => (error === undefined ? other.end() : other.fail(error))),
    );
  }

  end(): void {
    if (this.isOver) return;
    this.#hasEnded = true;
    this.fail(undefined);
  }

  fail(error: Error | undefined): void {
    if (this.isOver) return;
    this.#failure = error;
    this.#over.abort();
    this.#wake();
  }

  /** This process is gone: the other side hears of it from the kernel, unless there is none any more. */
  die(isHostGone: boolean): void {
    const { other } = this;
    this.#over.abort();
    if (!isHostGone) this.#pipe.put(() => other.process.deliver(() => other.fail(lost())));
  }

  async *read(): AsyncGenerator {
    while (!this.#isClosed) {
      const message = this.#items.shift();
      if (message !== undefined) {
        this.untaken -= 1;
        this.#letGo();
        this.onMessage(message);
        yield message;
      } else if (this.isOver) break;
      else await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    if (this.#failure !== undefined) throw this.#failure;
    if (!this.#hasEnded && !this.#isClosed) throw new InroError('unreachable', 'the stream broke off');
  }
}

export interface Accepted {
  channel: NodeChannel;
  /** The handler's end. */
  finish(error: InroError | undefined): void;
}

export interface Connection {
  agent: AgentChannel;
  /** Both ends hear that it is lost, or the agent's alone. */
  breakOff(side: 'both' | 'agent'): void;
  /** Each message that the agent takes. */
  onDelivered(tell: (message: unknown) => void): void;
  /** Each message that the manager takes. */
  onManagerTook(tell: (message: unknown) => void): void;
}

/** @param accept told in the server's process when the connection stands. */
export function connect(
  world: World,
  link: Link,
  client: Process,
  server: Process | undefined,
  accept: (accepted: Accepted) => void,
): Connection {
  const [up, down] = [link.pipe(), link.pipe()];
  const nobody = server ?? client;
  const agent = new End(client, AgentMessageSchema, up);
  const manager = new End(nobody, ManagerMessageSchema, down);
  agent.other = manager;
  manager.other = agent;
  const late = world.in(rpcLimits.connectMs, () =>
    client.deliver(() => agent.fail(new InroError('unreachable', 'the manager does not answer'))),
  );
  let stands = false;
  up.put(() => {
    if (server?.isAlive !== true) return down.put(() => client.deliver(() => agent.fail(lost())));
    server.deliver(() => {
      late.cancel();
      if (agent.isOver) return;
      stands = true;
      const channel = { ...sideOf(manager), messages: manager.read() } as unknown as NodeChannel;
      accept({ channel, finish: (error) => manager.finish(error) });
    });
  });
  client.onDeath((isHostGone) => agent.die(isHostGone));
  server?.onDeath((isHostGone) => manager.die(isHostGone));
  watchLife(world, link, [agent, manager], {
    stands: () => stands,
    onOver: () => {
      up.end();
      down.end();
    },
  });
  return {
    agent: { ...sideOf(agent), messages: agent.read() } as unknown as AgentChannel,
    breakOff: (side) => {
      for (const end of side === 'both' ? [agent, manager] : [agent])
        end.process.deliver(() => end.fail(lost()));
    },
    onDelivered: (tell) => (agent.onMessage = tell),
    onManagerTook: (tell) => (manager.onMessage = tell),
  };
}

function sideOf(end: End) {
  return {
    send: (message: unknown) => end.send(message),
    closed: end.closed,
    close: (reason?: InroError) => end.close(reason),
  };
}

/** Who hears nothing for as long as the keep-alive allows gives the connection up. */
function watchLife(
  world: World,
  link: Link,
  ends: readonly End[],
  { stands, onOver }: { stands: () => boolean; onOver: () => void },
): void {
  const patienceMs = rpcLimits.keepaliveMs + rpcLimits.keepaliveAnswerMs;
  const everyMs = 5_000;
  let silentMs = 0;
  const look = (): void => {
    if (ends.every(({ isOver, process }) => isOver || !process.isAlive)) return onOver();
    const isSilent = !link.isUp || ends.some(({ process }) => !process.runs);
    silentMs = isSilent ? silentMs + everyMs : 0;
    if (stands() && silentMs >= patienceMs)
      for (const end of ends) if (end.process.isAlive) end.process.deliver(() => end.fail(lost()));
    world.in(everyMs, look);
  };
  world.in(everyMs, look);
}
