/** `inro agent run` as a service whose descriptors are kept and that is started again, by test/support/descriptor_store.py. */
import { fileURLToPath } from 'node:url';
import type { Host } from './host.js';
import { eventually, program, type Daemon } from './inro.js';
import { stuckInFuse } from './stuck.js';

const store = fileURLToPath(new URL('../../../test/support/descriptor_store.py', import.meta.url));

interface StoreEvent {
  started?: number;
  descriptors?: string[];
  stored?: string;
  removed?: string;
  ready?: number;
  status?: string;
  exited?: number;
  done?: number;
}

export class KeptAgent {
  readonly #daemon: Daemon;
  #orders = 0;

  private constructor(daemon: Daemon) {
    this.#daemon = daemon;
  }

  /** Ready. */
  static async start(
    host: Host,
    args: readonly string[] = [],
    env: Readonly<Record<string, string>> = {},
  ): Promise<KeptAgent> {
    const command = ['python3', store, process.execPath, program, 'agent', 'run', ...args];
    const agent = new KeptAgent(host.spawn(command, { talks: true, env }));
    await agent.untilReady();
    return agent;
  }

  get events(): StoreEvent[] {
    const lines = this.#daemon.stdout.split('\n').slice(0, -1);
    return lines.map((line) => JSON.parse(line) as StoreEvent);
  }

  /** Of the agent that runs, or ran last. */
  get pid(): number {
    return this.events.findLast(({ started }) => started !== undefined)?.started ?? 0;
  }

  /** Names of what is kept now. */
  get kept(): string[] {
    const names = new Set<string>();
    for (const { stored, removed } of this.events) {
      if (stored !== undefined) names.add(stored);
      if (removed !== undefined) names.delete(removed);
    }
    return [...names].sort();
  }

  get log(): string {
    return this.#daemon.stderr;
  }

  /** Exit codes so far; negative for a signal. */
  get exits(): number[] {
    return this.events.flatMap(({ exited }) => exited ?? []);
  }

  /** `delayMs` before each start, `restarts`, `start` now, `drop` what is kept, `replace` [a name, a device]. */
  async order(order: Record<string, unknown>): Promise<void> {
    const id = ++this.#orders;
    this.#daemon.say(JSON.stringify({ ...order, id }));
    await eventually('the order is carried out', async () => this.events.some(({ done }) => done === id));
  }

  /** As `systemctl kill`; resolves when it has ended. */
  async kill(signal = 'SIGKILL'): Promise<void> {
    const before = this.exits.length;
    await this.order({ kill: signal });
    await eventually('it has ended', async () => this.exits.length > before);
  }

  /** The agent that was started last says that it is ready. */
  async untilReady(): Promise<void> {
    try {
      await eventually('the agent is ready', async () =>
        this.events.some(({ ready }) => ready === this.pid && this.exits.length === this.#starts() - 1),
      );
    } catch (cause) {
      const events = JSON.stringify(this.events.slice(-8));
      throw new Error(`${(cause as Error).message}\n${events}\n${stuckInFuse()}\n${this.log.slice(-4_000)}`, {
        cause,
      });
    }
  }

  async killAndWait(signal = 'SIGKILL'): Promise<void> {
    await this.kill(signal);
    await eventually('it is started again', async () => this.#starts() === this.exits.length + 1);
    await this.untilReady();
  }

  /** Lets go of everything, as systemd at the end of a service. */
  async end(): Promise<void> {
    await this.#daemon.hangUp();
  }

  #starts(): number {
    return this.events.filter(({ started }) => started !== undefined).length;
  }
}
