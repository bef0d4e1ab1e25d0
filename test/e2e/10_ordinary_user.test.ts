/**
 * Users without root: the mount through fusermount3, everything under XDG_RUNTIME_DIR, as much locked memory as they may
 * have; and what they are told when something is missing.
 */
import type { ExecutionContext } from 'ava';
import { Host } from '../support/host.js';
import { refused, type Daemon } from '../support/inro.js';
import { labScenario } from '../support/lab.js';
import { OrdinaryUser, type UserOptions } from '../support/ordinary_user.js';

const aliceId = 61_001;
const bobId = 61_002;

async function aliceOn(
  t: ExecutionContext,
  hostname = 'laptop',
): Promise<{ host: Host; alice: OrdinaryUser }> {
  const host = await Host.of(t, { hostname });
  return { host, alice: await OrdinaryUser.on(host, 'alice', aliceId) };
}

async function mounts(host: Host): Promise<string[]> {
  const { stdout } = await host.sh("grep -o ' [^ ]*/inro/secrets ' /proc/self/mountinfo || true");
  return stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => line.trim());
}

async function stopped(t: ExecutionContext, daemon: Daemon): Promise<void> {
  t.is(await daemon.stop(), 0);
  t.is(daemon.stderr, '');
}

labScenario('1: a secret goes in, is read, changes and goes, without root', async (t) => {
  const { host, alice } = await aliceOn(t);
  const dev = await alice.startDev();
  t.regex(dev.stdout, /^ {2}mount {5}\/run\/user\/61001\/inro\/secrets$/m);
  t.regex(dev.stdout, /^ {2}manager {3}unix:\/run\/user\/61001\/inro\/manager\.sock, /m);
  const file = `${alice.mount}/redis/my_secret_data`;

  const created = await alice.sh("echo -n 'This is a secret' | inro secret create my_secret_data -");
  t.regex(created.stdout, /^[0-9a-z]{25}\n$/);
  t.is(created.stderr, '', 'a small value is locked, and nothing need be said');
  await alice.ask(['service', 'create', '--name', 'redis', '--secret', 'my_secret_data']);
  const list = await alice.sh(`ls -l ${alice.mount}/redis`);
  t.regex(list.stdout, /^total [0-9]+\n-r--r--r-- 1 root root 16 .* my_secret_data\n$/);
  t.is(await alice.read(file), 'This is a secret');
  await alice.sh("echo -n 'changed' | inro secret update my_secret_data -");
  t.is(await alice.read(file), 'changed');
  await alice.ask(['service', 'update', '--secret-rm', 'my_secret_data', 'redis']);
  t.is(await alice.read(file), 'No such file or directory');

  const status = await alice.ask(['agent', 'status']);
  t.regex(status, /^Mount: +\/run\/user\/61001\/inro\/secrets \(driver kernel\)$/m);
  t.regex(status, /^yes +locked arena .*; only [0-9.]+ MiB, as RLIMIT_MEMLOCK is 8 MiB$/m);
  t.regex(status, /^yes +no core files /m);
  t.regex(status, /^yes +no mmap or splice into the page cache /m);
  t.regex(status, /note: only this user can read the mount, not even root: /);
  t.notRegex(status, /may be swapped out/);

  await stopped(t, dev);
  t.true(dev.stdout.endsWith('inro dev: stopped, wiped, unmounted\n'));
  t.deepEqual(await mounts(host), []);
  t.is((await alice.sh(`find ${alice.folder} -mindepth 1`)).stdout, `${alice.folder}/inro\n`);
});

labScenario('2: owner and mode are the reference’s, for the user who mounts too', async (t) => {
  const { alice } = await aliceOn(t);
  await alice.startDev();
  await alice.give('web', 'open', 'for all');
  await alice.give('closed', 'root', 'for root', ',mode=0400');
  await alice.give('own', 'mine', 'for alice', `,uid=alice,gid=${aliceId},mode=0400`);
  t.is(await alice.read(`${alice.mount}/own/mine`), 'for alice');
  const write = await alice.sh(`echo x > ${alice.mount}/own/mine`);
  t.regex(write.stderr, /Read-only file system/);
});

