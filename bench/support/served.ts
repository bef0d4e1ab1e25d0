/** The serving side of a benchmark: a mount in a process of its own (server.ts), and what that process uses. */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { DriverName } from '../../src/agent/mount/drivers.js';
import { cpuUs, rssKib } from './host.js';
import type { Lab } from './lab.js';

export type Order =
  | { what: 'mount' | 'unmount' }
  | { what: 'publish'; service: string; bytes: number; mmap: boolean }
  | { what: 'wipe'; service: string }
  | { what: 'busy'; busy: boolean };

export type Reply = { result: unknown } | { failure: string };

export interface ServedOptions {
  driver: DriverName;
  /** The one processor of all its threads. */
  cpu?: number;
  /** Threads that answer, of the kernel driver; else as many as the agent has. */
  workers?: number | undefined;
}

/** What is in force. */
export interface ServedFacts {
  strict: boolean;
  kind: 'memfd_secret' | 'mlock';
  locked: boolean;
}

export interface Wiped {
  us: number;
  /** When it had returned: ns of CLOCK_MONOTONIC. */
  endedNs: bigint;
}

/** As the agent does for libfuse (src/system/heap.ts). */
const withoutBlockCache = { GLIBC_TUNABLES: 'glibc.malloc.tcache_count=0' };

export class Served {
  readonly #child: ChildProcess;
  readonly #gone: Promise<never>;
  readonly mountPoint: string;

  private constructor(child: ChildProcess, mountPoint: string) {
    this.#child = child;
    this.mountPoint = mountPoint;
    this.#gone = once(child, 'exit').then(([code, signal]) => {
      throw new Error(`the serving process ended (${signal ?? code})`);
    });
    this.#gone.catch(() => undefined);
  }

  static async start(lab: Lab, name: string, options: ServedOptions): Promise<[Served, ServedFacts]> {
    const { driver, cpu, workers } = options;
    const mountPoint = lab.path(name);
    const module = fileURLToPath(new URL('server.js', import.meta.url));
    const args = [driver, mountPoint, ...(workers === undefined ? [] : [String(workers)])];
    const env = driver === 'fuse-native' ? withoutBlockCache : {};
    const served = new Served(lab.fork(module, args, { cpu, env }), mountPoint);
    return [served, (await served.#ask({ what: 'mount' })) as ServedFacts];
  }

  /** Makes `<service>/key` show a new value; its path. */
  async publish(service: string, bytes: number, mmap = false): Promise<string> {
    await this.#ask({ what: 'publish', service, bytes, mmap });
    return `${this.mountPoint}/${service}/key`;
  }

  /** Wipes what `<service>/key` shows. */
  async wipe(service: string): Promise<Wiped> {
    const { beganNs, endedNs, done } = (await this.#ask({ what: 'wipe', service })) as {
      beganNs: string;
      endedNs: string;
      done: boolean;
    };
    if (!done) throw new Error(`the kernel did not let go of the pages of ${service}/key in time`);
    return { us: Number(BigInt(endedNs) - BigInt(beganNs)) / 1000, endedNs: BigInt(endedNs) };
  }

  /** Does something while its event loop is busy for nine tenths of the time. */
  async whileBusy<T>(use: () => Promise<T>): Promise<T> {
    await this.#ask({ what: 'busy', busy: true });
    const result = await use();
    await this.#ask({ what: 'busy', busy: false });
    return result;
  }

  async unmount(): Promise<void> {
    await this.#ask({ what: 'unmount' });
  }

  cpuUs(): number {
    return cpuUs(this.#child.pid ?? 0);
  }

  rssKib(): number {
    return rssKib(this.#child.pid ?? 0);
  }

  async #ask(order: Order): Promise<unknown> {
    const answer = once(this.#child, 'message');
    this.#child.send(order);
    const [reply] = (await Promise.race([answer, this.#gone])) as [Reply];
    if ('failure' in reply) throw new Error(`${order.what}: ${reply.failure}`);
    return reply.result;
  }
}
