/** What fails in a simulation, and comes back. */
import { agentLimits } from '../../src/agent/limits.js';
import type { Chance } from './chance.js';
import type { ManagerHost } from './manager_host.js';
import type { NodeHost } from './node_host.js';
import type { World } from './world.js';

export interface FaultsParts {
  world: World;
  chance: Chance;
  hosts: readonly NodeHost[];
  manager: ManagerHost;
  /** Ends each stream of the host: for both sides, or as the agent sees it alone. */
  breakOff: (host: NodeHost, side: 'both' | 'agent') => void;
  say: (words: string) => void;
}

const secondMs = 1_000;
const minuteMs = 60 * secondMs;

export class Faults {
  readonly #parts: FaultsParts;
  isOver = false;
  counts: Record<string, number> = {};

  constructor(parts: FaultsParts) {
    this.#parts = parts;
  }

  /** From now on one comes every so often, until `heal`. */
  begin(everyMs: number): void {
    const { world, chance } = this.#parts;
    world.in(chance.wait(everyMs), () => {
      if (this.isOver) return;
      this.#one();
      this.begin(everyMs);
    });
  }

  /** Everything is well from now on. */
  heal(): void {
    const { world, hosts, manager } = this.#parts;
    this.isOver = true;
    manager.process?.goOn();
    manager.start();
    manager.clock.wallOffMs = 0;
    manager.diskMs = 1;
    for (const host of hosts) {
      host.clock.wallOffMs = 0;
      host.link.isUp = true;
      host.link.delayMs = 1;
      host.process?.goOn();
      host.start();
      // It may have been about to end.
      world.in(agentLimits.lastReceiptsMs + 1_000, () => host.start());
    }
  }

  #one(): void {
    const { chance, hosts, say } = this.#parts;
    const what = chance.weighted({
      partition: 4,
      split: 1,
      lostStream: 3,
      halfOpen: 3,
      slowLink: 2,
      killAgent: 4,
      loseAgent: 2,
      powerLoss: 2,
      taskEnds: 3,
      endAgent: 2,
      stopAgent: 3,
      killManager: 4,
      stopManager: 2,
      slowDisk: 1,
      wallJump: 2,
      standstill: 0.1,
    });
    const host = chance.pick(hosts);
    this.counts[what] = (this.counts[what] ?? 0) + 1;
    say(`fault: ${what} ${host.name}`);
    this.#faults[what](host);
  }

  readonly #faults = {
    partition: (host: NodeHost) => {
      host.link.isUp = false;
      this.#later(20 * secondMs, () => (host.link.isUp = true));
    },
    /** Some nodes at once. */
    split: () => {
      const cut = this.#parts.hosts.filter(() => this.#parts.chance.is(0.7));
      for (const { link } of cut) link.isUp = false;
      this.#later(30 * secondMs, () => {
        for (const { link } of cut) link.isUp = true;
      });
    },
    lostStream: (host: NodeHost) => this.#parts.breakOff(host, 'both'),
    /** The agent comes again while the manager takes the stream before for a good one. */
    halfOpen: (host: NodeHost) => this.#parts.breakOff(host, 'agent'),
    slowLink: (host: NodeHost) => {
      host.link.delayMs = this.#parts.chance.pick([50, 500, 3_000]);
      this.#later(30 * secondMs, () => (host.link.delayMs = 1));
    },
    killAgent: (host: NodeHost) => {
      host.kill({ keeps: true });
      this.#later(2 * secondMs, () => host.start());
    },
    loseAgent: (host: NodeHost) => {
      host.kill({ keeps: false });
      this.#later(3 * secondMs, () => host.start());
    },
    /** As its container does. */
    taskEnds: ({ core }: NodeHost) => {
      const { chance } = this.#parts;
      const running = core?.tasks.list().filter(({ state }) => state === 'RUNNING') ?? [];
      if (running.length === 0) return;
      const state = chance.pick(['COMPLETE', 'FAILED'] as const);
      core?.tasks.report(chance.pick(running).assigned.id, state, state === 'FAILED' ? 'exit code 1' : '');
    },
    powerLoss: (host: NodeHost) => {
      host.losePower();
      this.#later(20 * secondMs, () => host.start());
    },
    endAgent: (host: NodeHost) => {
      void host.end();
      this.#later(5 * secondMs, () => host.start());
    },
    stopAgent: (host: NodeHost) => {
      host.process?.stop();
      this.#later(25 * secondMs, () => host.process?.goOn());
    },
    killManager: () => {
      const { manager } = this.#parts;
      manager.kill();
      this.#later(5 * secondMs, () => manager.start());
    },
    stopManager: () => {
      const { manager } = this.#parts;
      manager.process?.stop();
      this.#later(15 * secondMs, () => manager.process?.goOn());
    },
    slowDisk: () => {
      const { manager, chance } = this.#parts;
      manager.diskMs = chance.pick([50, 1_000]);
      this.#later(20 * secondMs, () => (manager.diskMs = 1));
    },
    wallJump: (host: NodeHost) => {
      const { chance, manager } = this.#parts;
      const { clock } = chance.is(0.5) ? host : manager;
      clock.wallOffMs = chance.between(-30, 30) * minuteMs;
      this.#later(minuteMs, () => (clock.wallOffMs = 0));
    },
    /** All hosts are stopped for longer than any lease. */
    standstill: () => {
      const { world, hosts, manager } = this.#parts;
      const all = [manager.process, ...hosts.map(({ process }) => process)];
      for (const process of all) process?.stop();
      world.leap(30 * 60 * minuteMs);
      this.#later(secondMs, () => {
        for (const process of all) process?.goOn();
      });
    },
  };

  #later(meanMs: number, run: () => void): void {
    const { world, chance } = this.#parts;
    world.in(100 + chance.wait(meanMs), () => {
      if (!this.isOver) run();
    });
  }
}
