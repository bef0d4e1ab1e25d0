/** What a new user does, line by line, with `inro dev`; how it ends, and how it comes back. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Host, scenario } from '../support/host.js';
import { pause } from '../support/inro.js';

const file = '/run/inro/secrets/redis/my_secret_data';

scenario('1: a secret goes in, is read in the mount, changes without a restart, and goes', async (t) => {
  const host = await Host.of(t, { hostname: 'laptop' });
  const dev = await host.startDev();
  const [, port] = await dev.printed(/127\.0\.0\.1:([0-9]+)/);
  t.is(
    dev.stdout,
    `inro dev: ready
  mount     /run/inro/secrets
  manager   unix:/run/inro/manager.sock, 127.0.0.1:${port}
  state     temporary: gone when this ends (keep it with --state DIR)
  try       echo -n 'This is a secret' | npx inro secret create my_secret_data -
            npx inro service create --name redis --secret my_secret_data
            cat /run/inro/secrets/redis/my_secret_data
            npx inro agent status
  stop      Ctrl-C
`,
  );
  t.is(dev.stderr, '');

  const created = await host.sh("echo -n 'This is a secret' | inro secret create my_secret_data -");
  t.regex(created.stdout, /^[0-9a-z]{25}\n$/);
  t.is(created.stderr, '');
  await host.ask(['service', 'create', '--name', 'redis', '--secret', 'my_secret_data']);
  const [task, ...others] = await host.json(['service', 'ps', 'redis']);
  t.like(task, { service: 'redis', node: 'laptop', state: 'RUNNING', desiredState: 'RUNNING', error: '' });
  t.is(others.length, 0);

  const list = await host.sh('ls -l /run/inro/secrets/redis');
  t.regex(list.stdout, /^total [0-9]+\n-r--r--r-- 1 root root 16 .* my_secret_data\n$/);
  t.is(await host.read(file), 'This is a secret');

  await host.sh("echo -n 'changed' | inro secret update my_secret_data -");
  t.is(await host.read(file), 'changed');
  const [same] = await host.json(['service', 'ps', 'redis']);
  t.is(same?.['id'], task?.['id'], 'nothing restarted');

  await host.ask(['service', 'update', '--secret-rm', 'my_secret_data', 'redis']);
  t.is(await host.read(file), 'No such file or directory');
  const status = await host.ask(['agent', 'status']);
  t.regex(status, /^Node: +[0-9a-z]{25}$/m);
  t.regex(status, new RegExp(`^Session: +connected 127\\.0\\.0\\.1:${port} `, 'm'));
  t.regex(status, /^Arena: .* values: 0,/m);
  t.regex(status, /^[0-9a-z]{25} +redis +RUNNING +[0-9]+ +any +-$/m);
  t.regex(status, /^yes +locked arena /m);

  t.is(await dev.stop(), 0);
  t.true(dev.stdout.endsWith('inro dev: stopped, wiped, unmounted\n'));
  t.is(dev.stderr, '');
  t.is((await host.sh('ls -A /run/inro')).stdout, '', 'no socket and no mount point is left');
  t.notRegex((await host.sh('cat /proc/self/mountinfo')).stdout, /inro\/secrets/);
  t.deepEqual(await readdir(join(host.folder, 'tmp')), [], 'no temporary state is left');
});

scenario('2: Ctrl-C that arrives twice at once, as npm sends it, is still a clean end', async (t) => {
  const host = await Host.of(t);
  const dev = await host.startDev();
  process.kill(dev.pid, 'SIGINT');
  process.kill(dev.pid, 'SIGINT');
  t.is(await dev.exited, 0);
  t.is((await host.sh('ls -A /run/inro')).stdout, '');
});

scenario('3: TERM while it starts is a clean end too', async (t) => {
  const host = await Host.of(t);
  for (const afterMs of [300, 500, 700]) {
    const dev = host.start(['dev']);
    await pause(afterMs);
    const code = await dev.stop();
    t.true(code === 0 || (code === 143 && dev.stdout === ''), `exit ${code} after ${afterMs} ms`);
    t.is((await host.sh('ls -A /run/inro 2>&1 || true')).stdout.replace(/^ls: .*\n/, ''), '');
    t.deepEqual(await readdir(join(host.folder, 'tmp')), []);
  }
});

scenario('4: started again over the mount that a killed run left dead, it recovers', async (t) => {
  const host = await Host.of(t);
  const killed = await host.startDev();
  await killed.kill9();
  t.is(await host.read('/run/inro/secrets/x'), 'Transport endpoint is not connected');

  const dev = await host.startDev();
  await host.ask(['secret', 'create', 'after', '-'], { stdin: 'alive' });
  await host.ask(['service', 'create', '--name', 'web', '--secret', 'after']);
  t.is(await host.read('/run/inro/secrets/web/after'), 'alive');
  t.is(await dev.stop(), 0);
  t.notRegex((await host.sh('cat /proc/self/mountinfo')).stdout, /inro\/secrets/);
  t.is((await host.sh('find /run/inro ! -type d')).stdout, '', 'no socket is left');
});

scenario('5: a second one on the same host says what runs already, and does no harm', async (t) => {
  const host = await Host.of(t);
  const dev = await host.startDev();
  const second = await host.inro(['dev']);
  t.is(second.code, 1);
  t.regex(second.stderr, /^inro: another process serves \/run\/inro\/manager\.sock\n {6}stop it first/);
  t.notRegex(second.stderr, /\n\s+at /);
  t.is(second.stdout, '');
  await host.ask(['secret', 'create', 'still', '-'], { stdin: 'here' });
  await host.ask(['service', 'create', '--name', 'web', '--secret', 'still']);
  t.is(await host.read('/run/inro/secrets/web/still'), 'here');
  t.is(await dev.stop(), 0);
  t.deepEqual(await readdir(join(host.folder, 'tmp')), [], 'the second one left nothing behind');
});

scenario('6: with --state, secrets, services and the node are there again after a restart', async (t) => {
  const host = await Host.of(t);
  const first = await host.startDev(['--state', '/var/lib/dev']);
  t.regex(first.stdout, /^ {2}state {5}\/var\/lib\/dev$/m);
  await host.ask(['secret', 'create', 'kept', '-', '--label', 'tier=1'], { stdin: 'for long' });
  await host.ask(['service', 'create', '--name', 'web', '--secret', 'source=kept,target=k']);
  const before = await Promise.all([host.json(['secret', 'ls']), host.ask(['service', 'ls', '-q'])]);
  const nodeId = await host.ask(['node', 'ls', '-q']);
  t.is(await first.stop(), 0);

  await host.startDev(['--state', '/var/lib/dev']);
  t.deepEqual(await Promise.all([host.json(['secret', 'ls']), host.ask(['service', 'ls', '-q'])]), before);
  t.is(await host.ask(['node', 'ls', '-q']), nodeId, 'one node, the same one');
  t.is(await host.read('/run/inro/secrets/web/k'), 'for long');
});

scenario('7: --mount puts the secrets somewhere else', async (t) => {
  const host = await Host.of(t);
  const dev = await host.startDev(['--mount', '/run/elsewhere/secrets']);
  await host.ask(['secret', 'create', 'a', '-'], { stdin: 'v' });
  await host.ask(['service', 'create', '--name', 'web', '--secret', 'a']);
  t.is(await host.read('/run/elsewhere/secrets/web/a'), 'v');
  t.regex(await host.ask(['agent', 'status']), /^Mount: +\/run\/elsewhere\/secrets /m);
  t.is(await dev.stop(), 0);
});

scenario('8: an ordinary user is told in one line what is missing', async (t) => {
  const host = await Host.of(t);
  // The home as a login would set it: the one of whoever runs the test may be closed to this user.
  const asNobody = {
    cwd: '/',
    through: [
      'setpriv',
      '--reuid',
      '65534',
      '--regid',
      '65534',
      '--clear-groups',
      'env',
      'HOME=/nonexistent',
    ],
  };
  // With it: 10_ordinary_user.test.ts.
  const withoutHelper = { ...asNobody, through: [...asNobody.through, 'PATH=/nowhere'] };
  for (const command of [['dev'], ['agent', 'run']]) {
    const { code, stdout, stderr } = await host.inro(command, withoutHelper);
    t.is(code, 1);
    t.is(stdout, '');
    t.is(
      stderr,
      'inro: fusermount3 is not installed: without it only root can mount\n      install the package fuse3, or run as root\n',
    );
  }

  await host.startDev();
  const refused = await host.inro(['secret', 'ls', '--manager', 'unix:/run/inro/manager.sock'], asNobody);
  t.is(refused.code, 1);
  t.regex(
    refused.stderr,
    /^inro: no manager at unix:\/run\/inro\/manager\.sock: this user may not open its socket\n/,
  );
});