labScenario(
  '3: who else can read it: nobody, or whom a bind mount and user_allow_other let in',
  async (t) => {
    const { host, alice } = await aliceOn(t);
    const bob = await OrdinaryUser.on(host, 'bob', bobId);
    const file = `${alice.mount}/web/key`;
    const dev = await alice.startDev();
    await alice.give('web', 'key', 'v');
    t.is(await alice.read(file), 'v');
    t.is(await host.read(file), 'Permission denied', 'not even root');
    t.is(await bob.read(file), 'Permission denied');
    await stopped(t, dev);

    await host.sh('echo user_allow_other > /run/fuse.conf');
    await alice.startDev();
    await alice.give('web', 'key', 'v');
    t.notRegex(await alice.ask(['agent', 'status']), /only this user/);
    t.is(await host.read(file), 'v');
    t.is(await bob.read(file), 'Permission denied', 'the folder and the root of the mount are closed');
    await host.sh(`mkdir /run/bob && mount --bind ${alice.mount}/web /run/bob`);
    t.is(await bob.read('/run/bob/key'), 'v');
  },
);

labScenario('4: manager and agent as services of a user, by their usual paths', async (t) => {
  const { host, alice } = await aliceOn(t);
  const listen = '127.0.0.1:0';
  const manager = alice.start(['manager', 'run', '--state', `${alice.folder}/manager`, '--listen', listen]);
  const [, address = ''] = await manager.printed(/"address":"([^"]+)".*"manager is ready"/);
  const token = await alice.ask(['token', 'show', 'worker']);
  await alice.ask(['agent', 'join', '--token', '-', '--manager', address], { stdin: token });
  t.regex((await alice.sh('ls -ld ~/.local/state/inro/agent')).stdout, /^drwx------ /);
  const first = alice.start(['agent', 'run']);
  await first.printed(/"session with the manager"/);
  await alice.give('web', 'key', 'before');
  t.is(await alice.read(`${alice.mount}/web/key`), 'before');

  // Another process of the same user cannot look into it, and it goes on looking at itself.
  const { pid } = JSON.parse(await alice.ask(['agent', 'status', '--json'])) as { pid: number };
  for (const look of ['cat mem', 'cat environ', 'ls fd/', 'ls map_files/', 'readlink -v exe']) {
    const [program, file] = look.split(/ (?=[^ ]+$)/);
    const { stdout, stderr } = await alice.sh(`${program} /proc/${pid}/${file}`);
    t.is(stdout, '', look);
    t.regex(stderr, /Permission denied/, look);
  }

  t.is(await first.stop(), 0);
  t.deepEqual(await mounts(host), []);
  const second = alice.start(['agent', 'run']);
  await second.printed(/"session with the manager"/);
  await alice.ask(['secret', 'update', 'key', '-'], { stdin: 'after' });
  t.is(await alice.read(`${alice.mount}/web/key`), 'after');
  t.is(await second.stop(), 0);
  t.is(await manager.stop(), 0);
});

labScenario(
  '5: a mount that kill -9 left dead is taken away by the next start of the same user alone',
  async (t) => {
    const { host, alice } = await aliceOn(t);
    const bob = await OrdinaryUser.on(host, 'bob', bobId);
    const killed = await alice.startDev();
    await killed.kill9();
    t.is(await alice.read(`${alice.mount}/x`), 'Transport endpoint is not connected');
    refused(
      t,
      await host.inro(['dev', '--mount', alice.mount]),
      1,
      /^inro: \S+ is a mount of inro that belongs to another user \(uid 61001\)\n/,
    );
    refused(
      t,
      await bob.inro(['dev', '--mount', alice.mount]),
      1,
      /^inro: cannot use \S+ as a mount point: EACCES\n/,
    );

    const dev = await alice.startDev();
    await alice.give('web', 'after', 'alive');
    t.is(await alice.read(`${alice.mount}/web/after`), 'alive');
    await stopped(t, dev);
    t.deepEqual(await mounts(host), []);
  },
);

