/** Changes under running workloads: new versions, owners and modes, scaling, removal. */
import type { ExecutionContext } from 'ava';
import { Host, scenario } from '../support/host.js';
import { labScenario } from '../support/lab.js';
import { eventually } from '../support/inro.js';

const web = '/run/inro/secrets/web';

scenario(
  'a new version: who opens sees it, who has the file open reads on for 10 s and then no more',
  async (t) => {
    const host = await clusterWith(t, { key: 'one' });
    await host.ask(['service', 'create', '--name', 'web', '--secret', 'key']);
    const [task] = await host.json<{ id: string }[]>(['service', 'ps', 'web']);
    const reader = host.spawn([
      'sh',
      '-c',
      `exec 3< ${web}/key 4< ${web}/key; echo opened
     until [ -e rotated ]; do sleep 0.05; done; echo "within: $(cat <&3 2>&1)"
     until [ -e later ]; do sleep 0.05; done; echo "after: $(cat <&4 2>&1)"`,
    ]);
    await reader.printed(/opened/);
    await host.ask(['secret', 'update', 'key', '-'], { stdin: 'two' });
    const rotatedMs = Date.now();
    t.is(await host.read(`${web}/key`), 'two');
    await host.sh('touch rotated');
    const [, within] = await reader.printed(/within: (.*)\n/);
    if (Date.now() - rotatedMs < 9_000) t.is(within, 'one');
    t.like(await status(host), { values: 2 }, 'the old one is still there');
    await eventually('the old one to be wiped', async () => (await status(host)).values === 1, 15_000);
    t.true(Date.now() - rotatedMs > 9_000, 'not before the grace is over');
    await host.sh('touch later');
    t.regex((await reader.printed(/after: (.*)\n/))[1] ?? '', /Stale file handle$/);
    t.is(await host.read(`${web}/key`), 'two');
    t.is((await host.json<{ id: string }[]>(['service', 'ps', 'web']))[0]?.id, task?.id);
  },
);

scenario('going back to an earlier version, and letting old ones go', async (t) => {
  const host = await clusterWith(t, { key: 'one' });
  await host.ask(['service', 'create', '--name', 'web', '--secret', 'key']);
  for (const value of ['two', 'three']) await host.ask(['secret', 'update', 'key', '-'], { stdin: value });
  t.is(await host.ask(['secret', 'rollback', 'key']), 'key is at version 2 again');
  t.is(await host.read(`${web}/key`), 'two');
  await host.ask(['secret', 'rollback', 'key@1']);
  t.is(await host.read(`${web}/key`), 'one');
  await host.ask(['secret', 'update', 'key', '-'], { stdin: 'four' });
  t.is(await host.read(`${web}/key`), 'four');
  t.is((await host.json<{ version: number }[]>(['secret', 'inspect', 'key']))[0]?.version, 4);

  await host.ask(['secret', 'revoke', 'key@4']);
  t.is(await host.read(`${web}/key`), 'No such file or directory');
  await host.ask(['secret', 'rollback', 'key']);
  t.is(await host.read(`${web}/key`), 'three', 'what is revoked is passed over');
  const again = await host.inro(['secret', 'rollback', 'key@4']);
  t.regex(again.stderr, /version 4 of secret "key" is revoked, and never comes back/);

  await eventually('no node holds the older ones', async () => {
    const [secret] = await host.json<{ versions: { nodes: number }[] }[]>(['secret', 'inspect', 'key']);
    return secret?.versions.filter(({ nodes }) => nodes > 0).length === 1;
  });
  t.is(await host.ask(['secret', 'prune', '--keep', '1', 'key']), 'pruned: key@1, key@2');
  const [secret] = await host.json<{ versions: { version: number }[] }[]>(['secret', 'inspect', 'key']);
  t.deepEqual(
    secret?.versions.map(({ version }) => version),
    [3, 4],
    'what is left of a revoked one stays',
  );
  t.regex((await host.inro(['secret', 'rollback', 'key'])).stderr, /has no version before 3 to go back to/);
  t.is(await host.read(`${web}/key`), 'three');
});

