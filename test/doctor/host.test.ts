/** What a host is, and what is said of it: kernel, memory, mount, clock. */
import { mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { parseMountinfo } from '../../src/agent/mount/mountpoint.js';
import { clockSync } from '../../src/doctor/clock.js';
import type { Finding } from '../../src/doctor/finding.js';
import { fuseDevice, mayMount, mounterHere, type Mounter } from '../../src/doctor/fuse.js';
import { cgroups, coreFiles, kernelVersion } from '../../src/doctor/kernel.js';
import { lockLimit, secretMemory, swap } from '../../src/doctor/memory.js';
import { mountPoint } from '../../src/doctor/mount_point.js';
import { systemd } from '../../src/doctor/systemd.js';

type Row = [what: string, found: Finding, state: Finding['state'], detail: RegExp];

const helper = { path: '/usr/bin/fusermount3', runs: true, isSetuidRoot: true };
const alice: Mounter = { isRoot: false, direct: false, helper, noNewPrivileges: false };
const { helper: _, ...withoutHelper } = alice;

const root = '20 1 0:18 / / rw - ext4 /dev/vda rw\n';
const v2 = '30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n';
const v1 = '31 20 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n';
const ours = (user: number): string => `40 20 0:50 / /mnt/nowhere ro - fuse.inro inro ro,user_id=${user}\n`;
const foreign = '41 40 0:51 / /mnt/nowhere rw - tmpfs tmpfs rw\n';
const at = (text: string, agentAnswers: boolean, user = 0): Finding =>
  mountPoint({ path: '/mnt/nowhere', mounts: parseMountinfo(root + text), agentAnswers, user });

const mib = 2 ** 20;
const lockable = (bytes: number) => () => ({ bytes, limitBytes: bytes });

const rows: Row[] = [
  ['a kernel of today', kernelVersion('6.18.2-cloud'), 'ok', /Linux 6\.18\.2-cloud/],
  ['6.9', kernelVersion('6.9.0'), 'ok', /6\.9/],
  ['6.8: no resend', kernelVersion('6.8.12'), 'note', /before 6\.9/],
  ['5.14', kernelVersion('5.14.0-503.el9.x86_64'), 'note', /before 6\.9/],
  ['5.9 is older than 5.14', kernelVersion('5.9.1'), 'warn', /no memfd_secret/],
  ['4.18', kernelVersion('4.18.0'), 'warn', /no memfd_secret/],
  ['no release', kernelVersion('unknown'), 'note', /cannot tell/],

  ['core files to a folder', coreFiles('core\n'), 'note', /goes to core$/],
  [
    'core files to a program',
    coreFiles('|/usr/lib/systemd/systemd-coredump %P\n'),
    'note',
    /systemd-coredump/,
  ],
  ['core files to nobody', coreFiles('|/bin/false\n'), 'ok', /none/],
  ['no core files', coreFiles('\n'), 'ok', /none/],
  ['core files that nobody tells of', coreFiles(undefined), 'note', /cannot tell/],

  ['cgroup v2', cgroups(parseMountinfo(root + v2)), 'ok', /at \/sys\/fs\/cgroup$/],
  ['cgroup v2 and v1', cgroups(parseMountinfo(root + v2 + v1)), 'note', /beside v1/],
  ['cgroup v1 alone', cgroups(parseMountinfo(root + v1)), 'note', /not mounted/],

  ['root', mayMount({ ...alice, isRoot: true, direct: true }), 'ok', /^root$/],
  ['root in a container', mayMount({ ...alice, isRoot: true }), 'fail', /without CAP_SYS_ADMIN/],
  ['a user with fusermount3', mayMount(alice), 'ok', /through \/usr\/bin\/fusermount3/],
  ['a user without', mayMount(withoutHelper), 'fail', /not installed/],
  [
    'a helper that he may not run',
    mayMount({ ...alice, helper: { ...helper, runs: false } }),
    'fail',
    /may not run/,
  ],
  [
    'a helper that is not root’s',
    mayMount({ ...alice, helper: { ...helper, isSetuidRoot: false } }),
    'fail',
    /not setuid/,
  ],
  ['no new privileges', mayMount({ ...alice, noNewPrivileges: true }), 'fail', /no_new_privs/],

  ['memfd_secret', secretMemory({ kind: 'memfd_secret', locked: true, note: '' }), 'ok', /outside/],
  ['mlock', secretMemory({ kind: 'mlock', locked: true, note: 'ENOSYS' }), 'warn', /ENOSYS.*root can read/],
  ['nothing locked', secretMemory({ kind: 'mlock', locked: false, note: 'EPERM' }), 'fail', /EPERM/],
  ['room for all', lockLimit((bytes) => ({ bytes, limitBytes: Infinity })), 'ok', /32 MiB of values/],
  ['room for some', lockLimit(lockable(8 * mib)), 'warn', /RLIMIT_MEMLOCK is 8 MiB/],
  ['room for too little', lockLimit(lockable(mib)), 'fail', /needs 2 MiB/],

  ['no swap', swap(0, undefined), 'ok', /none/],
  [
    'swap',
    swap(2048 * mib, 'Filename Type Size Used Priority\n/dev/dm-1 partition 2097148 0 -2\n'),
    'note',
    /2048 MiB \(\/dev\/dm-1\): inro's values never go there/,
  ],

  ['a clock that is right', clockSync('yes\n'), 'ok', /synchronised/],
  ['a clock that is not', clockSync('no\n'), 'warn', /not synchronised/],
  ['a clock that nobody knows of', clockSync(undefined), 'note', /cannot tell/],
  ['timedatectl without an answer', clockSync('\n'), 'note', /cannot tell/],

  ['systemd of today', systemd(true, 'systemd 252 (252.38-1~deb12u1)\n+PAM'), 'ok', /252/],
  ['an older one', systemd(true, 'systemd 249 (v249)\n'), 'note', /249/],
  ['installed, but not running', systemd(false, 'systemd 252\n'), 'note', /does not run this host/],
  ['one that does not answer', systemd(true, undefined), 'note', /cannot be told/],

  ['no mount', at('', false), 'ok', /nothing is mounted/],
  ['ours, alive', at(ours(0), true), 'ok', /agent that runs/],
  ['ours, dead', at(ours(0), false), 'warn', /no agent answers/],
  ['another user’s', at(ours(61_001), false), 'fail', /uid 61001/],
  ['another file system', at(foreign, false), 'fail', /tmpfs from tmpfs/],
  ['another over ours', at(ours(0) + foreign, true), 'fail', /tmpfs from tmpfs/],
];

for (const [what, found, state, detail] of rows) {
  test(what, (t) => {
    t.is(found.state, state, JSON.stringify(found));
    t.regex(found.detail, detail);
    if (state === 'warn' || state === 'fail') t.truthy(found.remedy, 'it says what to do');
    t.notRegex(`${found.detail}${found.remedy ?? ''}`, /\n/, 'one line each');
  });
}

test('an ordinary user is told to take a dead mount away as he may', (t) => {
  t.regex(at(ours(61_001), false, 61_001).remedy ?? '', /fusermount3 -u -z \/mnt\/nowhere/);
});

test('a link on the way to the mount point is followed, but not through a mount of inro', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'inro-doctor-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  await symlink('/mnt', join(folder, 'link'));
  const facts = { path: join(folder, 'link/nowhere'), agentAnswers: false, user: 0 };
  t.is(mountPoint({ ...facts, mounts: parseMountinfo(root + ours(0)) }).state, 'warn');
  const mounts = parseMountinfo(`${root}40 20 0:50 / ${folder}/link ro - fuse.inro inro ro,user_id=0\n`);
  t.regex(mountPoint({ ...facts, mounts }).detail, /link\/nowhere, nothing is mounted/);
});

