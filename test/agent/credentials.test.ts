/**
 * Secrets as credentials of units, asked for as systemd asks (test/support/credential_client.py): who gets which, and that who does
 * not get it gets more than systemd takes, never an empty or a cut value. test/e2e/17_credentials.test.ts has systemd itself.
 */
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, lstatSync, mkdirSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { Host, scenario } from '../support/host.js';
import { labScenario } from '../support/lab.js';
import { eventually, refused, type Daemon } from '../support/inro.js';
import { KeptAgent } from '../support/kept_agent.js';
import { kernelCallsFolder } from '../support/kernel_calls.js';
import { Markers, scanMemory } from '../support/marker_scan.js';
import { readableUnread } from '../support/marked_cluster.js';

const socket = '/run/inro/credentials.sock';
const unified = '/sys/fs/cgroup/unified';
const client = join(kernelCallsFolder, 'credential_client.py');
const maxBytes = 2 ** 20;

interface Answer {
  bytes?: number;
  sha256?: string;
  text?: string;
  error?: string;
  words?: string;
}

interface Status {
  pid: number;
  credentials: { path: string; notServed: string };
  tasks: { service: string; unit: string; attached: { kind: string; name: string; cgroup: string }[] }[];
}

interface Access {
  outcome: string;
  secret: string;
  version: number;
  service: string;
  target: string;
  uid: number;
  processId: number;
  workload: string;
}

const command = (unit: string, id: string, ...options: string[]) => [
  'python3',
  client,
  socket,
  unit,
  id,
  ...options,
];

async function ask(host: Host, unit: string, id: string, ...options: string[]): Promise<Answer> {
  const { stdout, stderr } = await host.run(command(unit, id, ...options));
  if (stdout === '') throw new Error(stderr);
  return JSON.parse(stdout) as Answer;
}

function isRefused(t: ExecutionContext, answer: Answer, words: RegExp): void {
  t.is(answer.bytes, maxBytes + 1);
  t.is(answer.error, 'larger than 1 MiB');
  t.regex(answer.words ?? '', words);
}

async function clusterWith(t: ExecutionContext): Promise<Host> {
  const host = await Host.of(t);
  await host.startCluster();
  await host.ask(['secret', 'create', 'key', '-'], { stdin: 'hunter2' });
  return host;
}

const attached = async (host: Host) =>
  (await host.json<Status>(['agent', 'status'])).tasks.flatMap((task) =>
    task.attached.map(({ kind, name }) => `${task.service}: ${kind} ${name}`),
  );

scenario('a unit gets the files of the service that is bound to it, and nothing else', async (t) => {
  const host = await clusterWith(t);
  await host.ask(['secret', 'create', 'other', '-'], { stdin: 'not yours' });
  await host.ask([
    'service',
    'create',
    '--name',
    'web',
    '--unit',
    'nginx',
    '--secret',
    'source=key,target=db',
  ]);
  await host.ask(['service', 'create', '--name', 'mail', '--unit', 'exim4.service', '--secret', 'other']);
  await host.ask(['service', 'create', '--name', 'plain', '--secret', 'other']);
  const { mode } = lstatSync(host.outside(socket));
  t.is(mode & 0o777, 0o600);
  const { credentials, tasks } = await host.json<Status>(['agent', 'status']);
  t.deepEqual(credentials, { path: socket, notServed: '' });
  t.deepEqual(tasks.map(({ service, unit }) => [service, unit]).sort(), [
    ['mail', 'exim4.service'],
    ['plain', ''],
    ['web', 'nginx.service'],
  ]);

  t.like(await ask(host, 'nginx.service', 'db'), { bytes: 7, text: 'hunter2' });
  t.like(await ask(host, 'exim4.service', 'other'), { text: 'not yours' });
  isRefused(
    t,
    await ask(host, 'nginx.service', 'other'),
    /^inro: service "web" gives unit "nginx.service" no "other"$/,
  );
  isRefused(t, await ask(host, 'nginx.service', 'key'), /no "key"/);
  isRefused(
    t,
    await ask(host, 'cron.service', 'db'),
    /^inro: no service with unit "cron.service" has a task on this node/,
  );
  isRefused(t, await ask(host, 'nginx', 'db'), /no service with unit/);
  // Nobody who is not systemd, under whatever address.
  for (const address of [
    '-',
    'nginx.service/db',
    '1/unit/nginx.service',
    '1/unit/nginx.service/',
    '/unit/nginx.service/db',
    'xyz/unit/nginx.service/db',
    '12345678901234567/unit/nginx.service/db',
  ])
    isRefused(t, await ask(host, '', '', `address=${address}`), /no unit asks here/);
  t.like(await ask(host, 'nginx.service', 'db', 'uid=65534'), { error: 'Permission denied' });
  await host.sh(`chmod 666 ${socket} && chmod 755 /run/inro`);
  isRefused(t, await ask(host, 'nginx.service', 'db', 'uid=65534'), /user 65534 may not ask/);

  const seen = await host.json<Access[]>(['agent', 'audit']);
  t.deepEqual(
    seen
      .slice(0, 4)
      .map(({ outcome, secret, version, service, target, uid, workload }) =>
        [outcome, `${secret}@${version}`, service, target, uid, workload].join(' '),
      ),
    [
      'opened key@1 web db 0 unit nginx.service',
      'opened other@1 mail other 0 unit exim4.service',
      'no such target @0  other 0 unit nginx.service',
      'no such target @0  key 0 unit nginx.service',
    ],
  );
  t.true(seen.every(({ processId }) => processId > 0));
  t.regex(await host.ask(['agent', 'audit']), /not bound +\(db\) +- +0 +python3\[\d+\] +unit cron.service/);
  t.is(seen.at(-1)?.uid, 65_534);
});

