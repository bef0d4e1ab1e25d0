/** One of the two systems that `npm run bench -- swarm` compares: what it is asked to do, in its own way. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Host } from '../../test/support/machine.js';
import { nowMs, type Sighting, type Sightings } from './sightings.js';

/** By its command line, or by the call that this makes in the end. */
export type How = 'command' | 'api';
export type Order = 'stop-first' | 'start-first';
/** The part that is timed; what it needs to be there is there. */
export type Action = () => Promise<void>;

/** A service `web` has a secret that its workload reads; its one task can be on either of two nodes or more. */
export interface System {
  readonly name: string;
  /** Of its workloads. */
  readonly sightings: Sightings;
  /** The ways in which it takes a new value to a workload. */
  readonly orders: readonly Order[];
  /** Its command line: a command that only reads, until it prints. */
  startUpMs(): Promise<number>;
  /** What a round needs beside the system. */
  begin(): Promise<void>;
  /** The service, if it is there, and its secret are removed; nothing is on its way any more. */
  end(): Promise<void>;
  create(how: How, value: string): Promise<Action>;
  rotate(how: How, value: string, order: Order): Promise<Action>;
  remove(how: How): Promise<Action>;
  drain(node: string): Promise<Action>;
  /** The node takes tasks again. */
  activate(node: string): Promise<void>;
  /** The last change is over: there is nothing but one workload. */
  settled(): Promise<void>;
  /** From now on it is seen when the value is gone from this node. */
  watch(node: string): Promise<void>;
  isGone(sighting: Sighting, node: string): boolean;
  /** Whether somebody on this node can still read it. */
  isThere(node: string): boolean;
  setWire(node: string, state: 'up' | 'down'): Promise<void>;
  /** Waits for no node. */
  removeAll(): Promise<void>;
  /** All nodes are there again. */
  healed(): Promise<void>;
  /** A task on each node that may have one. */
  serveEverywhere(value: string): Promise<void>;
  /** Its processes through which a value passes. */
  daemons(): { manager: number[]; nodes: number[] };
}

/** A program as a person runs it: each command is a process of its own. */
export class CommandLine {
  readonly #words: readonly string[];
  readonly #env: NodeJS.ProcessEnv;

  constructor(words: readonly string[], env: NodeJS.ProcessEnv) {
    this.#words = words;
    this.#env = { ...process.env, ...env };
  }

  /** What it prints. @throws when it fails, with what it said. */
  async run(args: readonly string[], stdin = ''): Promise<string> {
    return (await this.#run(args, stdin)).stdout;
  }

  /** From its start to the first that it prints. */
  async untilOutputMs(args: readonly string[]): Promise<number> {
    return (await this.#run(args, '')).untilOutputMs;
  }

  async #run(args: readonly string[], stdin: string): Promise<{ stdout: string; untilOutputMs: number }> {
    const beganMs = nowMs();
    const [file = '', ...words] = [...this.#words, ...args];
    const child = spawn(file, words, { cwd: '/', env: this.#env });
    const printed = { stdout: '', stderr: '', untilOutputMs: NaN };
    child.stdout.once('data', () => (printed.untilOutputMs = nowMs() - beganMs));
    child.stdout.setEncoding('utf8').on('data', (text: string) => (printed.stdout += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (printed.stderr += text));
    child.stdin.on('error', () => undefined); // it may end without reading
    child.stdin.end(stdin);
    const [code] = (await once(child, 'close')) as [number | null];
    if (code !== 0) throw new Error(`${file} ${words.join(' ')}: exit ${code}\n${printed.stderr}`);
    return printed;
  }
}

/**
 * Gives hosts with networks of their own a bridge, which is in the first one's, and the addresses 10.77.0.1 and so on. There is no
 * way out of it.
 * @returns by hostname, the end of its wire on the first host
 */
export async function wire(hosts: ReadonlyMap<string, Host>): Promise<Map<string, string>> {
  const [[, hub] = [], ...others] = [...hosts];
  if (hub === undefined) throw new RangeError('no hosts');
  await must(hub, 'ip link add br0 type bridge && ip address add 10.77.0.1/24 dev br0 && ip link set br0 up');
  const wires = new Map<string, string>();
  for (const [index, [name, host]] of others.entries()) {
    const end = `to-${name}`;
    await must(
      hub,
      `ip link add ${end} type veth peer name eth0 netns ${host.pid} && ip link set ${end} master br0 up`,
    );
    await must(host, `ip address add 10.77.0.${index + 2}/24 dev eth0 && ip link set eth0 up`);
    wires.set(name, end);
  }
  return wires;
}

/** A line of shell that must not fail. */
export async function must(host: Host, line: string): Promise<void> {
  const { code, stderr } = await host.sh(line);
  if (code !== 0) throw new Error(`${line}: ${stderr}`);
}