labScenario('6: two users and root beside them do not notice each other', async (t) => {
  const { host, alice } = await aliceOn(t);
  const bob = await OrdinaryUser.on(host, 'bob', bobId);
  await host.sh('mkdir -m 1777 /run/tmp');
  const env = { TMPDIR: '/run/tmp' };
  const root = host.start(['dev'], { env });
  await root.printed(/inro dev: ready/);
  const [hers, his] = await Promise.all([alice.startDev([], { env }), bob.startDev([], { env })]);
  await host.ask(['secret', 'create', 'key', '-'], { stdin: 'of root' });
  await host.ask(['service', 'create', '--name', 'web', '--secret', 'key']);
  await alice.give('web', 'key', 'of alice');
  await bob.give('web', 'key', 'of bob');
  t.is(await host.read('/run/inro/secrets/web/key'), 'of root');
  t.is(await alice.read(`${alice.mount}/web/key`), 'of alice');
  t.is(await bob.read(`${bob.mount}/web/key`), 'of bob');
  for (const path of ['/run/inro/secrets/web/key', `${alice.mount}/web/key`])
    t.is(await bob.read(path), 'Permission denied');
  const foreign = await bob.inro(['secret', 'ls', '--manager', 'unix:/run/inro/manager.sock']);
  refused(
    t,
    foreign,
    1,
    /^inro: no manager at unix:\/run\/inro\/manager\.sock: this user may not open its socket\n/,
  );

  await his.kill9();
  await stopped(t, hers);
  t.is(await host.read('/run/inro/secrets/web/key'), 'of root');
  const again = await bob.startDev([], { env });
  t.is(await host.read('/run/inro/secrets/web/key'), 'of root');
  await stopped(t, again);
  await stopped(t, root);
  t.deepEqual(await mounts(host), []);
});

labScenario('7: what may not be locked makes the arena smaller, and at last is an error', async (t) => {
  const { alice } = await aliceOn(t);
  const small = await alice.startDev([], { lockedKiB: 4096 });
  const status = JSON.parse(await alice.ask(['agent', 'status', '--json'])) as {
    arena: { kind: string; sizeBytes: number };
    protections: { name: string; inForce: boolean; detail: string }[];
    mount: { notes: string[] };
  };
  t.true(status.arena.sizeBytes > 2 ** 20 && status.arena.sizeBytes < 3 * 2 ** 20);
  const [locked] = status.protections;
  t.like(locked, { name: 'locked arena', inForce: true });
  t.regex(locked?.detail ?? '', /; only [0-9.]+ MiB, as RLIMIT_MEMLOCK is 4 MiB$/);
  t.false(status.mount.notes.some((note) => note.includes('swapped')));
  await alice.give('web', 'large', 'x'.repeat(1_000_000));
  t.is((await alice.read(`${alice.mount}/web/large`)).length, 1_000_000);
  await alice.ask(['secret', 'create', 'larger', '-'], { stdin: 'x'.repeat(1_048_576) });
  const full = await alice.inro([
    'service',
    'create',
    '--name',
    'more',
    '--secret',
    'large',
    '--secret',
    'larger',
  ]);
  t.is(full.code, 1);
  t.regex(full.stdout + full.stderr, /the arena has no room/);
  t.is(await small.stop(), 0);

  for (const lockedKiB of [64, 0]) {
    refused(
      t,
      await alice.inro(['dev'], { lockedKiB }),
      1,
      /^inro: an agent needs 2 MiB of memory that it may lock, so that no secret is swapped out: RLIMIT_MEMLOCK is (64 KiB|0 bytes)\n {6}raise it to 64 MiB: ulimit -l /,
    );
  }
});