test('a file, or nothing, in the place of /dev/fuse', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'inro-doctor-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  t.like(fuseDevice(join(folder, 'none')), { state: 'fail', detail: 'is not there' });
  await writeFile(join(folder, 'fuse'), '');
  t.like(fuseDevice(join(folder, 'fuse')), { state: 'fail', detail: 'is not the FUSE device' });
  t.like(fuseDevice('/dev/null'), { state: 'fail', detail: 'is not the FUSE device' });
});

test.serial('fusermount3 is found behind folders of PATH that cannot be entered', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'inro-doctor-'));
  const { PATH: before } = process.env;
  t.teardown(async () => {
    process.env['PATH'] = before;
    await rm(folder, { recursive: true, force: true });
  });
  await symlink('loop', join(folder, 'loop'));
  process.env['PATH'] = `${folder}/loop:${folder}/none:${folder}`;
  const status = 'CapEff:\t0000000000000000\nNoNewPrivs:\t1\n';
  t.is(mounterHere(status).helper, undefined);
  await writeFile(join(folder, 'fusermount3'), '', { mode: 0o755 });
  t.like(mounterHere(status), {
    direct: false,
    helper: { path: join(folder, 'fusermount3'), runs: true, isSetuidRoot: false },
    noNewPrivileges: true,
  });
  t.true(mounterHere('CapEff:\t000001ffffffffff\n').direct);
});
