import { spawn } from 'node:child_process';
import { chmod, lstat, mkdir, readdir, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { detach } from '../../../src/agent/mount/device.js';
import {
  detachInroMounts,
  isInroMount,
  parseMountinfo,
  prepareMountpoint,
  readMounts,
  topMountAt,
} from '../../../src/agent/mount/mountpoint.js';
import { guardMounts } from '../../support/mount_guard.js';
import { MountReader } from '../../support/mount_reader.js';

const canMount = process.getuid?.() === 0;
const mounting = canMount ? test.serial : test.serial.skip;
const neverDetach = (): Promise<string> => {
  throw new Error('nothing to detach here');
};

const sample = `22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw,discard
42 27 0:39 / /run/in\\040ro/a\\134b ro,nosuid,nodev,noexec,relatime - fuse.inro inro ro,user_id=0
43 27 0:40 / /mnt/sshfs rw - fuse.sshfs host:/x\\040y rw
not a line
44 27 0:41 / /mnt/plain rw - fuse inro rw
`;

test('mountinfo: optional fields, escapes, and lines that are none', (t) => {
  const mounts = parseMountinfo(sample);
  t.deepEqual(
    mounts.map(({ id, mountPoint }) => [id, mountPoint]),
    [
      [22, '/proc'],
      [27, '/'],
      [42, '/run/in ro/a\\b'],
      [43, '/mnt/sshfs'],
      [44, '/mnt/plain'],
    ],
  );
  t.deepEqual(mounts[2], {
    allowsOthers: false,
    id: 42,
    parentId: 27,
    mountPoint: '/run/in ro/a\\b',
    options: ['ro', 'nosuid', 'nodev', 'noexec', 'relatime'],
    fsType: 'fuse.inro',
    source: 'inro',
    userId: 0,
  });
  t.is(mounts[3]?.source, 'host:/x y');
  t.deepEqual(
    mounts.filter(isInroMount).map(({ id }) => id),
    [42, 44],
  );
  t.deepEqual(parseMountinfo(''), []);
});

test('of mounts on top of each other the last one is what a path reaches, in whatever order they are listed', (t) => {
  const line = (id: number, parent: number, source: string) =>
    `${id} ${parent} 0:1 / /m rw - tmpfs ${source} rw`;
  const lines = [line(50, 27, 'lowest'), line(12, 50, 'middle'), line(60, 12, 'top')];
  for (const order of [
    [0, 1, 2],
    [2, 1, 0],
    [1, 2, 0],
  ]) {
    const mounts = parseMountinfo(order.map((at) => lines[at]).join('\n'));
    t.is(topMountAt(mounts, '/m')?.source, 'top');
  }
  t.is(topMountAt(parseMountinfo(sample), '/m'), undefined);
});

test('this process can read its own mounts', async (t) => {
  t.truthy(topMountAt(await readMounts(), '/proc'));
});

async function folder(t: ExecutionContext): Promise<string> {
  const { scratch, cleanUp } = await guardMounts();
  t.teardown(cleanUp);
  return scratch;
}

const modeOf = async (path: string): Promise<string> => ((await stat(path)).mode & 0o7777).toString(8);

// One test: the umask is the whole process's.
test.serial(
  'a missing directory is made 0700, its parents 0755, whatever the umask, and taken away again',
  async (t) => {
    const base = await folder(t);
    const before = process.umask(0o177);
    t.teardown(() => process.umask(before));
    const point = await prepareMountpoint(join(base, 'run/inro/secrets'), neverDetach);
    process.umask(before);
    t.is(point.path, join(base, 'run/inro/secrets'));
    t.deepEqual(
      [await modeOf(point.path), await modeOf(join(base, 'run/inro')), await modeOf(join(base, 'run'))],
      ['700', '755', '755'],
    );
    await point.remove();
    t.deepEqual(await readdir(join(base, 'run/inro')), []);
    await point.remove();
  },
);

test('an empty directory is taken as it is, and stays', async (t) => {
  const path = join(await folder(t), 'there');
  await mkdir(path);
  await chmod(path, 0o750);
  const point = await prepareMountpoint(path, neverDetach);
  await point.remove();
  t.is(await modeOf(path), '750');
});

test('a directory that was filled meanwhile is not taken away', async (t) => {
  const path = join(await folder(t), 'new');
  const point = await prepareMountpoint(path, neverDetach);
  await writeFile(join(path, 'file'), '');
  await point.remove();
  t.deepEqual(await readdir(path), ['file']);
});

test('links in the parents are resolved, a link as the mount point is refused', async (t) => {
  const base = await folder(t);
  await mkdir(join(base, 'real'));
  await symlink('real', join(base, 'link'));
  const point = await prepareMountpoint(join(base, 'link/m'), neverDetach);
  t.is(point.path, join(base, 'real/m'));
  await point.remove();
  await t.throwsAsync(prepareMountpoint(join(base, 'link'), neverDetach), {
    code: 'mount_failed',
    message: /is a symbolic link$/,
  });
  await rm(join(base, 'real'), { recursive: true });
  await t.throwsAsync(
    prepareMountpoint(join(base, 'link'), neverDetach),
    { code: 'mount_failed' },
    'a dangling one, too',
  );
  t.true((await lstat(join(base, 'link'))).isSymbolicLink());
});

test('what is no empty directory is refused, and left as it was', async (t) => {
  const base = await folder(t);
  await writeFile(join(base, 'file'), 'content');
  const refused = (path: string, message: RegExp) =>
    t.throwsAsync(prepareMountpoint(path, neverDetach), { name: 'InroError', code: 'mount_failed', message });
  await refused(join(base, 'file'), /is not a directory$/);
  await refused(base, /is not empty$/);
  await refused(join(base, 'file/m'), /ENOTDIR|EEXIST/);
  await refused('/', /already has a mount/);
  t.deepEqual(await readdir(base), ['file']);
});

async function mountTmpfs(t: ExecutionContext, path: string, type: string[]): Promise<void> {
  const reader = new MountReader();
  t.teardown(() => reader.close());
  await reader.call('execFileSync', 'mount', [...type, path]);
}

mounting('a foreign mount is refused and stays', async (t) => {
  const path = join(await folder(t), 'with a space');
  await mkdir(path);
  await mountTmpfs(t, path, ['-t', 'tmpfs', 'foreign']);
  const refusal = { code: 'mount_failed', message: /already has a mount \(tmpfs from foreign\)$/ };
  await t.throwsAsync(prepareMountpoint(path, detach), refusal);
  await t.throwsAsync(detachInroMounts(path, detach), refusal);
  t.is(topMountAt(await readMounts(), path)?.source, 'foreign');
});

mounting('the mount of another user is refused and stays', async (t) => {
  const path = join(await folder(t), 'mount');
  await mkdir(path);
  await killedRun(path);
  const asAnother = `
    import { prepareMountpoint } from ${JSON.stringify(new URL('../../../src/agent/mount/mountpoint.js', import.meta.url).href)};
    process.setuid(65534);
    await prepareMountpoint(process.argv[1], () => console.log('detached')).catch((error) => console.log(error.message));
  `;
  const reader = new MountReader();
  t.teardown(() => reader.close());
  for (const above of ['..', '../..']) await chmod(join(path, above), 0o711);
  const said = await reader.call('execFileSync', process.execPath, [
    '--input-type=module',
    '-e',
    asAnother,
    path,
  ]);
  t.is(
    Buffer.from(said as Uint8Array).toString(),
    `${path} is a mount of inro that belongs to another user (uid 0)\n`,
  );
  await detachInroMounts(path, detach);
});

mounting('left-over mounts of killed runs are detached without a look at them', async (t) => {
  const path = join(await folder(t), 'mount');
  for (let run = 0; run < 2; run++) {
    await mkdir(path, { recursive: true }).catch(() => {});
    await killedRun(path);
  }
  const left = (await readMounts()).filter(({ mountPoint }) => mountPoint === path);
  t.is(left.length, 1, 'each run detached the one before it');
  const reader = new MountReader();
  t.teardown(() => reader.close());
  t.is(await reader.fails('statSync', path), 'ENOTCONN');

  const point = await prepareMountpoint(path, detach);
  t.is(topMountAt(await readMounts(), path), undefined);
  t.deepEqual(await readdir(point.path), []);
});

mounting('a mount that the kernel will not let go of is an error that says so', async (t) => {
  const path = join(await folder(t), 'mount');
  await mkdir(path);
  await killedRun(path);
  await t.throwsAsync(
    detachInroMounts(path, async () => 'EPERM'),
    { code: 'mount_failed', message: /cannot unmount .*: EPERM$/ },
  );
  await t.throwsAsync(
    detachInroMounts(path, async () => ''),
    { code: 'mount_failed', message: /more than 16 inro mounts/ },
  );
  await detachInroMounts(path, detach);
});

mounting('after the unmount nothing of the driver keeps the process alive', async (t) => {
  const path = join(await folder(t), 'mount');
  const program = spawn(process.execPath, ['--input-type=module', '-e', runDriver, path], {
    cwd: '/',
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  program.stdout.resume();
  const ended = new Promise((resolve) => program.once('exit', (code, signal) => resolve(signal ?? code)));
  program.stdin.end('unmount\n');
  const outcome = await Promise.race([ended, sleep(10_000, 'still running', { ref: false })]);
  if (outcome === 'still running') program.kill('SIGKILL');
  t.is(outcome, 0);
});

/** Mounts, says so, and unmounts when standard input has said something. */
const runDriver = `
  import { createFuseNativeDriver } from ${JSON.stringify(new URL('../../../src/agent/mount/fuse_native.js', import.meta.url).href)};
  const driver = createFuseNativeDriver({ onError: console.error, clock: { now: Date.now, boottimeMs: () => 0 } });
  driver.serveUntil(1);
  await driver.mount({ path: process.argv[1] });
  console.log('mounted');
  process.stdin.once('data', () => driver.unmount());
`;

/** A run that was killed with SIGKILL while it was mounted. */
async function killedRun(path: string): Promise<void> {
  const program = spawn(process.execPath, ['--input-type=module', '-e', runDriver, path], {
    cwd: '/',
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const ended = new Promise((resolve) => program.once('exit', resolve));
  await Promise.race([new Promise((resolve) => program.stdout.once('data', resolve)), ended]);
  program.kill('SIGKILL');
  await ended;
}
