/**
 * Readers in processes of their own against the one that revokes: what does a read give that is begun after the
 * revoke has returned? The readers are race_reader.cc; a file that they map tells them how far the revoker is.
 */
import { execFile } from 'node:child_process';
import { closeSync, ftruncateSync, mkdtempSync, openSync, readSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { pause, type Daemon } from './inro.js';

/** How a reader reads; the words are race_reader.cc's. */
export const readingWays = ['pread', 'pread of all', 'open and read'] as const;
/** Those that go through the page cache. */
export const mappingWays = ['MAP_PRIVATE', 'MAP_SHARED', 'splice', 'sendfile'] as const;
export type Way = (typeof readingWays)[number] | (typeof mappingWays)[number] | 'mlock' | 'filled pipe';

export interface Outcome {
  way: Way;
  /** Reads begun before the revoke had returned that gave plaintext, and of how many files there was such a one. */
  reads: number;
  files: number;
  begunAfter: number;
  /** Of those begun after it: which gave plaintext, which only zeros or nothing, which an error (or SIGBUS: EFAULT). */
  late: number;
  zeros: number;
  refusals: Record<string, number>;
}

export interface Race {
  ways: readonly Way[];
  /** Where the file of number N is shown as `tN/key`, as the readers see it. */
  directory: string;
  /** An empty directory that this process and the readers see. */
  scratch: string;
  /** How many files there are in all, and at a time. */
  revocations: number;
  batch: number;
  /** The file can be read when it returns; no byte of its value is 0. */
  show(number: number): void | Promise<void>;
  /** Returns when it claims that nobody can read the file any more; `tellReaders` claims it earlier. */
  revoke(number: number, tellReaders: () => Promise<void>): void | Promise<void>;
  /** Takes away what is left of it. */
  clear(number: number): void;
  /** Starts a reader where it sees the directory. */
  spawn(command: readonly string[]): Daemon;
}

const shown = 1;
const revoked = 2;
const tried = 1;
const done = 2;

let compiled: Promise<string> | undefined;

/** What each way of reading gave, in their order. */
export async function race(options: Race): Promise<Outcome[]> {
  const { ways, directory, scratch, revocations, batch, show, revoke, clear, spawn } = options;
  compiled ??= compile();
  const program = await compiled;
  const path = join(scratch, 'board');
  const board = openSync(path, 'w+');
  ftruncateSync(board, revocations + (revocations / batch) * ways.length);
  const say = (number: number, stage: number) => writeSync(board, Uint8Array.of(stage), 0, 1, number);
  const said = Buffer.alloc(ways.length);
  const all = async (first: number, stage: number): Promise<void> => {
    for (;;) {
      readSync(board, said, 0, said.length, revocations + (first / batch) * ways.length);
      if (said.every((stageOfOne) => stageOfOne >= stage)) return;
      const ended = readers.find(({ running }) => !running);
      if (ended !== undefined && (await ended.exited) !== 0)
        throw new Error(`a reader has ended: ${ended.stderr}`);
      await pause(0);
    }
  };
  const readers = ways.map((way, place) =>
    spawn([program, path, directory, ...[revocations, batch, ways.length, place].map(String), way]),
  );
  try {
    for (let first = 0; first < revocations; first += batch) {
      const numbers = Array.from({ length: batch }, (_, at) => first + at);
      for (const number of numbers) await show(number);
      for (const number of numbers) say(number, shown);
      await all(first, tried);
      for (const number of numbers) {
        // So that it comes anywhere in a read, a fill or an open.
        if (number % 2 === 1) await pause(Math.random() * 2);
        await revoke(number, async () => {
          say(number, revoked);
          if (number === numbers.at(-1)) await all(first, done);
        });
        say(number, revoked);
      }
      await all(first, done);
      for (const number of numbers) clear(number);
    }
    await Promise.all(readers.map(({ exited }) => exited));
    return readers.map(({ stdout }) => JSON.parse(stdout) as Outcome);
  } finally {
    closeSync(board);
    await Promise.all(readers.map((reader) => reader.kill9()));
  }
}

/** The reader's sources are not compiled with the tests: they stand in the checkout, g++ where the addon was built. */
async function compile(): Promise<string> {
  const program = join(mkdtempSync(join(tmpdir(), 'inro-race-')), 'race_reader');
  const source = fileURLToPath(new URL('../../../test/support/race_reader.cc', import.meta.url));
  const flags = ['-std=c++20', '-O2', '-Wall', '-Wextra', '-Werror'];
  await promisify(execFile)('g++', [...flags, '-o', program, source]);
  return program;
}
