/**
 * Runs the tests, and takes away whatever they leave behind: processes, mounts, network namespaces. ava cannot do that
 * itself, because a test that hangs or is killed never reaches its own clean-up.
 *
 *   npm test -- [--keep] [arguments of ava]
 *
 * INRO_TEST_LAB=1 adds the tests that need more than a plain host. INRO_TEST_LIMIT_S sets another overall limit,
 * INRO_TEST_FILE_LIMIT_S another one for a file.
 * --keep leaves in place what the tests left, to look at.
 */
import { spawn } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { descendants, end, onNpmGone } from './processes.mjs';
import { longest } from './test/durations.mjs';
import { installLabPackages } from './test/lab.mjs';
import { begin, reap, reapDeadRuns } from './test/run.mjs';
import { endStuckFiles, sayRunning } from './test/stuck.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const lab = process.env.INRO_TEST_LAB === '1';
const limitMs = Number(process.env.INRO_TEST_LIMIT_S ?? (lab ? 75 * 60 : 8 * 60)) * 1000;
/** The longest file takes half of it on a slow machine. */
const fileLimitMs = Number(process.env.INRO_TEST_FILE_LIMIT_S ?? 20 * 60) * 1000;
const endGraceMs = 3_000;
const shownFiles = 12;
const exitCodes = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 };

const keep = process.argv.includes('--keep');
const avaArguments = process.argv.slice(2).filter((argument) => argument !== '--keep');

process.exitCode = await main();

async function main() {
  await reapDeadRuns(say);
  if (lab && !installLabPackages(say)) return 1;
  const run = begin();
  const ava = spawn(process.execPath, [join(root, 'node_modules/ava/entrypoints/cli.mjs'), ...avaArguments], {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, INRO_TEST_RUN: run.id, TMPDIR: run.directory },
  });
  endStuckFiles(run.directory, say, fileLimitMs);
  const { code, reason } = await outcome(ava);
  if (reason !== undefined) {
    say(reason);
    await sayRunning(run.directory, say);
    await end(descendants(process.pid), endGraceMs);
  }
  sayLongest(run.directory);
  const leaks = await reap(run, { keep, say });
  if (leaks === 0 || keep || code !== 0) return code;
  say(`the tests passed, but left ${leaks} thing${leaks === 1 ? '' : 's'} behind: that is a failure`);
  return 1;
}

/** Where the time went. Of a single file its own tests say it. */
function sayLongest(directory) {
  const files = longest(directory, shownFiles);
  if (files.length > 1) say(`the longest files:\n${files.join('\n')}`);
}

/** How ava ended, or why it must be ended: {code, reason}. */
function outcome(ava) {
  return new Promise((resolve) => {
    ava.on('error', (error) => resolve({ code: 1, reason: `ava does not start: ${error.message}` }));
    ava.on('exit', (code, signal) =>
      resolve({ code: code ?? 1, reason: signal ? `ava was ended by ${signal}` : undefined }),
    );
    setTimeout(
      () => resolve({ code: 1, reason: `not done after ${limitMs / 1000} s: ended` }),
      limitMs,
    ).unref();
    for (const signal of Object.keys(exitCodes)) {
      process.on(signal, () => resolve({ code: exitCodes[signal], reason: `ended by ${signal}` }));
    }
    onNpmGone(() => resolve({ code: exitCodes.SIGTERM, reason: 'ended: npm is gone' }));
  });
}

function say(words) {
  process.stderr.write(`inro test: ${words}\n`);
}
