/** Containers that somebody else starts: services as volumes of Docker, and as bind mounts. */
import type { ExecutionContext } from 'ava';
import { Docker, engineSocket } from '../support/docker.js';
import { Host, type Manager } from '../support/host.js';
import { image } from '../support/image.js';
import { eventually } from '../support/inro.js';
import { KeptAgent } from '../support/kept_agent.js';
import { labScenario } from '../support/lab.js';

interface Status {
  pid: number;
  arena: { usedBytes: number };
  tasks: { service: string; attached: { kind: string; name: string; cgroup: string }[] }[];
}

interface Access {
  outcome: string;
  processName: string;
  workload: string;
}

const timeoutMs = 300_000;

async function engineHost(
  t: ExecutionContext,
  { usersAreMapped = false } = {},
): Promise<{ host: Host; docker: Docker; manager: Manager; agent: KeptAgent }> {
  const host = await Host.of(t, { ownNetwork: true });
  const manager = await host.startManager();
  await host.join(await host.ask(['token', 'show', 'worker']), manager.address);
  const agent = await KeptAgent.start(host, ['--docker', engineSocket]);
  if (usersAreMapped) await mapUsers(host);
  const docker = await Docker.on(t, host, usersAreMapped ? ['--userns-remap=nobody:nogroup'] : []);
  await host.ask(['secret', 'create', 'key', '-'], { stdin: 'hunter2' });
  await host.ask(['service', 'create', '--name', 'web', '--secret', 'key']);
  return { host, docker, manager, agent };
}

/** An engine looks there for the users of its containers; the real host's /etc stays as it is. */
async function mapUsers(host: Host): Promise<void> {
  const line =
    "cp -a /etc /run/etc && mount --bind /run/etc /etc && echo 'nobody:100000:65536' > /etc/subuid && echo 'nobody:100000:65536' > /etc/subgid && echo 'nogroup:100000:65536' >> /etc/subgid";
  const { code, stderr } = await host.sh(line);
  if (code !== 0) throw new Error(stderr);
}

const status = (host: Host) => host.json<Status>(['agent', 'status']);
const attached = async (host: Host) =>
  (await status(host)).tasks.flatMap((task) => task.attached.map(({ name }) => name)).sort();

labScenario(
  '1: a container reads with its first action; other containers do not, by whatever way',
  async (t) => {
    const { host, docker } = await engineHost(t);
    const read = () => docker.ask('run', '--rm', ...Docker.volume('web'), image, 'cat', '/run/secrets/key');
    for (let n = 0; n < 5; n++) t.is(await read(), 'hunter2');
    t.deepEqual(await Promise.all([read(), read(), read()]), ['hunter2', 'hunter2', 'hunter2']);
    await eventually('they are detached', async () => (await attached(host)).length === 0);

    await docker.ask('run', '-d', '--name', 'one', ...Docker.volume('web'), image, 'sleep', '1000');
    await docker.ask('run', '-d', '--name', 'two', ...Docker.volume('web'), image, 'sleep', '1000');
    for (const name of ['one', 'two'])
      t.is(await docker.ask('exec', name, 'cat', '/run/secrets/key'), 'hunter2');
    t.deepEqual(await attached(host), ['one', 'two']);

    const folder = '/run/inro/secrets/web:/run/secrets:ro';
    const byPath = await docker.run(
      'run',
      '--rm',
      '--network',
      'none',
      '-v',
      folder,
      image,
      'cat',
      '/run/secrets/key',
    );
    t.regex(byPath.stderr, /Permission denied/);
    const pid = await docker.ask('inspect', '-f', '{{.State.Pid}}', 'one');
    const others = ['run', '--rm', '--name', 'thief', '--network', 'none', '--pid', 'container:one', image];
    const byProc = await docker.run(...others, 'cat', '/proc/1/root/run/secrets/key');
    t.regex(byProc.stderr, /Permission denied/);
    const byRoot = await host.run(['nsenter', '-t', pid, '-m', 'cat', '/run/secrets/key']);
    t.regex(byRoot.stderr, /Permission denied/);
    // Another service's volume is not this one's.
    await host.ask(['service', 'create', '--name', 'db', '--secret', 'key', '--readers', 'attached']);
    const other = await docker.run(
      'run',
      '--rm',
      ...Docker.volume('web'),
      '-v',
      '/run/inro/secrets/db:/db',
      image,
      'cat',
      '/db/key',
    );
    t.regex(other.stderr, /Permission denied/);

    const seen = (await host.json<Access[]>(['agent', 'audit'])).filter(
      ({ outcome }) => outcome !== 'would be cached',
    );
    t.is(seen.filter(({ outcome }) => outcome === 'opened').length, 10);
    t.true(seen.some(({ outcome, workload }) => outcome === 'opened' && workload === 'container two'));
    t.is(seen.filter(({ outcome }) => outcome === 'not attached').length, 4);
    const thief = seen.find(
      ({ outcome, workload }) => outcome === 'not attached' && workload.startsWith('container '),
    );
    t.truthy(thief, 'a container that is not attached is named by its id');
  },
  { timeoutMs },
);