scenario('all references and services switch, each set of files in one step', async (t) => {
  const host = await clusterWith(t, { user: 'u1', password: 'p1' });
  const references = ['user', 'password', 'source=password,target=again'].flatMap((one) => ['--secret', one]);
  await host.ask(['service', 'create', '--name', 'web', ...references]);
  await host.ask(['service', 'create', '--name', 'batch', '--secret', 'password']);
  const set = async (): Promise<string> =>
    (await host.sh(`cd -P ${web}/..data && cat user password again`)).stdout;
  t.is(await set(), 'u1p1p1');
  await host.ask(['secret', 'update', 'password', '-'], { stdin: 'p2' });
  t.is(await set(), 'u1p2p2');
  for (const path of ['web/password', 'web/again', 'batch/password'])
    t.is(await host.read(`/run/inro/secrets/${path}`), 'p2');

  // A reader that takes the set as a set never gets a mixture.
  const reading = host.spawn([
    'sh',
    '-c',
    `enough=$PWD/enough
     until [ -e $enough ]; do cd -P ${web}/..data && set=$(cat password again) && echo $set; done 2>/dev/null; echo done`,
  ]);
  for (const value of ['p3', 'p4', 'p5'])
    await host.ask(['secret', 'update', 'password', '-'], { stdin: value });
  await host.sh('touch enough');
  await reading.printed(/done/);
  const sets = new Set(reading.stdout.split('\n').filter((line) => line !== '' && line !== 'done'));
  t.true(sets.size >= 1);
  for (const one of sets) t.regex(one, /^(p[0-9])\1$/);
});

scenario(
  'owner, group and mode of each reference, by number and by name, hold for other users',
  async (t) => {
    const host = await clusterWith(t, { key: 'v' });
    const references = [
      'source=key,target=a,uid=33,gid=65534,mode=0440',
      'source=key,target=b,uid=nobody,gid=daemon,mode=400',
      'source=key,target=c,mode=0',
    ];
    await host.ask(['service', 'create', '--name', 'web', ...references.flatMap((one) => ['--secret', one])]);
    const { stdout } = await host.sh(
      `cd ${web} && stat -c '%n %u %g %a' a b c; stat -c '%n %a' /run/inro/secrets ${web}; id -u nobody; id -g nobody; getent group daemon | cut -d: -f3`,
    );
    t.is(
      stdout,
      `a 33 65534 440\nb 65534 1 400\nc 0 0 0\n/run/inro/secrets 700\n${web} 555\n65534\n65534\n1\n`,
    );

    // What has the service's directory bind-mounted, as a container has, is held to them.
    await host.sh(`mkdir /run/container && mount --bind ${web} /run/container`);
    const as = async (uid: number, gid: number, name: string): Promise<string> => {
      const user = ['setpriv', '--reuid', String(uid), '--regid', String(gid), '--clear-groups'];
      const { stdout: text, stderr } = await host.run([...user, 'cat', `/run/container/${name}`], {
        cwd: '/',
      });
      return text || (stderr.trim().split(': ').at(-1) ?? '');
    };
    t.is(await as(33, 33, 'a'), 'v');
    t.is(await as(12345, 65534, 'a'), 'v');
    t.is(await as(12345, 12345, 'a'), 'Permission denied');
    t.is(await as(65534, 65534, 'b'), 'v');
    t.is(await as(12345, 1, 'b'), 'Permission denied');
    t.is(await as(12345, 1, 'c'), 'Permission denied');
    const closed = await host.run(['setpriv', '--reuid', '33', '--clear-groups', 'ls', web], { cwd: '/' });
    t.regex(closed.stderr, /Permission denied/, 'without a bind mount nobody else gets in');
    await host.sh('umount /run/container');
  },
);

labScenario(
  'a user that the node does not know: the task is REJECTED with words, and the command says so at once',
  async (t) => {
    const host = await clusterWith(t, { key: 'v' });
    const beganMs = Date.now();
    const { code, stderr } = await host.inro([
      'service',
      'create',
      '--name',
      'web',
      '--secret',
      'source=key,uid=who_is_this',
    ]);
    t.true(Date.now() - beganMs < 15_000, 'it does not wait for the 30 s that nodes have');
    t.is(code, 1);
    t.regex(stderr, /host-a +task 1 is REJECTED: this node has no user named "who_is_this"/);
    const [task] = await host.json<Record<string, string>[]>(['service', 'ps', 'web']);
    t.like(task, {
      state: 'REJECTED',
      desiredState: 'SHUTDOWN',
      error: 'this node has no user named "who_is_this"',
    });
    t.like(await status(host), { values: 0 }, 'what only it wanted is not kept');
    t.is((await host.sh(`ls -A ${web} 2>/dev/null`)).stdout, '');

    // Mended, it runs: the command waits for the task that replaces the rejected one.
    const mended = await host.inro([
      'service',
      'update',
      '--secret-rm',
      'key',
      '--secret-add',
      'source=key,uid=nobody',
      'web',
    ]);
    t.is(mended.code, 0, mended.stderr);
    t.is(await host.read(`${web}/key`), 'v');
  },
);

