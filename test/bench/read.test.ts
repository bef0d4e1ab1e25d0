/** `npm run bench -- read`: not how fast anything is, but that it runs, prints what it says, and leaves nothing behind. */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import type { Result } from '../../bench/support/results.js';
import { readMounts } from '../../src/agent/mount/mountpoint.js';
import { Daemon, run } from '../support/inro.js';
import { canMount } from '../support/mounted.js';

/** dist/bench/main.js */
const bench = fileURLToPath(new URL('../../bench/main.js', import.meta.url));
const command = [process.execPath, bench, 'read', '--wipes', '3', '--reads', '200'];
const mounting = canMount ? test.serial : test.serial.skip;
/** It compiles a program first. */
const timeoutMs = 110_000;

/** Where it makes its folder. */
function place(t: ExecutionContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'bench-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

async function leavesNothing(t: ExecutionContext, directory: string): Promise<void> {
  t.deepEqual(readdirSync(directory), []);
  t.deepEqual(
    (await readMounts()).filter(({ mountPoint }) => mountPoint.startsWith(directory)),
    [],
  );
}

mounting('--json is a list of results, and no read that begins after a wipe succeeds', async (t) => {
  const TMPDIR = place(t);
  const { code, stdout, stderr } = await run([...command, '--rounds', '2', '--json'], {
    env: { TMPDIR },
    timeoutMs,
  });
  t.is(code, 0, stderr);
  const results = JSON.parse(stdout) as Result[];
  for (const result of results) {
    const { claim, value, unit, peer, peerValue, ratio, min, max, runs } = result;
    t.deepEqual(
      Object.keys(result),
      Object.keys({ claim, value, unit, peer, peerValue, ratio, min, max, runs }),
    );
    t.true(claim !== '' && ['us', 'KiB', 'reads'].includes(unit), claim);
    for (const number of [value, min, max, ...(peer === null ? [] : [peerValue, ratio])])
      t.true(Number.isFinite(number), claim);
    if (peer === null) t.deepEqual([peerValue, ratio], [null, null], claim);
    const middle = ratio ?? value;
    t.true(min <= middle && middle <= max && runs > 0, claim);
  }
  const of = (words: string) =>
    results.filter(({ claim }) => claim.includes(words)).map(({ value }) => value);
  t.is(of('reads begun after it').length, 2);
  t.true(of('reads begun after it').every((tried) => tried > 0));
  t.deepEqual(of('of these, given bytes'), [0, 0]);
  t.is(of('open+fstat+read+close, 64 B').length, 6);
  await leavesNothing(t, TMPDIR);
});

mounting('Ctrl-C in the middle leaves nothing behind', async (t) => {
  const TMPDIR = place(t);
  const running = new Daemon([...command, '--rounds', '10000'], { env: { TMPDIR } });
  await running.printed(/reads: 10000 rounds/);
  t.not((await readMounts()).filter(({ mountPoint }) => mountPoint.startsWith(TMPDIR)).length, 0);
  process.kill(running.pid, 'SIGINT');
  t.is(await running.exited, 130);
  t.is(running.stdout, '');
  t.regex(running.stderr, /\ninro bench: ended by SIGINT\n$/);
  await leavesNothing(t, TMPDIR);
});
