/**
 * Benchmarks: each runs its peer in the same run, and says whether the target is met. None is a test.
 *
 *   npm run bench -- NAME [--json] [options of NAME]
 *
 * A benchmark is a file beside this one, called after it, that exports `benchmark`.
 */
import { readdirSync } from 'node:fs';
import { parseArgs } from 'node:util';
import type { Benchmark, Report } from './support/benchmark.js';
import { machine } from './support/host.js';
import { Lab } from './support/lab.js';
import { asJson, asTable, missed } from './support/results.js';

const exitCodes = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;
const usage = 'usage: npm run bench -- NAME [--json] [options]';

class WrongUsage extends Error {}

process.exitCode = await main(process.argv.slice(2)).catch((error: Error) => {
  say(error.message);
  return error instanceof WrongUsage ? 2 : 1;
});

async function main(args: readonly string[]): Promise<number> {
  const benchmarks = await all();
  const [name = '', ...rest] = args;
  const benchmark = benchmarks.get(name);
  if (benchmark === undefined) {
    const problem = name === '' || name.startsWith('-') ? usage : `no benchmark is called ${name}`;
    throw new WrongUsage(`${problem}\n${list(benchmarks)}`);
  }
  const { isJson, options } = parse(benchmark, rest);
  const obstacle = benchmark.missing();
  if (obstacle !== undefined) throw new Error(`${name} cannot run here: ${obstacle}`);

  const report = await untilInterrupted((lab) => benchmark.run(lab, options));
  if (typeof report === 'number') return report;
  if (isJson) {
    for (const words of where(report)) say(words);
    console.log(JSON.stringify(asJson(report.lines), undefined, 2));
  } else console.log(inWords(report));
  return 0;
}

async function all(): Promise<Map<string, Benchmark>> {
  const names = readdirSync(import.meta.dirname)
    .filter((file) => file.endsWith('.js') && file !== 'main.js')
    .map((file) => file.slice(0, -'.js'.length))
    .sort();
  const load = async (name: string): Promise<[string, Benchmark]> => {
    const { benchmark } = (await import(`./${name}.js`)) as { benchmark: Benchmark };
    return [name, benchmark];
  };
  return new Map(await Promise.all(names.map(load)));
}

function list(benchmarks: ReadonlyMap<string, Benchmark>): string {
  const lines = [...benchmarks].flatMap(([name, { summary, options }]) => [
    `  ${name}: ${summary}`,
    ...Object.entries(options).map(
      ([option, { standard, means }]) => `    --${option} ${standard}: ${means}`,
    ),
  ]);
  return ['there are', ...lines].join('\n');
}

function parse(benchmark: Benchmark, args: readonly string[]) {
  const known = Object.keys(benchmark.options).map((name) => [name, { type: 'string' }] as const);
  let given: Record<string, string | boolean | undefined>;
  try {
    const config = { json: { type: 'boolean' }, ...Object.fromEntries(known) } as const;
    given = parseArgs({ args: [...args], options: config }).values;
  } catch (error) {
    throw new WrongUsage(`${(error as Error).message}\n${usage}`);
  }
  const options = Object.entries(benchmark.options).map(([name, { standard }]) => {
    const text = given[name] ?? String(standard);
    if (typeof text !== 'string' || !/^[1-9]\d{0,8}$/.test(text))
      throw new WrongUsage(`--${name} takes a whole number from 1, not ${text}`);
    return [name, Number(text)] as const;
  });
  return { isJson: given['json'] === true, options: Object.fromEntries(options) };
}

/** The report; or, when a signal came first, the exit code. Either way nothing is left behind. */
async function untilInterrupted(run: (lab: Lab) => Promise<Report>): Promise<Report | number> {
  const interrupted = new Promise<number>((resolve) => {
    let ending = false; // under npm, Ctrl-C arrives twice
    for (const signal of Object.keys(exitCodes) as (keyof typeof exitCodes)[]) {
      process.on(signal, () => {
        if (!ending) say(`ended by ${signal}`);
        ending = true;
        resolve(exitCodes[signal]);
      });
    }
  });
  const lab = await Lab.open(say);
  try {
    return await Promise.race([run(lab), interrupted]);
  } finally {
    await lab.close();
  }
}

function where({ conditions }: Report): string[] {
  return [machine(), conditions];
}

function inWords(report: Report): string {
  const { lines, notes } = report;
  const misses = lines.filter((line) => missed(line).length > 0).length;
  const verdict =
    misses === 0
      ? 'All targets are met.'
      : `${misses} of the lines with a target ${misses === 1 ? 'misses' : 'miss'} it.`;
  return [...where(report), '', asTable(lines), ...notes, verdict].join('\n');
}

function say(words: string): void {
  process.stderr.write(`inro bench: ${words}\n`);
}
