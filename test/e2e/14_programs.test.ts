/** Programs as they are installed, and what they read: tools, languages, and who waits for a new version. */
import { createHash } from 'node:crypto';
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { Host } from '../support/host.js';
import type { Daemon, Result } from '../support/inro.js';
import { labScenario } from '../support/lab.js';
import { mappingLines, programLines } from '../support/program_lines.js';
import { hostWith, publish } from '../support/published.js';

const web = '/run/inro/secrets/web';
const busErrorCode = 128 + 7;

/** More than the kernel asks for at once (128 KiB), and no whole number of pages. */
const long = Array.from({ length: 4_000 }, (_, n) => `${digest(`${n}`)}\n`).join('');
const files = { small: 'hunter2', page: digest('page').repeat(64), long, mapped: long };

labScenario('tools read of a secret what they read of an ordinary file', async (t) => {
  const host = await hostWith(t, files, { mapped: 'mmap' });
  const ordinary = await ordinaryFolder(host);
  const out = join(host.folder, 'out');
  for (const f of Object.keys(files))
    for (const line of programLines) {
      const env = { LC_ALL: 'C', f, ordinary, out };
      const inFolder = async (cwd: string): Promise<object> => {
        await host.sh('rm -f $out', { env });
        const { code, stdout, stderr } = await host.sh(line, { env, cwd });
        return { code, stderr, length: stdout.length, digest: digest(stdout) };
      };
      const expected = await inFolder(ordinary);
      t.like(expected, { code: 0, stderr: '' }, `${line} (${f})`);
      t.deepEqual(await inFolder(web), expected, `${line} (${f})`);
    }
});

labScenario('a Go program, in each way that its library has', async (t) => {
  const host = await hostWith(t, files, { mapped: 'mmap' });
  const ordinary = await ordinaryFolder(host);
  const program = join(host.folder, 'go_reader');
  const build = `go build -o ${program} ${resolve('test/support/go_reader.go')}`;
  const built = await host.sh(build, { env: { GOCACHE: join(host.folder, 'go'), CGO_ENABLED: '0' } });
  t.is(built.code, 0, built.stderr);
  for (const f of Object.keys(files)) {
    const read = (folder: string): Promise<Result> => host.sh(`${program} ${folder}/${f}`);
    const expected = await read(ordinary);
    t.is(expected.stderr, '');
    t.is(expected.stdout.trimEnd().split('\n').length, 10);
    t.deepEqual(await read(web), expected, f);
  }
});

labScenario(
  'a program that knows only mmap ends with SIGBUS, unless the reference says `mmap`',
  async (t) => {
    const host = await hostWith(t, files, { mapped: 'mmap' });
    const ordinary = await ordinaryFolder(host);
    for (const line of mappingLines) {
      const read = (cwd: string, f: string): Promise<Result> =>
        host.sh(`ulimit -c 0; exec ${line}`, { env: { f }, cwd });
      const refused = await read(web, 'long');
      t.is(refused.code, busErrorCode, `${line}: ${refused.stderr}`);
      t.deepEqual(await read(web, 'mapped'), await read(ordinary, 'mapped'), line);
    }
  },
);

labScenario('trees: ls, find, stat, cp, tar, rsync and diff', async (t) => {
  const host = await hostWith(t, files, { page: 'uid=33,gid=33,mode=0440', mapped: 'mmap' });
  const here = async (line: string): Promise<string> => {
    const { code, stdout, stderr } = await host.sh(line, { cwd: web, env: { LC_ALL: 'C' } });
    t.deepEqual({ code, stderr }, { code: 0, stderr: '' }, line);
    return stdout;
  };
  const names = Object.keys(files);
  for (const b of ['', 'busybox ']) {
    const list = await here(`${b}ls -lan`);
    t.regex(list, /^-r--r--r-- +1 +0 +0 +7 .* small$/m);
    t.regex(list, /^-r--r----- +1 33 +33 +4096 .* page$/m);
    t.regex(list, /^lrwxrwxrwx .* \.\.data -> \.\.1$/m);
    const found = (await here(`${b}find . -type f`)).trimEnd().split('\n');
    t.deepEqual(found.sort(), names.flatMap((name) => [`./${name}`, `./..1/${name}`]).sort());
  }
  t.is(await here('stat -c "%n %s %F %h" small'), 'small 7 regular file 1\n');
  t.regex(await here('stat -f .'), /Type: fuse/);
  for (const [n, copy] of [
    'cp -a .',
    'cp -aL .',
    'busybox cp -a .',
    'rsync -a ./',
    'rsync -aL --checksum ./',
  ].entries()) {
    const to = join(host.folder, `copy-${n}`);
    await here(`${copy} ${to} && diff -r . ${to}`);
    t.is(
      await here(`stat -c '%n %a %u %g %Y' *`),
      (await host.sh("stat -c '%n %a %u %g %Y' *", { cwd: to })).stdout,
    );
  }
  const to = join(host.folder, 'unpacked');
  const packed = await here(`tar c . | tar t`);
  for (const name of names) t.true(packed.includes(`./..1/${name}\n`));
  await here(`mkdir ${to} && tar c . | tar x -C ${to} && diff -r . ${to}`);
});