labScenario(
  '2: however a container ends, it is detached, and nothing stays',
  async (t) => {
    const { host, docker } = await engineHost(t);
    const start = (name: string) =>
      docker.ask('run', '-d', '--name', name, ...Docker.volume('web'), image, 'sleep', '1000');
    const gone = () => eventually('it is detached', async () => (await attached(host)).length === 0);
    for (const end of [['kill'], ['stop', '-t', '0'], ['rm', '-f']]) {
      await start('one');
      t.deepEqual(await attached(host), ['one']);
      await docker.ask(...end, 'one');
      await gone();
      await docker.run('rm', '-f', 'one');
    }
    await start('one');
    const pid = await docker.ask('inspect', '-f', '{{.State.Pid}}', 'one');
    await host.run(['kill', '-KILL', pid]);
    await gone();
    await docker.ask('rm', 'one');

    const line =
      'cat /run/secrets/key > /tmp/seen; until [ -e /tmp/go ]; do sleep 1; done; exec tail /dev/zero';
    const memory = ['--memory', '16m', '--memory-swap', '16m'];
    await docker.ask(
      'run',
      '-d',
      '--name',
      'one',
      ...memory,
      ...Docker.volume('web'),
      image,
      'sh',
      '-c',
      line,
    );
    await eventually(
      'it has read',
      async () => (await docker.run('exec', 'one', 'cat', '/tmp/seen')).stdout === 'hunter2',
    );
    await docker.ask('exec', 'one', 'sh', '-c', '> /tmp/go');
    t.is(await docker.ask('wait', 'one'), '137');
    t.is(await docker.ask('inspect', '-f', '{{.State.OOMKilled}}', 'one'), 'true');
    await gone();
    await docker.ask('rm', 'one');
    t.is((await host.run(['cat', '/run/inro/secrets/web/key'])).code, 1, 'nobody reads what was attached to');

    const before = (await status(host)).arena.usedBytes;
    for (let n = 0; n < 15; n++)
      t.is(
        await docker.ask('run', '--rm', ...Docker.volume('web'), image, 'cat', '/run/secrets/key'),
        'hunter2',
      );
    await gone();
    t.is((await status(host)).arena.usedBytes, before);
    t.is(await docker.ask('volume', 'ls', '-q'), 'web');
    await docker.ask('volume', 'rm', 'web');
    t.is(await docker.ask('volume', 'ls', '-q'), '');
  },
  { timeoutMs },
);