labScenario(
  '8: managers and operators need next to no locked memory, and say when they have none',
  async (t) => {
    const { alice } = await aliceOn(t);
    const state = ['--state', `${alice.folder}/manager`, '--listen', '127.0.0.1:0'];
    for (const lockedKiB of [64, 0]) {
      const manager = alice.start(['manager', 'run', ...state], { lockedKiB });
      await manager.printed(/"manager is ready"/);
      if (lockedKiB === 0) t.regex(manager.stderr, /"level":40.*keys may be swapped out/);
      else t.notRegex(manager.stderr, /swapped/);
      const create = (name: string, stdin: string) =>
        alice.inro(['secret', 'create', name, '-'], { lockedKiB, stdin });
      const small = await create(`small-${lockedKiB}`, 'hunter2');
      const large = await create(`large-${lockedKiB}`, 'x'.repeat(300_000));
      t.deepEqual([small.code, large.code], [0, 0]);
      const warning = `inro: until this command ends, the value is in memory that may be swapped out: RLIMIT_MEMLOCK is ${lockedKiB === 0 ? '0 bytes' : '64 KiB'} (see ulimit -l)\n`;
      t.is(small.stderr, lockedKiB === 0 ? warning : '');
      t.is(large.stderr, warning);
      t.is(await manager.stop(), 0);
    }

    // What was typed there is what is read.
    const manager = alice.start(['manager', 'run', ...state]);
    const [, address = ''] = await manager.printed(/"address":"([^"]+)".*"manager is ready"/);
    const token = await alice.ask(['token', 'show', 'worker']);
    await alice.ask(['agent', 'join', '--token', '-', '--manager', address], { stdin: token });
    const agent = alice.start(['agent', 'run']);
    await agent.printed(/"session with the manager"/);
    const names = ['small-64', 'small-0', 'large-64', 'large-0'];
    await alice.ask(['service', 'create', '--name', 'web', ...names.flatMap((name) => ['--secret', name])]);
    const values = await Promise.all(names.map((name) => alice.read(`${alice.mount}/web/${name}`)));
    t.deepEqual(values, ['hunter2', 'hunter2', 'x'.repeat(300_000), 'x'.repeat(300_000)]);
  },
);

labScenario('9: what is missing is said in one line, and nothing is left', async (t) => {
  const { host, alice } = await aliceOn(t);
  const missing = async (change: string, words: RegExp, options: UserOptions = {}): Promise<void> => {
    // In mounts of its own: the change goes with the command.
    const line = `${change} && exec "$@"`;
    const before = ['unshare', '-m', '--propagation', 'private', 'sh', '-c', line, 'sh'];
    refused(t, await alice.inro(['dev'], { before, ...options }), 1, words);
  };
  const program = (await host.sh('command -v fusermount3')).stdout.trim();
  const remedy = (text: string) => new RegExp(`^inro: ${text}\\n {6}\\S`);
  await missing(
    `mount --bind /dev/null ${program}`,
    remedy('fusermount3 is not installed: without it only root can mount'),
  );
  await missing(
    `cp ${program} /run/f && chmod 755 /run/f && mount --bind /run/f ${program}`,
    remedy(`cannot mount \\S+: ${program} is not setuid root`),
  );
  await missing(
    `cp -p ${program} /run/g && chmod 4750 /run/g && mount --bind /run/g ${program}`,
    remedy(`${program} is there, but this user may not run it`),
  );
  await missing(
    `mknod -m 600 /run/closed c 10 229 && mount --bind /run/closed /dev/fuse`,
    remedy('/dev/fuse is there, but this user may not open it'),
  );
  await missing(`mount -t tmpfs tmpfs /dev`, remedy('/dev/fuse is not there'));
  await missing(
    `grep -v alice /etc/passwd > /run/nobody && mount --bind /run/nobody /etc/passwd`,
    remedy('cannot mount \\S+: fusermount3 wants this user \\(uid 61001\\) to have a name'),
  );
  await missing('true', remedy(`cannot mount \\S+: ${program} may not become root here \\(no_new_privs\\)`), {
    privileges: ['--no-new-privs'],
  });
  await missing('true', remedy('XDG_RUNTIME_DIR is /run/user/0, which is not there'), {
    env: { XDG_RUNTIME_DIR: '/run/user/0' },
  });
  await missing(
    'mkdir -p /run/user/1',
    remedy('XDG_RUNTIME_DIR is /run/user/1, which belongs to another user \\(uid 0\\)'),
    { env: { XDG_RUNTIME_DIR: '/run/user/1' } },
  );

  const refusedMount = async (path: string, words: RegExp) =>
    refused(t, await alice.inro(['dev', '--mount', path]), 1, words);
  await host.sh('mkdir -m 755 /run/roots; mkdir -m 777 /run/open');
  await refusedMount(
    '/run/roots',
    remedy('/run/roots is a directory that belongs to another user \\(uid 0\\)'),
  );
  await refusedMount(
    '/run/open',
    remedy('/run/open is a directory that belongs to another user \\(uid 0\\)'),
  );
  await refusedMount('/run/roots/new', remedy('cannot use /run/roots/new as a mount point: EACCES'));
  refused(
    t,
    await alice.inro(['dev', '--driver', 'fuse-native']),
    1,
    remedy('the driver fuse-native mounts for root alone'),
  );
  t.deepEqual(await mounts(host), []);
  const left = await alice.sh(`find ${alice.folder} -mindepth 1`);
  t.is(left.stdout, `${alice.folder}/inro\n`);
});

