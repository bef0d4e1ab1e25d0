/** The reading side of `npm run bench -- read`: reader.cc, compiled here, because node:fs costs more than what it would measure. */
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { Lab, Placement } from './lab.js';

/** The compiled file stands in dist/bench/support. */
const source = fileURLToPath(new URL('../../../bench/support/reader.cc', import.meta.url));
const flags = ['-std=c++20', '-O2', '-Wall', '-Wextra', '-Werror', '-pthread'];

export interface Times {
  ops: number;
  /** Done before the clock was started. */
  warmUps: number;
  meanNs: number;
  p50Ns: number;
  p99Ns: number;
}

export class Reader {
  readonly #lab: Lab;
  readonly #program: string;

  private constructor(lab: Lab, program: string) {
    this.#lab = lab;
    this.#program = program;
  }

  static async build(lab: Lab): Promise<Reader> {
    const program = lab.path('reader');
    await lab.run('g++', [...flags, '-o', program, source]);
    return new Reader(lab, program);
  }

  /** whole: open, fstat, read, close. pread: on one open descriptor. Ends after `ops` of them, or `ms`. */
  async time(what: 'whole' | 'pread', path: string, ops: number, ms: number, at?: Placement): Promise<Times> {
    const printed = await this.#lab.run(this.#program, [what, path, String(ops), String(ms)], at);
    return JSON.parse(printed) as Times;
  }

  /** Reads so often, with a new descriptor after every 20. */
  async reopen(path: string, reads: number): Promise<void> {
    await this.#lab.run(this.#program, ['reopen', path, String(reads)]);
  }

  racers(): Racers {
    return new Racers(this.#lab, this.#program);
  }
}

export interface Raced {
  path: string;
  bytes: number;
  mmap: boolean;
}

/** A process whose threads read while something is wiped. */
export class Racers {
  readonly #ask: (command: string) => Promise<unknown>;
  readonly end: () => Promise<void>;

  constructor(lab: Lab, program: string) {
    const child = lab.start(program, ['race']);
    const ended = once(child, 'exit');
    this.end = async () => {
      child.stdin?.end();
      await ended;
    };
    let said = '';
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (said += text));
    child.stdin?.on('error', () => undefined); // its end is told below
    const lines = createInterface({ input: child.stdout! });
    const gone = ended.then(() => Promise.reject(new Error(`the reader ended: ${said.trim()}`)));
    gone.catch(() => undefined);
    this.#ask = async (command) => {
      const answer = once(lines, 'line');
      child.stdin?.write(`${command}\n`);
      const [text] = (await Promise.race([answer, gone])) as [string];
      return JSON.parse(text);
    };
  }

  /** Opens it, reads it once, maps it if it may be, and keeps both. */
  async hold(file: Raced): Promise<void> {
    await this.#ask(`hold ${inWords(file)}`);
  }

  async drop(): Promise<void> {
    await this.#ask('drop');
  }

  /** Four threads read it: by descriptor and by name, and by both kinds of mapping if it may be mapped. */
  async start(file: Raced): Promise<void> {
    await this.#ask(`start ${inWords(file)}`);
  }

  /**
   * Ends the threads.
   * @param ns of CLOCK_MONOTONIC
   * @returns of the reads that began after that, how many there were, and how many of them gave bytes.
   */
  async judge(ns: bigint): Promise<{ tried: number; late: number }> {
    return (await this.#ask(`judge ${ns}`)) as { tried: number; late: number };
  }
}

function inWords({ path, bytes, mmap }: Raced): string {
  return `${path} ${bytes} ${mmap ? 1 : 0}`;
}
