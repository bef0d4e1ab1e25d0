/**
 * Makes a checkout ready to run: packages, native addon, generated code, compiled program. What is up to date is left
 * alone and not mentioned. It needs Node's own modules only, and runs before npm start and npm test.
 */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { run } from './command.mjs';
import { end, environment, onNpmGone, processes } from './processes.mjs';
import { cacheEnvironment } from './setup/caches.mjs';
import { lock } from './setup/lock.mjs';
import { steps } from './setup/steps.mjs';
import { missingTools, oldNode, unwritable } from './setup/host.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const stamps = join(root, 'node_modules', '.inro-setup');
/** buf looks for its plugin there. */
const path = [join(root, 'node_modules/.bin'), process.env.PATH ?? ''].join(delimiter);
const stepLimitMs = 15 * 60_000;
const endGraceMs = 2_000;
/** Every process of a step carries it, so that a set-up finds what a killed one left running. */
const mark = `INRO_SETUP=${root}`;

process.stderr.on('error', () => {}); // nobody reads any more: no reason to stop halfway
const exitCodes = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 };
/** The step that runs now. */
let current;
let locked = false;
let ending = false;

process.exitCode = await main().catch((error) => fail(error.message));

async function main() {
  const refusal = oldNode();
  if (refusal !== undefined) return fail(refusal);
  const all = steps(root);
  const due = all.filter((step) => !fresh(step));
  if (due.length === 0) return 0;
  const obstacle = unwritable(root) ?? (due.some((step) => step.compiles) ? missingTools() : undefined);
  if (obstacle !== undefined) return fail(obstacle);

  onNpmGone(() => void interrupted('SIGTERM'));
  for (const signal of Object.keys(exitCodes)) process.on(signal, () => void interrupted(signal));
  const unlock = await lock(root, say);
  if (unlock === undefined) return 1;
  locked = true;
  const caches = cacheEnvironment();
  process.on('exit', caches.remove);
  try {
    await endSteps(); // with the lock in hand, what runs belongs to a set-up that was killed
    // The one before us may have done it all: each step is looked at again.
    for (const step of all) if (!fresh(step) && !(await perform(step, caches.env))) return 1;
    return 0;
  } finally {
    unlock();
  }
}

/** A step is up to date when its inputs are those of its last success and its results are still there. */
function fresh(step) {
  return step.missing() === undefined && stampOf(step.name) === step.key();
}

async function perform(step, env) {
  current = step.name;
  const startedMs = performance.now();
  const key = step.key(); // before it runs: what changes meanwhile is for the next time
  const others = readStamps().filter(([name]) => name !== step.name);
  rmSync(join(stamps, step.name), { force: true });
  process.stderr.write(`inro setup: ${step.name} ...`);
  const { ok, output, outcome } = await run(step.command, {
    cwd: root,
    env: { ...process.env, ...env, PATH: path, INRO_SETUP: root },
    limitMs: stepLimitMs,
  });
  if (ending) return new Promise(() => {}); // interrupted() has the word
  const problem = ok ? (step.finish?.() ?? step.missing()) : `${step.says}: ${outcome}`;
  if (problem !== undefined) {
    process.stderr.write(` failed\n${output.trimEnd()}\n`);
    say(`${step.name} failed (${problem}). ${step.remedy}`);
    return false;
  }
  current = undefined;
  process.stderr.write(` ${((performance.now() - startedMs) / 1000).toFixed(1)} s\n`);
  // The install empties node_modules, the stamps of the other steps with it.
  mkdirSync(stamps, { recursive: true });
  for (const [name, value] of [...others, [step.name, key]]) writeFileSync(join(stamps, name), value);
  return true;
}

function readStamps() {
  return steps(root)
    .map(({ name }) => [name, stampOf(name)])
    .filter(([, value]) => value !== undefined);
}

function stampOf(name) {
  try {
    return readFileSync(join(stamps, name), 'utf8');
  } catch {
    return undefined;
  }
}

async function endSteps() {
  await end(
    processes().filter(({ pid }) => pid !== process.pid && environment(pid).includes(mark)),
    endGraceMs,
  );
}

async function interrupted(signal) {
  if (ending) return;
  ending = true;
  if (current !== undefined) process.stderr.write('\n');
  say(`ended by ${signal}; the next start goes on from here`);
  if (locked) await endSteps();
  process.exit(exitCodes[signal]);
}

function fail(reason) {
  say(reason);
  return 1;
}

function say(words) {
  process.stderr.write(`inro setup: ${words}\n`);
}