labScenario('who follows a file: a new version, and the end of the service', async (t) => {
  const host = await hostWith(t, { key: 'one\n' });
  const follow = (...command: string[]) => host.spawn(command, { cwd: web, env: { LC_ALL: 'C' } });
  const byName = follow('tail', '-F', 'key');
  const byNameToo = follow('busybox', 'tail', '-F', 'key');
  const byDescriptor = follow('tail', '-f', 'key');
  const byDescriptorToo = follow('busybox', 'tail', '-f', 'key');
  const tails = [byName, byNameToo, byDescriptor, byDescriptorToo];
  for (const tail of tails) await tail.printed(/one/);

  await host.ask(['secret', 'update', 'key', '-'], { stdin: 'longer\n' });
  for (const tail of [byName, byNameToo]) {
    await tail.printed(/key'? has been replaced/);
    await tail.printed(/one\nlonger\n/);
  }
  await byDescriptorToo.printed(/read error: Stale file handle/);
  t.is(byDescriptor.stdout + byDescriptor.stderr, 'one\n', 'it sees the old size, and waits for ever');

  await host.ask(['service', 'rm', 'web']);
  await byName.printed(/key' has become inaccessible: No such file or directory/);
  for (const tail of tails) t.true(tail.running);
});

labScenario('who watches a file: inotify when nobody has it open any more; stat always', async (t) => {
  const host = await hostWith(t, { key: 'one', held: 'one' });
  const watch = async (name: string): Promise<Daemon> => {
    const watcher = host.spawn(['node', '-e', watching, `${web}/${name}`, web]);
    await watcher.printed(/watching/);
    return watcher;
  };
  const ofKey = await watch('key');
  // What changes elsewhere, and a look at the folder, cost no event.
  await publish(host, { other: 'one' }, {}, 'db');
  await host.ask(['secret', 'update', 'other', '-'], { stdin: 'two' });
  t.regex((await host.sh(`ls ${web}`)).stdout, /key/);
  await host.ask(['secret', 'update', 'key', '-'], { stdin: 'longer' });
  await ofKey.printed(/file rename/);
  t.notRegex(ofKey.stdout, /folder/, 'of the directory inotify says nothing');

  const ofHeld = await watch('held');
  const polling = host.spawn(['node', '-e', polled, `${web}/held`]);
  await polling.printed(/polling/);
  const reader = host.spawn(['sh', '-c', `exec 3< ${web}/held; echo opened; read closed`], { talks: true });
  await reader.printed(/opened/);
  await host.ask(['secret', 'update', 'held', '-'], { stdin: 'longer' });
  await polling.printed(/6 bytes/);
  t.notRegex(ofHeld.stdout, /file/);
  reader.say('');
  await ofHeld.printed(/file rename/);
});

const watching = `
  const [file, folder] = process.argv.slice(1);
  fs.watch(file, (event) => console.log('file', event));
  fs.watch(folder, (event) => console.log('folder', event));
  console.log('watching');`;

const polled = `
  fs.watchFile(process.argv[1], { interval: 100 }, ({ size }) => console.log(size, 'bytes'));
  fs.stat(process.argv[1], () => console.log('polling'));`;

/** The same files as root's, 0444, in a folder of a disk. */
async function ordinaryFolder(host: Host): Promise<string> {
  const folder = join(host.folder, 'ordinary');
  await mkdir(folder);
  for (const [name, value] of Object.entries(files)) {
    await writeFile(join(folder, name), value);
    await chmod(join(folder, name), 0o444);
  }
  return folder;
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
