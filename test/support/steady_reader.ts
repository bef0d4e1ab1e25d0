/** Programs that read a file without a pause, and say at their end whether every read gave what it should. */
import { copyFileSync, mkdtempSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ExecutionContext } from 'ava';
import { pause, type Daemon, type RunOptions } from './inro.js';
import { stuckInFuse } from './stuck.js';

const program = fileURLToPath(new URL('../../../test/support/steady_reader.mjs', import.meta.url));
const endMs = 60_000;
const ways = ['open', 'open', 'descriptor', 'list'] as const;

/** A Host or a Machine. */
export interface ReadersPlace {
  /** As the test sees it, and as readers do. */
  readonly folder: string;
  readonly inside: string;
  /** Node, for readers. */
  readonly node: string;
  spawn(command: readonly string[], options?: RunOptions): Daemon;
}

export interface ReaderResult {
  reads: number;
  /** By errno. */
  failed: Record<string, number>;
  wrong: Record<string, number>;
  longestMs: number;
}

/** Four of them, until the function that it gives back is called. @param contents what a read may give. */
export async function readSteadily(
  place: ReadersPlace,
  path: string,
  contents: readonly string[],
  through: readonly string[] = [],
): Promise<() => Promise<ReaderResult[]>> {
  const own = mkdtempSync(join(place.folder, 'readers-'));
  const inside = join(place.inside, basename(own));
  copyFileSync(program, join(own, 'reader.mjs'));
  const readers = ways.map((way) =>
    place.spawn([place.node, `${inside}/reader.mjs`, way, path, `${inside}/until`, ...contents], {
      through,
    }),
  );
  await Promise.all(readers.map((reader) => reader.printed(/^reading$/m)));
  return async () => {
    writeFileSync(join(own, 'until'), '');
    for (const reader of readers) await ended(reader);
    return readers.map(({ stdout, stderr }) => {
      const last = stdout.trimEnd().split('\n').at(-1) ?? '';
      if (!last.startsWith('{')) throw new Error(`a reader did not end well: ${stdout}${stderr}`);
      return JSON.parse(last) as ReaderResult;
    });
  };
}

/** A read that nobody answers is not waited for for ever. */
async function ended({ exited }: Daemon): Promise<void> {
  const late = pause(endMs).then(() => {
    throw new Error(`a reader has not ended ${endMs} ms after it was told to\n${stuckInFuse()}`);
  });
  await Promise.race([exited, late]);
}

/** Every read was answered with what it should be; how long the longest waited is shown. */
export function allRead(t: ExecutionContext, results: readonly ReaderResult[], what: string): void {
  const reads = results.reduce((sum, one) => sum + one.reads, 0);
  const longest = Math.max(...results.map(({ longestMs }) => longestMs));
  t.log(`${what}: ${reads} reads by ${results.length} readers, the longest took ${longest} ms`);
  for (const { failed, wrong } of results) t.deepEqual({ failed, wrong }, { failed: {}, wrong: {} }, what);
  t.true(results.every((one) => one.reads > 0));
}
