/** The set-up, in small checkouts with a stand-in for npm. */
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, symlinkSync, utimesSync } from 'node:fs';
import test, { type ExecutionContext } from 'ava';
import { checkout, type Checkout } from './checkout.js';

const tsconfig = {
  compilerOptions: {
    module: 'nodenext',
    target: 'es2023',
    strict: true,
    types: [],
    rootDir: '.',
    outDir: 'dist',
  },
  include: ['src/**/*.ts'],
};

/** Notes each call; takes as long as the checkout has a file called `slow`. */
const npm = `#!/bin/sh
echo "$@" >> npm.log
while [ -e slow ]; do sleep 0.05; done
`;

const setup = ['scripts/setup.mjs'];
const whole = /^inro setup: install \.\.\. \d+\.\d s\ninro setup: compile \.\.\. \d+\.\d s\n$/;
const compiled = /^inro setup: compile \.\.\. \d+\.\d s\n$/;
const nothing = { code: 0, stdout: '', stderr: '' };

function small(t: ExecutionContext): Checkout {
  const made = checkout(t, ['scripts'], {
    'bin/npm': npm,
    'package.json': '{ "type": "module" }',
    'package-lock.json': '{}',
    'tsconfig.json': JSON.stringify(tsconfig),
    'src/cli/main.ts': 'export const one: number = 1;\n',
    'src/gone.ts': 'export const gone = true;\n',
  });
  made.linkPackages();
  return made;
}

test('says a line for each step, and nothing at all when everything is up to date', async (t) => {
  const here = small(t);
  const first = await here.run('node', setup);
  t.regex(first.stderr, whole);
  t.is(first.code, 0);
  t.regex(readFileSync(here.at('npm.log'), 'utf8'), /^ci --ignore-scripts /);
  t.is(statSync(here.at('dist/src/cli/main.js')).mode & 0o111, 0o111);

  t.deepEqual(await here.run('node', setup), nothing);
});

test('notices a change that leaves size and time as they were, a lost result and a removed source', async (t) => {
  const here = small(t);
  await here.run('node', setup);

  const { atime, mtime } = statSync(here.at('src/cli/main.ts'));
  here.write('src/cli/main.ts', 'export const two: number = 2;\n');
  utimesSync(here.at('src/cli/main.ts'), atime, mtime);
  t.regex((await here.run('node', setup)).stderr, compiled);
  t.regex(readFileSync(here.at('dist/src/cli/main.js'), 'utf8'), /two = 2/);

  rmSync(here.at('dist/src/cli/main.js'));
  t.regex((await here.run('node', setup)).stderr, compiled);

  rmSync(here.at('src/gone.ts'));
  t.regex((await here.run('node', setup)).stderr, compiled);
  t.false(existsSync(here.at('dist/src/gone.js')));
});

test('shows what a failed step said, then one line, and tries again the next time', async (t) => {
  const here = small(t);
  here.write('src/cli/main.ts', "export const one: number = 'one';\n");
  for (const _ of ['first', 'second']) {
    const { code, stderr } = await here.run('node', setup);
    t.is(code, 1);
    t.regex(
      stderr,
      /compile \.\.\. failed\nsrc\/cli\/main\.ts\(1,14\): error TS2322: .*\ninro setup: compile failed \(tsc: exit code \d\)\. .*\n$/,
    );
  }
  here.write('src/cli/main.ts', 'export const one: number = 1;\n');
  t.regex((await here.run('node', setup)).stderr, compiled);
});

test('names the programs that are missing, and the command that installs them, before it does anything', async (t) => {
  const here = small(t);
  here.write('native/binding.gyp', '{}');
  mkdirSync(here.at('few'));
  symlinkSync('/bin/true', here.at('few/make'));
  symlinkSync('/bin/true', here.at('few/python3'));
  const { code, stdout, stderr } = await here.run(process.execPath, setup, { PATH: here.at('few') });
  t.is(code, 1);
  t.is(stdout, '');
  t.regex(stderr, /^inro setup: g\+\+ missing; install with: (sudo )?apt-get install -y g\+\+\n$/);
  t.false(existsSync(here.at('npm.log')));
});

test('says which Node it needs', async (t) => {
  const here = small(t);
  const old =
    "data:text/javascript,Object.defineProperty(process, 'versions', { value: { node: '18.19.0' } })";
  const { code, stderr } = await here.run('node', ['--import', old, ...setup]);
  t.is(code, 1);
  t.regex(stderr, /^inro setup: Node 18\.19\.0 is too old, 20\.19 or newer is needed \(.*\)\n$/);
});

test('two at once: the second waits, and finds the work done', async (t) => {
  const here = small(t);
  here.write('slow', '');
  const first = here.start('node', setup);
  await first.said('install ...');
  const second = here.start('node', setup);
  await second.said('another set-up works in this checkout');
  rmSync(here.at('slow'));
  t.regex((await first.ended).stderr, whole);
  const { code, stderr } = await second.ended;
  t.is(code, 0);
  t.is(stderr, 'inro setup: another set-up works in this checkout, waiting for it\n');
});

for (const [signal, expected] of [
  ['SIGTERM', 143],
  ['SIGINT', 130],
] as const) {
  test(`${signal} ends the step that runs, and the next set-up goes on from there`, async (t) => {
    const here = small(t);
    here.write('slow', '');
    const running = here.start('node', setup);
    await running.said('install ...');
    running.kill(signal);
    // `ended` waits for the pipes to close, so nothing of the step is left when it resolves.
    const { code, stderr } = await running.ended;
    t.is(code, expected);
    t.is(
      stderr,
      `inro setup: install ...\ninro setup: ended by ${signal}; the next start goes on from here\n`,
    );
    rmSync(here.at('slow'));
    t.regex((await here.run('node', setup)).stderr, whole);
  });
}
