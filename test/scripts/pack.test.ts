/**
 * The package as npm pack makes it: what is in it, and that it runs where it was installed without a compiler. Packed
 * from a copy of this checkout, installed once; the tests are steps that follow each other. npm takes what it has not
 * in its cache from the registry.
 */
import {
  accessSync,
  constants,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { delimiter, join, relative } from 'node:path';
import test from 'ava';
import { Host } from '../support/host.js';
import { inLab, labScenario, labStep } from '../support/lab.js';
import { Daemon, run, type Result } from '../support/inro.js';
import { Checkout, repository } from './checkout.js';

const platform = `${process.platform}-${process.arch}`;
const prebuilt = `native/prebuilds/${platform}/inro.node`;
const installMs = 3 * 60_000;

const place = mkdtempSync(join(tmpdir(), 'pack-'));
test.after.always(() => rmSync(place, { recursive: true, force: true }));
/** A folder that has nothing but the package. */
const app = join(place, 'app');
const installed = join(app, 'node_modules/inro');
/** All there is on the PATH of an installed inro here: no compiler, no make, no Python. */
const bin = join(place, 'bin');

/** npm's cache, where it can be used, and registry are those of the user; the home directory is not. */
const env = {
  HOME: join(place, 'home'),
  PATH: bin,
  npm_config_cache:
    usable(process.env['npm_config_cache'] ?? join(homedir(), '.npm')) ?? join(place, 'cache'),
  npm_config_userconfig: process.env['npm_config_userconfig'] ?? join(homedir(), '.npmrc'),
};

function here(command: string[], more: Record<string, string> = {}): Promise<Result> {
  return run(command, { cwd: app, env: { ...env, ...more }, timeoutMs: installMs });
}

function inro(...args: string[]): Promise<Result> {
  return here([join(app, 'node_modules/.bin/inro'), ...args]);
}

function filesBelow(directory: string): string[] {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(directory, join(entry.parentPath, entry.name)))
    .sort();
}

test.before(async (t) => {
  if (!inLab) return;
  t.timeout(installMs);
  for (const folder of [app, bin, env.HOME]) mkdirSync(folder);
  for (const program of ['node', 'npm', 'npx', 'sh', 'env', 'setpriv'])
    symlinkSync(onPath(program), join(bin, program));

  const copy = new Checkout(join(place, 'copy'));
  const left = new Set(['.git', 'node_modules', 'native/prebuilds'].map((path) => join(repository, path)));
  cpSync(repository, copy.root, { recursive: true, filter: (path) => !left.has(path) });
  copy.linkPackages();
  cpSync(join(repository, 'node_modules/.inro-setup'), copy.at('node_modules/.inro-setup'), {
    recursive: true,
  });

  const packed = await run(['npm', 'pack', '--pack-destination', place], {
    cwd: copy.root,
    timeoutMs: installMs,
  });
  t.is(packed.code, 0, packed.stderr);
  const again = await run(['node', 'scripts/setup.mjs'], { cwd: copy.root });
  t.is(again.stderr, '', 'a packed checkout is as it was for its set-up');

  const { version } = JSON.parse(readFileSync(join(repository, 'package.json'), 'utf8')) as {
    version: string;
  };
  const tarball = join(place, `inro-${version}.tgz`);
  const quick = ['--prefer-offline', '--no-audit', '--no-fund', '--loglevel=warn'];
  const result = await here(['npm', 'install', '--ignore-scripts', ...quick, tarball]);
  t.is(result.code, 0, result.stderr);
});

