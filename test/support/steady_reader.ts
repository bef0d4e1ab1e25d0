/** Programs that read a file without a pause, and say at their end whether every read gave what it should. */
import { fileURLToPath } from 'node:url';
import type { ExecutionContext } from 'ava';
import type { Host } from './host.js';
import { Daemon } from './inro.js';

const program = fileURLToPath(new URL('../../../test/support/steady_reader.py', import.meta.url));
const ways = ['open', 'open', 'descriptor', 'list'] as const;

export interface ReaderResult {
  reads: number;
  /** By errno. */
  failed: Record<string, number>;
  wrong: Record<string, number>;
  longestMs: number;
}

/** Four of them. @param contents what a read may give. */
export async function readSteadily(
  host: Host,
  path: string,
  contents: readonly string[],
  through: readonly string[] = [],
): Promise<() => Promise<ReaderResult[]>> {
  const readers: Daemon[] = ways.map((way) =>
    host.spawn(['python3', program, way, path, ...contents], { talks: true, through }),
  );
  await Promise.all(readers.map((reader) => reader.printed(/^reading$/m)));
  return async () => {
    await Promise.all(readers.map((reader) => reader.hangUp()));
    return readers.map(({ stdout, stderr }) => {
      const last = stdout.trimEnd().split('\n').at(-1) ?? '';
      if (!last.startsWith('{')) throw new Error(`a reader did not end well: ${stdout}${stderr}`);
      return JSON.parse(last) as ReaderResult;
    });
  };
}

/** Every read was answered with what it should be; how long the longest waited is shown. */
export function allRead(t: ExecutionContext, results: readonly ReaderResult[], what: string): void {
  const reads = results.reduce((sum, one) => sum + one.reads, 0);
  const longest = Math.max(...results.map(({ longestMs }) => longestMs));
  t.log(`${what}: ${reads} reads by ${results.length} readers, the longest took ${longest} ms`);
  for (const { failed, wrong } of results) t.deepEqual({ failed, wrong }, { failed: {}, wrong: {} }, what);
  t.true(results.every((one) => one.reads > 0));
}
