/** What workloads (workload.cc) tell: which of them sees what, and since when. */
import { mkdir } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { pause } from '../../test/support/inro.js';
import type { Lab } from './lab.js';

export const socketFile = 's';
const lookEveryMs = 5;

export interface Sighting {
  atMs: number;
  /** What it reads: `web`, of the node's own look at what it keeps for a container `kept`. */
  what: string;
  /** The hostname of its node. */
  node: string;
  seen: string;
  /** Counts processes: another one, another number. */
  process: number;
}

/** The clock of all sightings, CLOCK_MONOTONIC. */
export function nowMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

/** What a workload sees that gets no byte: ENOENT, or ESTALE where a lease is over. */
export function isFailure(seen: string): boolean {
  return seen.startsWith('!');
}

export class Sightings {
  /** A folder with nothing but the socket that workloads tell it on. */
  readonly folder: string;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #last = new Map<number, Sighting>();
  readonly #all: Sighting[] = [];
  #begun = 0;

  private constructor(folder: string) {
    this.folder = folder;
    this.#server = createServer((socket) => this.#hear(socket));
  }

  static async open(lab: Lab, name: string): Promise<Sightings> {
    const sightings = new Sightings(lab.path(name));
    await mkdir(sightings.folder);
    await new Promise<void>((resolve, reject) => {
      sightings.#server.once('error', reject).listen(sightings.socket, resolve);
    });
    await lab.endWith(async () => sightings.#close());
    return sightings;
  }

  get socket(): string {
    return join(this.folder, socketFile);
  }

  /** Of each workload that is there, what it sees now. */
  get present(): Sighting[] {
    return [...this.#last.values()];
  }

  /** The first since then that is as asked for. @throws after `limitMs`, saying what was waited for. */
  async first(
    what: string,
    sinceMs: number,
    isIt: (sighting: Sighting) => boolean,
    limitMs = 60_000,
  ): Promise<Sighting> {
    for (;;) {
      const found = this.since(sinceMs).find(isIt);
      if (found !== undefined) return found;
      if (nowMs() > sinceMs + limitMs) {
        const seen = this.present.map((each) => `${each.what}@${each.node} ${each.seen}`).join(', ');
        throw new Error(`waited ${limitMs / 1000} s in vain: ${what}; there are: ${seen || 'no workloads'}`);
      }
      await pause(lookEveryMs);
    }
  }

  since(ms: number): Sighting[] {
    return this.#all.filter(({ atMs }) => atMs >= ms);
  }

  /** The workloads end, too. */
  #close(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #hear(socket: Socket): void {
    const number = ++this.#begun;
    this.#sockets.add(socket);
    socket.on('error', () => undefined);
    socket.on('close', () => {
      this.#sockets.delete(socket);
      this.#last.delete(number);
    });
    createInterface({ input: socket }).on('line', (line) => {
      const [ns = '', who = '', seen = ''] = line.split(' ');
      const [what = '', node = ''] = who.split('@');
      const sighting = { atMs: Number(ns) / 1e6, what, node, seen, process: number };
      this.#all.push(sighting);
      this.#last.set(number, sighting);
    });
  }
}