labStep('it has the program, its addon, what builds the addon, and the words; nothing else', (t) => {
  const below = (folder: string): string[] =>
    filesBelow(join(repository, folder)).map((path) => `${folder}/${path}`);
  const compiled = below('src')
    .filter((path) => path.endsWith('.ts'))
    .map((path) => `dist/${path.replace(/\.ts$/, '.js')}`);
  const sources = ['native/addon', 'native/core'].flatMap(below);
  const installer = ['scripts/install.mjs', 'scripts/setup/addon.mjs', 'scripts/setup/host.mjs'];
  const words = ['LICENSE', 'README.md', ...below('docs')];
  const units = readdirSync(repository).includes('systemd') ? below('systemd') : [];
  t.deepEqual(
    filesBelow(installed),
    [
      ...compiled,
      ...sources,
      ...installer,
      ...words,
      ...units,
      'native/binding.gyp',
      'package.json',
      prebuilt,
    ].sort(),
  );
  const named = readFileSync(join(installed, 'native/binding.gyp'), 'utf8').matchAll(/"([^"\s]+\.cc)"/g);
  for (const [, source = ''] of named) t.true(sources.includes(`native/${source}`), source);
});

labStep('no file names a path of the machine that packed it, or holds a key or a token', (t) => {
  const own = [repository, `${homedir()}/`, place].filter((path) => path !== '//'); // a user whose home is /
  for (const path of filesBelow(installed)) {
    const content = readFileSync(join(installed, path), 'latin1');
    for (const each of own) t.false(content.includes(each), `${path}: ${each}`);
    t.notRegex(content, /-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/]/, path);
    t.notRegex(content, /INRO-JOIN-1-[0-9a-z]{30}/, path);
  }
});

labStep('the addon brings its own C++ library, and asks for no newer glibc than README says', (t) => {
  const addon = readFileSync(join(installed, prebuilt), 'latin1');
  t.notRegex(addon, /GLIBCXX_[0-9]|libstdc\+\+\.so/);
  const minor = (text: string): number => Number(/2\.([0-9]+)/.exec(text)?.[1]);
  const needed = Math.max(...[...addon.matchAll(/GLIBC_2\.[0-9]+/g)].map(([text]) => minor(text)));
  const { glibcVersionRuntime: own = '' } = (process.report.getReport() as { header: Record<string, string> })
    .header;
  const [, said = ''] =
    /glibc (2\.[0-9]+) or newer/.exec(readFileSync(join(installed, 'README.md'), 'utf8')) ?? [];
  // README speaks of a package that was made on Debian 12.
  t.true(needed <= minor(own === '2.36' ? said : own), `needs 2.${needed}`);
});

labStep('npx inro answers, and the addon maps memory', async (t) => {
  const help = await here(['npx', 'inro', '--help']);
  t.is(help.code, 0, help.stderr);
  t.regex(help.stdout, /^Usage: inro /);
  const { version } = JSON.parse(readFileSync(join(installed, 'package.json'), 'utf8')) as {
    version: string;
  };
  t.is((await inro('--version')).stdout, `${version}\n`);
  const status = await inro('agent', 'status', '--socket', join(app, 'none.sock'));
  t.is(status.code, 1);
  t.regex(status.stderr, /^inro: no agent at unix:.*\n {6}start one with /);

  const source = `import { addon } from './node_modules/inro/dist/src/system/addon.js';
    console.log(addon().createArena(4096, 'auto').facts().sizeBytes);`;
  const mapped = await here(['node', '--input-type=module', '--eval', source]);
  t.is(mapped.stdout, '4096\n', mapped.stderr);
});

labStep('its install script finds nothing to do', async (t) => {
  t.deepEqual(await here(['node', join(installed, 'scripts/install.mjs')]), {
    code: 0,
    stdout: '',
    stderr: '',
  });
});