labScenario('the service changes: another unit, a new version, a revoke, an end', async (t) => {
  const host = await clusterWith(t);
  await host.ask(['service', 'create', '--name', 'web', '--secret', 'key']);
  isRefused(t, await ask(host, 'app@1.service', 'key'), /no service with unit/);
  await host.ask(['service', 'update', '--unit', 'app@', 'web']);
  t.like(await ask(host, 'app@1.service', 'key'), { text: 'hunter2' });
  // Who is bound to the instance goes first.
  await host.ask(['secret', 'create', 'second', '-'], { stdin: 'for two' });
  await host.ask([
    'service',
    'create',
    '--name',
    'two',
    '--unit',
    'app@2',
    '--secret',
    'source=second,target=key',
  ]);
  t.like(await ask(host, 'app@2.service', 'key'), { text: 'for two' });
  t.like(await ask(host, 'app@3.service', 'key'), { text: 'hunter2' });
  await host.ask(['service', 'update', '--unit-rm', 'two']);
  t.like(await ask(host, 'app@2.service', 'key'), { text: 'hunter2' });

  await host.ask(['secret', 'update', 'key', '-'], { stdin: 'hunter3' });
  t.like(await ask(host, 'app@1.service', 'key'), { text: 'hunter3' });
  await host.inro(['secret', 'revoke', 'key']);
  isRefused(t, await ask(host, 'app@1.service', 'key'), /gives unit "app@1.service" no "key" \(.*revoked/);
  await host.ask(['secret', 'update', 'key', '-'], { stdin: 'hunter4' });
  t.like(await ask(host, 'app@1.service', 'key'), { text: 'hunter4' });
  await host.ask(['service', 'update', '--replicas', '0', 'web']);
  isRefused(t, await ask(host, 'app@1.service', 'key'), /no service with unit/);
});

labScenario('two services cannot have one unit on one node; on two nodes they can', async (t) => {
  const host = await clusterWith(t);
  const create = (name: string, ...options: string[]) =>
    host.inro(['service', 'create', '--detach', '--name', name, '--unit', 'nginx', ...options]);
  t.is((await create('a', '--constraint', 'node.labels.at==one')).code, 0);
  t.is((await create('b', '--constraint', 'node.labels.at==two')).code, 0);
  t.is(
    (await create('c', '--constraint', 'node.labels.at!=one', '--constraint', 'node.labels.at!=two')).code,
    0,
  );
  refused(t, await create('d'), 1, /unit "nginx.service" gets the secrets of service "a" already/);
  refused(t, await create('d', '--constraint', 'node.labels.at==two'), 1, /of service "b" already/);
  refused(
    t,
    await host.inro(['service', 'update', '--constraint-rm', 'node.labels.at==one', 'a']),
    1,
    /of service "b" already/,
  );
  await host.ask(['service', 'rm', 'a', 'c']);
  t.is((await create('d', '--constraint', 'node.labels.at!=two')).code, 0);
  refused(t, await create('e', '--unit', 'a b'), 2, /unit name "a b" is not valid/);
  refused(t, await create('e', '--unit', 'x.timer'), 2, /runs no program/);
  const long = `${'a'.repeat(60)}.service`;
  refused(
    t,
    await create('e', '--unit', long, '--secret', `source=key,target=${'b'.repeat(16)}`),
    2,
    /83 bytes/,
  );
  const both = await host.inro(['service', 'update', '--unit', 'x', '--unit-rm', 'd']);
  t.is(both.code, 2);
  t.regex(both.stderr, /cannot be used with/);
});

labScenario('a value of 1 MiB comes whole, to many at once, beside one who does not read', async (t) => {
  const host = await clusterWith(t);
  const value = randomBytes(maxBytes);
  await host.ask(['secret', 'create', 'large', '-'], { stdin: value });
  await host.ask(['service', 'create', '--name', 'web', '--unit', 'nginx', '--secret', 'large']);
  const slow = host.spawn(command('nginx.service', 'large', 'reads=later'), { talks: true });
  await slow.printed(/^connected$/m);
  const sha256 = createHash('sha256').update(value).digest('hex');
  const answers = await Promise.all(Array.from({ length: 20 }, () => ask(host, 'nginx.service', 'large')));
  for (const answer of answers) t.like(answer, { bytes: maxBytes, sha256 });
  slow.say('read');
  t.is(await slow.exited, 0);
  t.like(JSON.parse(slow.stdout.split('\n')[1] ?? '') as Answer, { bytes: maxBytes, sha256 });
  // Wiped while it is on its way: the unit does not start with the half of it.
  const half = host.spawn(command('nginx.service', 'large', 'reads=later'), { talks: true });
  await half.printed(/^connected$/m);
  await eventually('it is given', async () => (await host.json<Access[]>(['agent', 'audit'])).length === 22);
  await host.inro(['secret', 'revoke', 'large']);
  half.say('read');
  t.is(await half.exited, 0);
  t.like(JSON.parse(half.stdout.split('\n')[1] ?? '') as Answer, {
    bytes: maxBytes + 1,
    error: 'larger than 1 MiB',
  });
});

labScenario('a unit with a cgroup of its own is attached, once, until the cgroup is empty', async (t) => {
  const host = await clusterWith(t);
  await host.ask(['secret', 'create', 'second', '-'], { stdin: 'x' });
  await host.ask([
    'service',
    'create',
    '--name',
    'web',
    '--unit',
    'nginx',
    '--secret',
    'key',
    '--secret',
    'second',
  ]);
  t.like(await ask(host, 'nginx.service', 'key'), { text: 'hunter2' });
  t.deepEqual(await attached(host), [], 'it has no cgroup of its own');
  const cgroup = join(unified, `inro-credentials-${process.pid}`);
  mkdirSync(cgroup);
  t.teardown(() => existsSync(cgroup) && rmdirSync(cgroup));
  const starting: Daemon[] = ['key', 'second'].map((id) =>
    host.spawn(command('nginx.service', id, `cgroup=${cgroup}`, 'stays=1'), { talks: true }),
  );
  for (const one of starting) await one.printed(/"bytes"/);
  t.deepEqual(await attached(host), ['web: unit nginx.service']);
  t.is(await host.read('/run/inro/secrets/web/key'), 'Permission denied');
  t.regex(
    await host.ask(['agent', 'status']),
    /unit nginx\.service +web +a few seconds ago +\/inro-credentials/,
  );
  await starting[0]?.hangUp();
  await starting[1]?.hangUp();
  await eventually('it is detached', async () => (await attached(host)).length === 0);
});

scenario(
  'who asks while no agent runs waits for the next; at a start until it is known what is to be here',
  async (t) => {
    const host = await Host.of(t);
    const manager = await host.startManager();
    await host.join(await host.ask(['token', 'show', 'worker']), manager.address);
    const agent = await KeptAgent.start(host);
    await host.ask(['secret', 'create', 'key', '-'], { stdin: 'hunter2' });
    await host.ask(['service', 'create', '--name', 'web', '--unit', 'nginx', '--secret', 'key']);
    t.deepEqual(agent.kept, ['inro-arena', 'inro-credentials', 'inro-mount']);
    await manager.kill9();
    for (let round = 0; round < 3; round++) {
      await agent.order({ restarts: false });
      await agent.kill();
      const waiting = host.spawn(command('nginx.service', 'key', 'reads=later'), { talks: true });
      await waiting.printed(/^connected$/m);
      waiting.say('read');
      await agent.order({ start: true, restarts: true });
      t.is(await waiting.exited, 0);
      t.like(JSON.parse(waiting.stdout.split('\n')[1] ?? '') as Answer, { text: 'hunter2' });
      await agent.untilReady();
    }
    // What is stopped leaves nothing.
    await agent.order({ restarts: false });
    const exits = agent.exits.length;
    await host.ask(['agent', 'stop']);
    await eventually('it has ended', async () => agent.exits.length > exits);
    t.false(existsSync(host.outside(socket)));
    t.like(await ask(host, 'nginx.service', 'key'), { error: 'No such file or directory' });

    // A new one holds nothing: who asks waits until a manager has spoken.
    const next = await host.startAgent({ connected: false });
    const waiting = host.spawn(command('nginx.service', 'key'));
    const again = await host.startManager({ listen: manager.address });
    t.is(await waiting.exited, 0, waiting.stderr);
    t.like(JSON.parse(waiting.stdout) as Answer, { text: 'hunter2' });
    // Another program takes over by hand, with the socket.
    const taker = host.start(['agent', 'run', '--takeover']);
    await taker.printed(/"agent is ready"/);
    t.is(await next.exited, 0);
    t.like(await ask(host, 'nginx.service', 'key'), { text: 'hunter2' });
    t.is(await taker.stop(), 0);
    t.false(existsSync(host.outside(socket)));
    await again.stop();
  },
);

labScenario('another program at the socket is left alone, and said; a dead socket is replaced', async (t) => {
  const host = await Host.of(t);
  const manager = await host.startManager();
  await host.join(await host.ask(['token', 'show', 'worker']), manager.address);
  await host.sh('mkdir -p /run/inro');
  const other = host.spawn(
    [
      'python3',
      '-c',
      `import socket\ns = socket.socket(socket.AF_UNIX); s.bind('${socket}'); s.listen(9); print('listening', flush=True); input()`,
    ],
    { talks: true },
  );
  await other.printed(/listening/);
  const agent = await host.startAgent();
  const { credentials } = await host.json<Status>(['agent', 'status']);
  t.deepEqual(credentials, { path: socket, notServed: 'another program listens there' });
  await agent.stop();
  t.true(existsSync(host.outside(socket)), 'it is not ours to remove');
  await other.kill9();
  await (await host.startAgent()).stop();
  t.false(existsSync(host.outside(socket)));
});

scenario('no value stays in the memory of the agent that has given it', async (t) => {
  const host = await Host.of(t);
  const manager = await host.startManager();
  await host.join(await host.ask(['token', 'show', 'worker']), manager.address);
  const agent = await host.startAgent();
  const markers = new Markers();
  const values = {
    small: markers.value('small', 16),
    medium: markers.value('medium', 3_000),
    large: markers.value('large', maxBytes),
  };
  for (const [name, value] of Object.entries(values))
    await host.ask(['secret', 'create', name, '-'], { stdin: value });
  const secrets = Object.keys(values).flatMap((name) => ['--secret', name]);
  await host.ask(['service', 'create', '--name', 'web', '--unit', 'nginx', ...secrets]);
  const look = async (when: string) => {
    const { findings, unreadable } = await scanMemory(agent.pid, markers);
    t.deepEqual(findings, [], when);
    t.deepEqual(readableUnread(unreadable), [], when);
  };
  for (let round = 0; round < 5; round++)
    for (const [id, value] of Object.entries(values))
      t.is((await ask(host, 'nginx.service', id)).sha256, createHash('sha256').update(value).digest('hex'));
  await look('afterwards');
  const slow = host.spawn(command('nginx.service', 'large', 'reads=later'), { talks: true });
  await slow.printed(/^connected$/m);
  await eventually('it is given', async () => (await host.json<Access[]>(['agent', 'audit'])).length === 16);
  await look('while one is on its way');
  slow.say('read');
  t.is(await slow.exited, 0);
});
