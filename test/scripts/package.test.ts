/** The Debian package as `npm run package` makes it: what is in it, and that it is made of this checkout alone. */
import { createHash } from 'node:crypto';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { run } from '../support/inro.js';
import { inLab } from '../support/lab.js';
import { repository } from './checkout.js';

const place = mkdtempSync(join(tmpdir(), 'deb-'));
test.after.always(() => rmSync(place, { recursive: true, force: true }));
const tree = join(place, 'tree');
const packed = join(place, 'inro_1.2.3~rc.1_amd64.deb');

const made = whyNot() === undefined ? test.serial : test.serial.skip;
const suffix = whyNot() === undefined ? '' : ` (skipped: ${whyNot()})`;

async function build(): Promise<void> {
  const { code, stdout, stderr } = await run(
    [process.execPath, 'scripts/package.mjs', '--out', place, '--version', '1.2.3-rc.1'],
    { cwd: repository, env: { SOURCE_DATE_EPOCH: '1700000000' } },
  );
  if (code !== 0 || stdout !== `${packed}\n`) throw new Error(`${stdout}${stderr}`);
}

function ask(program: string, ...args: string[]): string {
  return execFileSync(program, args, { encoding: 'utf8', maxBuffer: 16 << 20 });
}

function hash(): string {
  return createHash('sha256').update(readFileSync(packed)).digest('hex');
}

test.before(async (t) => {
  if (whyNot() !== undefined) return;
  t.timeout(120_000);
  await build();
  mkdirSync(tree);
  ask('dpkg-deb', '--raw-extract', packed, tree);
});

made(`it says what it is and what it needs${suffix}`, (t) => {
  const field = (name: string): string => ask('dpkg-deb', '--field', packed, name).trimEnd();
  t.is(field('Package'), 'inro');
  t.is(field('Version'), '1.2.3~rc.1');
  t.is(field('Architecture'), 'amd64');
  t.is(field('Recommends'), 'fuse3');
  t.regex(field('Depends'), /^libc6 \(>= 2\.[0-9]+\), libgcc-s1 .*, libstdc\+\+6 \(>= [0-9.]+\)$/);
  for (const script of ['postinst', 'prerm', 'postrm'])
    t.notThrows(() => ask('sh', '-n', join(tree, 'DEBIAN', script)), script);
});

made(`each file belongs to root, and none can be written by others${suffix}`, (t) => {
  const lines = ask('dpkg-deb', '--contents', packed).trimEnd().split('\n');
  const odd = lines.filter((line) => !/^(drwxr-xr-x|-rwxr-xr-x|-rw-r--r--) root\/root /.test(line));
  t.deepEqual(odd, []);
  const executable = lines.filter((line) => line.startsWith('-rwx')).map((line) => line.split(' ').at(-1));
  t.deepEqual(executable, ['./usr/bin/inro', './usr/lib/inro/bin/node']);
});

made(`it has the program, what that needs, and no more${suffix}`, (t) => {
  const lib = join(tree, 'usr/lib/inro');
  t.deepEqual(readdirSync(lib).sort(), ['bin', 'dist', 'native', 'node_modules', 'package.json']);
  t.deepEqual(readdirSync(join(lib, 'dist')), ['src']);
  const packages = readdirSync(join(lib, 'node_modules'));
  const { dependencies, optionalDependencies, devDependencies } = JSON.parse(
    readFileSync(join(repository, 'package.json'), 'utf8'),
  ) as Record<string, Record<string, string>>;
  for (const name of Object.keys({ ...dependencies, ...optionalDependencies }))
    if (name !== 'node-addon-api') t.true(statSync(join(lib, 'node_modules', name)).isDirectory(), name);
  for (const name of Object.keys(devDependencies ?? {})) t.false(packages.includes(name), name);
  const docs = readdirSync(join(tree, 'usr/share/doc/inro')).sort();
  t.deepEqual(docs, ['README.md', 'copyright', 'copyright.nodejs', 'docs']);
});

made(`no file of ours names a path of the machine that made it${suffix}`, (t) => {
  const own = [repository, `${homedir()}/`, tmpdir(), place].filter((path) => path.length > 5);
  const folders = ['usr/lib/inro/dist', 'usr/lib/inro/native', 'usr/share/doc/inro', 'usr/bin', 'DEBIAN'];
  for (const folder of folders)
    for (const entry of readdirSync(join(tree, folder), { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue;
      const content = readFileSync(join(entry.parentPath, entry.name), 'latin1');
      for (const path of own) t.false(content.includes(path), `${entry.name}: ${path}`);
    }
});

made(`the same checkout gives the same bytes${suffix}`, async (t) => {
  t.timeout(120_000);
  const first = hash();
  await build();
  t.is(hash(), first);
});

made(`what lies there runs, with the Node that lies there${suffix}`, async (t) => {
  const lib = join(tree, 'usr/lib/inro');
  const node = [join(lib, 'bin/node'), join(lib, 'dist/src/cli/main.js')];
  t.is((await run([...node, '--version'], { env: { PATH: '/usr/bin:/bin' } })).stdout, '1.2.3-rc.1\n');
  const help = await run([...node, 'agent', 'run', '--help']);
  t.regex(help.stdout, /^Usage: inro agent run /);
});

function whyNot(): string | undefined {
  if (!inLab) return 'INRO_TEST_LAB is not 1';
  if (process.platform !== 'linux' || process.arch !== 'x64') return 'needs Linux on x86-64';
  try {
    ask('dpkg-deb', '--version');
    return undefined;
  } catch {
    return 'needs dpkg-deb';
  }
}