labStep('a manager runs, also without the optional mount driver', async (t) => {
  renameSync(join(app, 'node_modules/fuse-native'), join(place, 'fuse-native'));
  t.teardown(() => renameSync(join(place, 'fuse-native'), join(app, 'node_modules/fuse-native')));
  const socket = join(app, 'manager.sock');
  const command = [join(app, 'node_modules/.bin/inro'), 'manager', 'run', '--state', join(app, 'state')];
  const manager = new Daemon([...command, '--listen', '127.0.0.1:0', '--socket', socket], { cwd: app, env });
  t.teardown(() => manager.kill9());
  await manager.printed(/"manager is ready"/);

  const ask = ['--manager', `unix:${socket}`, '--json'];
  const created = await run([join(app, 'node_modules/.bin/inro'), 'secret', 'create', 'a', '-', ...ask], {
    env,
    stdin: 'value',
  });
  t.is(created.code, 0, created.stderr);
  t.like(JSON.parse((await inro('secret', 'ls', ...ask)).stdout), [{ name: 'a' }]);
  t.deepEqual(JSON.parse((await inro('node', 'ls', ...ask)).stdout), []);
  t.is(await manager.stop(), 0);
});

labScenario('inro dev serves a secret', async (t) => {
  const host = await Host.of(t);
  const own = ['env', `PATH=${bin}`, `HOME=${env.HOME}`, join(app, 'node_modules/.bin/inro')];
  const dev = host.spawn([...own, 'dev']);
  await dev.printed(/inro dev: ready[^]*Ctrl-C/);
  await host.run([...own, 'secret', 'create', 'a', '-'], { stdin: 'value' });
  const created = await host.run([...own, 'service', 'create', '--name', 'web', '--secret', 'a']);
  t.is(created.code, 0, created.stderr);
  t.is(await host.read('/run/inro/secrets/web/a'), 'value');
  const status = await host.run([...own, 'agent', 'status']);
  t.regex(status.stdout, /^Session: +connected /m);
  t.is(await dev.stop(), 0);
});

const said = (reason: string): RegExp =>
  new RegExp(
    `^inro: ${reason}\n {6}to build it, install g\\+\\+, make and python3, then run: npm rebuild inro `,
  );

labStep(
  'where the addon does not fit the host, it is said what to do, and the install script builds it',
  async (t) => {
    t.timeout(installMs);
    const install = ['node', join(installed, 'scripts/install.mjs')];
    const start = ['manager', 'run', '--state', join(app, 'other'), '--listen', '127.0.0.1:0'];

    writeFileSync(join(installed, prebuilt), 'for another machine');
    const unfit = await inro(...start);
    t.is(unfit.code, 1);
    t.regex(unfit.stderr, said(`the native addon for ${platform} does not load: .*inro\\.node: .+`));

    rmSync(join(installed, 'native/prebuilds'), { recursive: true });
    const absent = await inro(...start);
    t.is(absent.code, 1);
    t.regex(absent.stderr, said(`this installation has no native addon for ${platform}`));

    const without = await here(install);
    t.is(without.code, 1);
    t.regex(
      without.stderr,
      /^inro install: this installation has no native addon for .*: building it\ninro install: g\+\+, make, python3 missing; install with: .*\n$/,
    );

    // npm gives the scripts of packages its node-gyp.
    const gyp = join(repository, 'node_modules/node-gyp/bin/node-gyp.js');
    const built = await here(install, { PATH: process.env['PATH'] ?? '', npm_config_node_gyp: gyp });
    t.is(built.code, 0, `${built.stdout}${built.stderr}`);
    t.true(statSync(join(installed, 'native/build/Release/inro.node')).isFile());
    t.deepEqual(await here(install), { code: 0, stdout: '', stderr: '' });
  },
);

/** The directory, if it is there, or can be made, and written to. */
function usable(directory: string): string | undefined {
  try {
    mkdirSync(directory, { recursive: true });
    accessSync(directory, constants.W_OK | constants.X_OK);
    return directory;
  } catch {
    return undefined;
  }
}

function onPath(program: string): string {
  const folders = (process.env['PATH'] ?? '').split(delimiter);
  const found = folders.map((folder) => join(folder, program)).find(mayRun);
  if (found === undefined) throw new Error(`no ${program} on the PATH`);
  return found;
}

function mayRun(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false; // not there, or in a folder of another user
  }
}
