/**
 * Format, lint rules, dead code and the .proto files, each by its own tool. Says one line for each; what a tool has to
 * say only when it is not content.
 *
 *   npm run lint [-- NAME...]
 */
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { run } from './command.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const limitMs = 5 * 60_000;

const checks = [
  { name: 'prettier', program: 'prettier/bin/prettier.cjs', args: ['--check', '--log-level=warn', '.'] },
  { name: 'oxlint', program: 'oxlint/bin/oxlint', args: ['--type-aware', '--deny-warnings', '.'] },
  { name: 'knip', program: 'knip/bin/knip.js', args: ['--no-progress', '--no-config-hints'] },
  { name: 'buf', program: '@bufbuild/buf/bin/buf', args: ['lint'] },
];

const names = process.argv.slice(2);
const unknown = names.find((name) => !checks.some((check) => check.name === name));
if (unknown === undefined) {
  process.exitCode = (await runAll(checks.filter(({ name }) => names.length === 0 || names.includes(name))))
    ? 0
    : 1;
} else {
  console.error(
    `inro lint: no check is called ${unknown}; there are ${checks.map(({ name }) => name).join(', ')}`,
  );
  process.exitCode = 2;
}

/** As many at a time as there are processors, said in order. True when all are content. */
async function runAll(chosen) {
  const waiting = [...chosen];
  const results = new Map();
  const worker = async () => {
    for (let check = waiting.shift(); check !== undefined; check = waiting.shift())
      results.set(check, await runOne(check));
  };
  await Promise.all(Array.from({ length: availableParallelism() }, worker));
  for (const check of chosen) {
    const { ok, output, outcome, seconds } = results.get(check);
    if (!ok) console.error(output.trimEnd());
    console.error(`inro lint: ${check.name} ${ok ? 'ok' : `failed (${outcome})`} ${seconds} s`);
  }
  return [...results.values()].every(({ ok }) => ok);
}

async function runOne({ program, args }) {
  const startedMs = performance.now();
  const result = await run([process.execPath, join(root, 'node_modules', program), ...args], {
    cwd: root,
    env: process.env,
    limitMs,
  });
  return { ...result, seconds: ((performance.now() - startedMs) / 1000).toFixed(1) };
}