labScenario(
  '3: what is wrong is said to whoever starts the container',
  async (t) => {
    const { docker } = await engineHost(t);
    const unknown = await docker.run('run', '--rm', ...Docker.volume('nothing'), image, 'true');
    t.regex(unknown.stderr, /inro: no task of service "nothing" is on this node \('inro agent status' shows/);
    const option = await docker.run('volume', 'create', '-d', 'inro', '-o', 'colour=red', 'web');
    t.regex(option.stderr, /inro: there is no volume option "colour" \(the only one is service=NAME/);
    await docker.ask('volume', 'create', '-d', 'inro', '-o', 'service=web', 'mine');
    t.is(
      await docker.ask('run', '--rm', ...Docker.volume('mine'), image, 'cat', '/run/secrets/key'),
      'hunter2',
    );
  },
  { timeoutMs },
);

labScenario(
  '4: a restart of the container, the manager away, a killed agent, a killed engine: it reads on, and others do not',
  async (t) => {
    const { host, docker, manager, agent } = await engineHost(t);
    await docker.ask('run', '-d', '--name', 'one', ...Docker.volume('web'), image, 'sleep', '1000');
    const read = () => docker.ask('exec', 'one', 'cat', '/run/secrets/key');
    await manager.kill9();
    await docker.ask('restart', '-t', '0', 'one');
    t.is(await read(), 'hunter2');
    for (let n = 0; n < 3; n++) {
      await agent.killAndWait();
      t.is(await read(), 'hunter2');
      t.is(await host.read('/run/inro/secrets/web/key'), 'Permission denied');
      t.deepEqual(await attached(host), ['one']);
    }
    t.is(
      await docker.ask('run', '--rm', ...Docker.volume('web'), image, 'cat', '/run/secrets/key'),
      'hunter2',
    );

    await docker.kill9();
    await docker.start();
    await docker.ask('restart', '-t', '0', 'one');
    t.is(await read(), 'hunter2');
    await eventually('it alone is attached', async () => (await attached(host)).join() === 'one');
    await docker.ask('rm', '-f', 'one');
    await eventually('it is detached', async () => (await attached(host)).length === 0);
  },
  { timeoutMs },
);

labScenario(
  '5: a rotation and a revocation reach a container that runs',
  async (t) => {
    const { host, docker } = await engineHost(t);
    await docker.ask('run', '-d', '--name', 'one', ...Docker.volume('web'), image, 'sleep', '1000');
    const read = () => docker.run('exec', 'one', 'cat', '/run/secrets/key');
    t.is((await read()).stdout, 'hunter2');
    await host.ask(['secret', 'update', 'key', '-'], { stdin: 'hunter3' });
    t.is((await read()).stdout, 'hunter3');
    await host.ask(['secret', 'revoke', 'key']);
    t.regex((await read()).stderr, /No such file or directory/);
    t.is(await docker.ask('inspect', '-f', '{{.State.Running}}', 'one'), 'true');
  },
  { timeoutMs },
);

labScenario(
  '6: a bind mount by hand, for a service that lets anybody read: as root, as a user, read-only',
  async (t) => {
    const { host, docker } = await engineHost(t);
    const own = 'source=key,target=own,uid=1000,mode=0400';
    await host.ask([
      'service',
      'create',
      '--name',
      'open',
      '--readers',
      'any',
      '--secret',
      'key',
      '--secret',
      own,
    ]);
    const folder = ['--rm', '--network', 'none', '-v', '/run/inro/secrets/open:/run/secrets:ro'];
    const read = (file: string, ...more: string[]) =>
      docker.run('run', ...folder, ...more, image, 'cat', `/run/secrets/${file}`);
    t.is((await read('key')).stdout, 'hunter2');
    t.is((await read('key', '--user', '1000')).stdout, 'hunter2');
    t.is((await read('own', '--user', '1000')).stdout, 'hunter2');
    t.regex((await read('own', '--user', '1001')).stderr, /Permission denied/);
    t.is((await read('key', '--read-only', '--cap-drop', 'ALL')).stdout, 'hunter2');
    const written = await docker.run('run', ...folder, image, 'sh', '-c', 'echo x > /run/secrets/key');
    t.regex(written.stderr, /Read-only file system/);
  },
  { timeoutMs },
);

labScenario(
  '7: where the engine maps its containers\u2019 users (userns-remap): as a volume, by a bind mount, and what inro runs',
  async (t) => {
    const { host, docker } = await engineHost(t, { usersAreMapped: true });
    const map = await docker.ask('run', '--rm', '--network', 'none', image, 'cat', '/proc/self/uid_map');
    t.deepEqual(map.trim().split(/ +/), ['0', '100000', '65536']);
    t.is(
      await docker.ask('run', '--rm', ...Docker.volume('web'), image, 'cat', '/run/secrets/key'),
      'hunter2',
    );
    await eventually('it is detached', async () => (await attached(host)).length === 0);

    // Owners are the host's: root of the container is 100000 there.
    const rooted = 'source=key,target=rooted,uid=100000,gid=100000,mode=0400';
    const hosts = 'source=key,target=hosts,mode=0400';
    const refs = ['key', rooted, hosts].flatMap((one) => ['--secret', one]);
    await host.ask(['service', 'create', '--name', 'open', '--readers', 'any', ...refs]);
    const folder = ['--rm', '--network', 'none', '-v', '/run/inro/secrets/open:/run/secrets:ro'];
    const read = (file: string, ...more: string[]) =>
      docker.run('run', ...folder, ...more, image, 'cat', `/run/secrets/${file}`);
    for (const more of [[], ['--user', '1000'], ['--read-only', '--cap-drop', 'ALL']])
      t.is((await read('key', ...more)).stdout, 'hunter2');
    t.is((await read('rooted')).stdout, 'hunter2');
    t.regex((await read('rooted', '--user', '1000')).stderr, /Permission denied/);
    t.regex((await read('hosts')).stderr, /Permission denied/);
    const listed = await docker.ask('run', ...folder, image, 'ls', '-ln', '/run/secrets/');
    t.regex(listed, / 0 +0 .* rooted$/m);
    t.regex(listed, / 65534 +65534 .* hosts$/m);

    const line = 'cat /run/secrets/key > /tmp/seen; exec sleep 1000';
    const shown = ['--network', 'none', '--stop-grace-period', '1', '--secret', 'key', image];
    await host.ask(['service', 'create', '--name', 'run', ...shown, 'sh', '-c', line]);
    const container = await docker.ask('ps', '-q', '--filter', 'label=inro.service=run');
    await eventually(
      'it has read',
      async () => (await docker.run('exec', container, 'cat', '/tmp/seen')).stdout === 'hunter2',
    );
    t.is(await host.read('/run/inro/secrets/run/key'), 'Permission denied');
    await host.ask(['service', 'rm', 'run']);
    t.is(await docker.ask('ps', '-aq'), '');
  },
  { timeoutMs },
);