labScenario('a running service that gets a reference which no node can show', async (t) => {
  const host = await clusterWith(t, { key: 'v', other: 'w' });
  await host.ask(['service', 'create', '--name', 'web', '--secret', 'key']);
  const { code, stderr } = await host.inro([
    'service',
    'update',
    '--secret-add',
    'source=other,gid=no_such_group',
    'web',
  ]);
  t.is(code, 1);
  t.regex(stderr, /this node has no group named "no_such_group"/);
  const mended = await host.inro(['service', 'update', '--secret-rm', 'other', 'web']);
  t.is(mended.code, 0, mended.stderr);
  t.is(await host.read(`${web}/key`), 'v');
});

labScenario('scaling up and down', async (t) => {
  const host = await clusterWith(t, { key: 'v' });
  await host.ask(['service', 'create', '--name', 'web', '--secret', 'key']);
  const tasks = async (): Promise<string> =>
    (await host.sh('ls /run/inro/secrets/.task | wc -l')).stdout.trim();
  await host.ask(['service', 'update', '--replicas', '5', 'web']);
  t.is(await tasks(), '5');
  t.is((await status(host)).values, 1, 'one copy, however many tasks use it');
  t.like((await host.json(['service', 'ls']))[0], { replicas: 5, running: 5 });
  await host.ask(['service', 'update', '--replicas', '2', 'web']);
  t.is(await tasks(), '2');
  t.is(await host.read(`${web}/key`), 'v');
  await host.ask(['service', 'update', '--replicas', '0', 'web']);
  t.is(await tasks(), '0');
  t.is(await host.read(`${web}/key`), 'No such file or directory');
  t.deepEqual(await status(host), { values: 0, tasks: [] });
  const ended = await host.json<{ state: string }[]>(['service', 'ps', 'web']);
  t.true(ended.length >= 5 && ended.every(({ state }) => state === 'SHUTDOWN'));
  await host.ask(['service', 'update', '--replicas', '1', 'web']);
  t.is(await host.read(`${web}/key`), 'v');
});

scenario('a service that is removed takes its files; made again, it has them again', async (t) => {
  const host = await clusterWith(t, { key: 'v' });
  await host.ask(['service', 'create', '--name', 'web', '--secret', 'key']);
  const reader = host.spawn([
    'sh',
    '-c',
    `exec 3< ${web}/key; echo opened; until [ -e removed ]; do sleep 0.05; done; cat <&3`,
  ]);
  await reader.printed(/opened/);
  await host.ask(['service', 'rm', 'web']);
  await host.sh('touch removed');
  t.is(await reader.exited, 1);
  // fuse-native loses the handle on fstat(2), which cat begins with: then there is no such file.
  t.regex(reader.stderr, /Stale file handle|No such file or directory/, 'removal has no grace');
  t.is(reader.stdout, 'opened\n');
  t.is((await host.sh(`ls -A ${web}`)).stdout, '');
  t.is((await host.sh(`ls -d ${web}`)).stdout, `${web}\n`, 'its directory stays');
  t.deepEqual(await status(host), { values: 0, tasks: [] });
  t.is((await host.inro(['secret', 'ls', '-q'])).stdout.split('\n').length, 2, 'the secret stays');

  await host.ask(['service', 'create', '--name', 'web', '--secret', 'source=key,target=new']);
  t.is((await host.sh(`ls ${web}`)).stdout, 'new\n');
  t.is(await host.read(`${web}/new`), 'v');
  await host.ask(['service', 'rm', 'web']);
  await host.ask(['secret', 'rm', 'key']);
  t.deepEqual(await host.json(['secret', 'ls']), []);
});

labScenario('a bind mount of a service’s directory lives on while its tasks come and go', async (t) => {
  const host = await clusterWith(t, { key: 'v' });
  await host.ask(['service', 'create', '--name', 'web', '--secret', 'key']);
  await host.sh(`mkdir /run/container && mount --bind ${web} /run/container`);
  t.is(await host.read('/run/container/key'), 'v');
  await host.ask(['secret', 'update', 'key', '-'], { stdin: 'w' });
  t.is(await host.read('/run/container/key'), 'w');
  await host.ask(['service', 'update', '--replicas', '0', 'web']);
  t.is(await host.read('/run/container/key'), 'No such file or directory');
  await host.ask(['service', 'update', '--replicas', '1', 'web']);
  t.is(await host.read('/run/container/key'), 'w');
  await host.sh('umount /run/container');
});

/** A host with manager and agent, and these secrets. */
async function clusterWith(t: ExecutionContext, secrets: Readonly<Record<string, string>>): Promise<Host> {
  const host = await Host.of(t);
  await host.startCluster();
  for (const [name, stdin] of Object.entries(secrets))
    await host.ask(['secret', 'create', name, '-'], { stdin });
  return host;
}

async function status(host: Host) {
  const { arena, tasks } = await host.json<{
    arena: { values: number };
    tasks: { service: string; state: string }[];
  }>(['agent', 'status']);
  return { values: arena.values, tasks: tasks.map(({ service, state }) => ({ service, state })) };
}
