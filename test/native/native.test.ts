/**
 * The native core on its own, without Node and, but for the last, without a kernel: native/test. Here its programs are built and run
 * plainly; with INRO_TEST_LAB=1 also under the address, undefined and thread sanitizers, and the fuzzers for a while.
 */
import { execFile } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import test, { type ExecutionContext } from 'ava';
import { NativeBuild } from '../support/native_build.js';

const programs = ['nodes_test', 'image_test', 'server_test', 'handover_test', 'access_test', 'credentials_test'];
const fuzzers = ['fuzz_request', 'fuzz_image'];
// As many on each machine, from the same seed: what passes here passes there. For longer, see native/test/README.md.
const fuzzRuns = 8_000;
const loadSeconds = 8;
const kills = { plain: 300, lab: 1_000 };
const seed = 20_261_122;

const lab = process.env['INRO_TEST_LAB'] === '1';
const inLab = lab ? test.serial : test.serial.skip;

const plain = new NativeBuild({ compiler: 'g++', flags: ['-O1'] });
// What a report needs to name lines; all that debuggers read makes compiling a fifth longer.
const checked = ['-O1', '-gline-tables-only', '-fno-sanitize-recover=all'];
const addresses = new NativeBuild({
  compiler: 'clang++',
  flags: [...checked, '-fsanitize=address,undefined,fuzzer-no-link'],
});
const threads = new NativeBuild({ compiler: 'clang++', flags: [...checked, '-fsanitize=thread'] });

/** Its lines are shown: what was checked, and how much of it. */
async function runs(t: ExecutionContext, program: string, ...args: string[]): Promise<void> {
  const { stdout } = await promisify(execFile)(program, args, { maxBuffer: 16 << 20 });
  for (const line of stdout.trim().split('\n').slice(-30)) t.log(line);
  t.notRegex(stdout, /^not ok/m);
}

function ended(program: string, args: string[], cwd: string) {
  return new Promise<{ error: Error | null; stderr: string }>((resolve) => {
    execFile(program, args, { maxBuffer: 64 << 20, cwd }, (error, _, stderr) => resolve({ error, stderr }));
  });
}

for (const name of programs) {
  test.serial(name, async (t) => {
    t.timeout(180_000);
    await runs(t, await plain.program(name));
  });
  inLab(`${name}, address and undefined sanitizers`, async (t) => {
    t.timeout(400_000);
    // The test itself is not what is checked: it is compiled in half the time without optimisation.
    await runs(t, await addresses.program(name, ['-O0']));
  });
}

test.serial('crash_test: a process that is killed while it publishes and wipes', async (t) => {
  t.timeout(400_000);
  await runs(t, await plain.program('crash_test'), String(lab ? kills.lab : kills.plain));
});

for (const name of ['server_test', 'credentials_test', 'load']) {
  inLab(`${name}, thread sanitizer`, async (t) => {
    t.timeout(400_000);
    await runs(t, await threads.program(name), ...(name === 'load' ? [String(loadSeconds)] : []));
  });
}

for (const name of fuzzers) {
  inLab(`${name}: any bytes, ${fuzzRuns} times`, async (t) => {
    t.timeout(400_000);
    const program = await addresses.program(name, ['-fsanitize=fuzzer']);
    const corpus = join(mkdtempSync(join(tmpdir(), 'corpus-')), name);
    await promisify(execFile)(await plain.program('seeds'), [name, corpus]);
    const options = [corpus, `-runs=${fuzzRuns}`, `-seed=${seed}`, '-max_len=4096', '-timeout=60'];
    const { error, stderr } = await ended(program, options, corpus);
    // What was found, and the bytes that show it.
    if (error !== null) t.log(stderr.slice(-8_000));
    t.is(error, null);
    const done = /^Done \d+ runs in \d+ second.*$/m.exec(stderr);
    t.truthy(done);
    t.log(done?.[0]);
  });
}