labScenario('10: without XDG_RUNTIME_DIR, /run/user/UID is it, if it is there', async (t) => {
  const { host, alice } = await aliceOn(t);
  const env = { XDG_RUNTIME_DIR: '' };
  const dev = await alice.startDev([], { env });
  t.regex(dev.stdout, /^ {2}mount {5}\/run\/user\/61001\/inro\/secrets$/m);
  t.is((await alice.inro(['secret', 'ls', '-q'], { env })).code, 0);
  await stopped(t, dev);

  await host.sh(`mv ${alice.folder} /run/elsewhere`);
  const words =
    /^inro: XDG_RUNTIME_DIR is not set, and \/run\/user\/61001 is not there\n {6}set XDG_RUNTIME_DIR to /;
  refused(t, await alice.inro(['dev'], { env }), 1, words);
  refused(t, await alice.inro(['agent', 'status'], { env }), 1, words);
  refused(t, await alice.inro(['secret', 'ls'], { env }), 1, words);
  const named = await alice.inro(['secret', 'ls', '--manager', 'unix:/run/elsewhere/m.sock'], { env });
  refused(t, named, 1, /^inro: no manager at unix:\/run\/elsewhere\/m\.sock: /);
});

labScenario('11: a user with CAP_SYS_ADMIN mounts without fusermount3', async (t) => {
  const { host, alice } = await aliceOn(t);
  const privileges = ['--inh-caps', '+sys_admin', '--ambient-caps', '+sys_admin'];
  await host.sh('mount --bind /dev/null $(command -v fusermount3)');
  const dev = await alice.startDev([], { privileges });
  await alice.give('web', 'key', 'v');
  t.is(await alice.read(`${alice.mount}/web/key`), 'v');
  t.notRegex(await alice.ask(['agent', 'status']), /only this user/);
  await stopped(t, dev);
  t.deepEqual(await mounts(host), []);
});

labScenario(
  'a socket of another user is taken where root alone says who serves, and nowhere else',
  async (t) => {
    const { host, alice } = await aliceOn(t);
    const state = ['--state', `${alice.folder}/manager`, '--listen', '127.0.0.1:0'];
    const folder = '/run/shared';
    await host.sh(`mkdir -m 1775 ${folder} && chgrp ${aliceId} ${folder}`);
    const list = (path: string) => host.inro(['secret', 'ls', '--quiet', '--manager', `unix:${path}`]);

    for (const socket of [`${alice.folder}/manager.sock`, `${folder}/manager.sock`]) {
      const manager = alice.start(['manager', 'run', ...state, '--socket', socket]);
      await manager.printed(/"manager is ready"/);
      if (socket.startsWith(folder)) {
        t.deepEqual(await list(socket), { code: 0, stdout: '', stderr: '' });
        await host.sh(`chmod o+w ${folder}`);
      }
      refused(t, await list(socket), 1, /belongs to another user \(uid 61001\): it is not trusted/);
      t.is(await manager.stop(), 0);
    }
  },
);
