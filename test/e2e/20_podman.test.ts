/** Containers of Podman: bind mounts by hand, and those that inro starts through its API. */
import type { ExecutionContext } from 'ava';
import { Host } from '../support/host.js';
import { image } from '../support/image.js';
import { eventually } from '../support/inro.js';
import { KeptAgent } from '../support/kept_agent.js';
import { labScenario } from '../support/lab.js';
import { Podman, podmanSocket } from '../support/podman.js';

const timeoutMs = 300_000;
const secret = 'a-value-that-nobody-may-find';

async function podmanHost(t: ExecutionContext): Promise<{ host: Host; podman: Podman; agent: KeptAgent }> {
  const host = await Host.of(t, { ownNetwork: true });
  const manager = await host.startManager();
  const podman = await Podman.on(t, host);
  await podman.serve();
  await host.join(await host.ask(['token', 'show', 'worker']), manager.address);
  const agent = await KeptAgent.start(host, ['--docker', podmanSocket]);
  await host.ask(['secret', 'create', 'key', '-'], { stdin: secret });
  return { host, podman, agent };
}

interface TaskLine {
  id: string;
  state: string;
  error: string;
}

const create = (name: string, ...more: string[]) => [
  'service',
  'create',
  '--name',
  name,
  '--secret',
  'key',
  '--network',
  'none',
  ...more,
];
const revision = async (host: Host): Promise<number> =>
  (await host.json<{ session: { revision: number } }>(['agent', 'status'])).session.revision;
const tasks = (host: Host, service: string) => host.json<TaskLine[]>(['service', 'ps', service]);

labScenario(
  '1: a bind mount by hand, for a service that lets anybody read: as root, as a user, read-only, with mapped users',
  async (t) => {
    const { host, podman } = await podmanHost(t);
    const own = (uid: string) => ['--secret', `source=key,target=of-${uid},uid=${uid},gid=${uid},mode=0400`];
    const references = ['--secret', 'key', ...own('1000'), ...own('101000')];
    await host.ask(['service', 'create', '--name', 'open', '--readers', 'any', ...references]);
    const folder = ['--rm', '--network', 'none', '-v', '/run/inro/secrets/open:/run/secrets:ro'];
    const run = (more: readonly string[], ...command: string[]) =>
      podman.run('run', ...folder, ...more, image, ...command);
    const read = async (file: string, ...more: string[]) => {
      const { code, stdout, stderr } = await run(more, 'cat', `/run/secrets/${file}`);
      return code === 0 ? stdout : (stderr.trimEnd().split(': ').at(-1) ?? '');
    };
    /** Mode, owner and group of each file. */
    const seen = async (...more: string[]) =>
      (await run(more, 'ls', '-ln', '/run/secrets')).stdout
        .split('\n')
        .filter((line) => line.startsWith('-'))
        .map((line) => line.split(/\s+/))
        .map(([mode, , uid, gid]) => `${mode} ${uid} ${gid}`);

    t.is(await read('key'), secret);
    t.is(await read('key', '--user', '1000'), secret);
    t.is(await read('of-1000', '--user', '1000'), secret);
    t.is(await read('of-1000', '--user', '1001'), 'Permission denied');
    t.is(await read('key', '--read-only', '--cap-drop', 'ALL'), secret);
    t.deepEqual(await seen(), ['-r--r--r-- 0 0', '-r-------- 1000 1000', '-r-------- 101000 101000']);
    const written = await run([], 'sh', '-c', 'echo x > /run/secrets/key');
    t.regex(written.stderr, /Read-only file system/);

    const mapped = ['--uidmap', '0:100000:65536'];
    t.is(await read('key', ...mapped), secret);
    t.is(await read('key', ...mapped, '--user', '1000', '--read-only'), secret);
    t.is(await read('of-101000', ...mapped, '--user', '1000'), secret);
    t.is(await read('of-1000', ...mapped, '--user', '1000'), 'Permission denied');
    t.deepEqual(await seen(...mapped), [
      '-r--r--r-- 65534 65534',
      '-r-------- 65534 65534',
      '-r-------- 1000 1000',
    ]);
  },
  { timeoutMs },
);

labScenario(
  '2: a container that inro starts reads its secrets, nobody else does, and it ends with its service',
  async (t) => {
    const { host, podman, agent } = await podmanHost(t);
    const line = 'cat /run/secrets/key > /tmp/seen; exec sleep 1000';
    await host.ask(create('web', '--stop-grace-period', '1', image, 'sh', '-c', line));
    const [task] = await tasks(host, 'web');
    t.like(task, { state: 'RUNNING', error: '' });
    const container = `web.1.${task?.id ?? ''}`;
    await eventually(
      'its first process has read',
      async () => (await podman.run('exec', container, 'cat', '/tmp/seen')).stdout === secret,
    );
    const read = () => podman.ask('exec', container, 'cat', '/run/secrets/key');
    t.is(await read(), secret);
    t.is(await host.read('/run/inro/secrets/web/key'), 'Permission denied');
    const folder = ['--network', 'none', '-v', '/run/inro/secrets/web:/run/secrets:ro'];
    const other = ['run', '--rm', ...folder, image, 'cat', '/run/secrets/key'];
    t.regex((await podman.run(...other)).stderr, /Permission denied/);
    const joined = ['run', '--rm', '--network', 'none', '--pid', `container:${container}`, image];
    t.regex((await podman.run(...joined, 'cat', '/proc/1/root/run/secrets/key')).stderr, /Permission denied/);
    const pid = await podman.ask('inspect', '-f', '{{.State.Pid}}', container);
    const byRoot = await host.run(['nsenter', '-t', pid, '-m', 'cat', '/run/secrets/key']);
    t.regex(byRoot.stderr, /Permission denied/);
    for (const kept of [
      ['inspect', container],
      ['image', 'inspect', image],
      ['logs', container],
    ])
      t.false((await podman.ask(...kept)).includes(secret), kept.join(' '));

    await agent.killAndWait();
    t.is(await read(), secret);
    await podman.kill9();
    await podman.serve();
    await host.ask(['secret', 'update', 'key', '-'], { stdin: 'another' });
    t.is(await read(), 'another');
    await eventually('the successor has its assignment', async () => (await revision(host)) > 0);
    t.is((await tasks(host, 'web'))[0]?.id, task?.id);
    await host.ask(['service', 'rm', 'web']);
    await eventually('the container is gone', async () => (await podman.ask('ps', '-aq')) === '');
  },
  { timeoutMs },
);

labScenario(
  '3: how a container ends is how its task does, and what cannot be run says why',
  async (t) => {
    const { host, podman } = await podmanHost(t);
    const once = ['--restart-condition', 'none'];
    const ended = async (service: string, state: string) => {
      await eventually(
        `${service} is ${state}`,
        async () => (await tasks(host, service))[0]?.state === state,
      );
      return (await tasks(host, service)).map(({ error }) => error);
    };
    await host.inro(create('fails', ...once, image, 'sh', '-c', 'exit 3'));
    t.deepEqual(await ended('fails', 'FAILED'), ['exit code 3']);
    await host.ask(create('job', '--restart-condition', 'on-failure', image, 'true'));
    t.deepEqual(await ended('job', 'COMPLETE'), ['']);
    const missing = await host.inro(create('bad', ...once, 'localhost/no-such-image:1'));
    t.regex(missing.stderr, /REJECTED: image localhost\/no-such-image:1 cannot be pulled: /);
    const broken = await host.inro(create('worse', ...once, image, '/no/such/program'));
    t.regex(broken.stderr, /REJECTED: the container engine says: .*no such file/);
    const line = 'until [ -e /tmp/go ]; do sleep 1; done; exec tail /dev/zero';
    await host.ask(create('greedy', ...once, image, 'sh', '-c', line));
    const greedy = await podman.ask('ps', '-q');
    await podman.ask('update', '--memory', '16m', '--memory-swap', '16m', greedy);
    await podman.ask('exec', greedy, 'sh', '-c', '> /tmp/go');
    // Podman does not know everywhere that it was the memory.
    t.regex(
      (await ended('greedy', 'FAILED')).join(),
      /^(exit code 137|the container was killed: out of memory)$/,
    );
    await eventually('none is left', async () => (await podman.ask('ps', '-aq')) === '');

    await host.ask(create('web', image, 'sleep', '1000'));
    await podman.ask('kill', await podman.ask('ps', '-q'));
    await eventually('another takes its place', async () => {
      const [newest, before] = await tasks(host, 'web');
      return newest?.state === 'RUNNING' && before?.error === 'exit code 137';
    });
  },
  { timeoutMs },
);

labScenario(
  '4: a changed secret signals a container, or restarts it in its place: the task goes on',
  async (t) => {
    const { host, podman } = await podmanHost(t);
    const told = "trap 'cat /run/secrets/key > /tmp/seen' HUP; while :; do sleep 1; done";
    await host.ask(create('told', '--on-change', 'signal=HUP', image, 'sh', '-c', told));
    const anew = 'cat /run/secrets/key; echo; exec sleep 1000';
    const restarts = ['--on-change', 'restart', '--stop-grace-period', '1'];
    await host.ask(create('anew', ...restarts, image, 'sh', '-c', anew));
    const containerOf = (name: string) => podman.ask('ps', '-q', '--filter', `label=inro.service=${name}`);
    const [first, second] = [await containerOf('told'), await containerOf('anew')];
    const [task] = await tasks(host, 'anew');
    await host.ask(['secret', 'update', 'key', '-'], { stdin: 'the next one' });
    await eventually(
      'one has been told',
      async () => (await podman.run('exec', first, 'cat', '/tmp/seen')).stdout === 'the next one',
    );
    await eventually(
      'the other one has begun anew',
      async () => (await podman.ask('logs', second)) === `${secret}\nthe next one`,
    );
    t.is(await containerOf('anew'), second);
    await eventually('it is said', async () =>
      (await host.ask(['service', 'ps', 'anew'])).includes(' restart '),
    );
    t.deepEqual(
      (await tasks(host, 'anew')).map(({ id, state }) => [id, state]),
      [[task?.id, 'RUNNING']],
    );
  },
  { timeoutMs },
);

labScenario(
  '5: a service is a volume of Podman: the hook attaches its containers before they begin, and nobody else reads',
  async (t) => {
    const { host, podman, agent } = await podmanHost(t);
    const attached = async () => {
      const { tasks: shown } = await host.json<{ tasks: { attached: { name: string }[] }[] }>([
        'agent',
        'status',
      ]);
      return shown.flatMap((task) => task.attached.map(({ name }) => name)).toSorted();
    };
    const create = ['service', 'create', '--secret', 'key', '--readers', 'attached', '--name'];
    await host.ask([...create, 'web']);
    await host.ask([...create, 'other']);
    for (const volume of ['web', 'other', 'gone'])
      await podman.ask('volume', 'create', '--driver', 'inro', volume);
    const run = (volume: string, ...more: string[]) => [
      'run',
      '--network',
      'none',
      '-v',
      `${volume}:/run/secrets`,
      ...more,
    ];
    const cat = [image, 'cat', '/run/secrets/key'];

    const early = await podman.run(...run('web', '--rm'), ...cat);
    t.regex(
      early.stderr,
      /Podman does not run the hook that says which container a volume is for \(inro agent oci-hook --print > /,
    );
    t.is(early.stdout, '');
    await podman.installHook();

    // Its very first read is let through, round after round.
    for (let round = 0; round < 10; round++)
      t.is(await podman.ask(...run('web', '--rm'), ...cat), secret, `round ${round}`);
    t.is(
      await podman.ask(...run('web', '--rm', '--user', '1000', '--read-only', '--cap-drop', 'ALL'), ...cat),
      secret,
    );
    t.is(
      await podman.ask(
        'run',
        '--network',
        'none',
        '-v',
        'web:/run/secrets:ro,noexec',
        '--rm',
        '--uidmap',
        '0:100000:65536',
        ...cat,
      ),
      secret,
    );

    const long = [
      '-d',
      '--stop-timeout',
      '1',
      image,
      'sh',
      '-c',
      'cat /run/secrets/key > /tmp/seen; exec sleep 1000',
    ];
    const first = await podman.ask(...run('web', '--name', 'first'), ...long);
    const second = await podman.ask(...run('web', '--name', 'second'), ...long);
    const third = await podman.ask(...run('other', '--name', 'third'), ...long);
    await eventually('they alone are attached', async () => {
      const wanted = [first, second, third].map((id) => id.slice(0, 12)).toSorted();
      return JSON.stringify(await attached()) === JSON.stringify(wanted);
    });
    const read = (container: string) => podman.ask('exec', container, 'cat', '/run/secrets/key');
    t.is(await read('first'), secret);
    t.is(await read('second'), secret);
    t.is(await host.read('/run/inro/secrets/web/key'), 'Permission denied');
    const pid = await podman.ask('inspect', '-f', '{{.State.Pid}}', 'first');
    const byRoot = await host.run(['nsenter', '-t', pid, '-m', 'cat', '/run/secrets/key']);
    t.regex(byRoot.stderr, /Permission denied/);
    const joined = ['run', '--rm', '--network', 'none', '--pid', 'container:first', image];
    t.regex((await podman.run(...joined, 'cat', '/proc/1/root/run/secrets/key')).stderr, /Permission denied/);
    const spy = await podman.run(
      ...run('other', '--rm', '--pid', 'container:first'),
      image,
      'cat',
      '/proc/1/root/run/secrets/key',
    );
    t.regex(spy.stderr, /Permission denied/);

    // One that ends lets the other be; a killed agent, Podman's restart, and a manager that is away change nothing.
    await podman.ask('stop', 'second');
    await eventually('it is detached', async () => !(await attached()).includes(second.slice(0, 12)));
    t.is(await read('first'), secret);
    await agent.killAndWait();
    t.is(await read('first'), secret);
    await eventually('the successor has its assignment', async () => (await revision(host)) > 0);
    await podman.ask('restart', '-t', '1', 'first');
    t.is(await read('first'), secret);
    t.is(await podman.ask('exec', 'first', 'cat', '/tmp/seen'), secret);
    await podman.ask('start', 'second');
    await host.ask(['secret', 'update', 'key', '-'], { stdin: 'another' });
    t.deepEqual(
      [await read('first'), await read('second'), await read('third')],
      ['another', 'another', 'another'],
    );

    const gone = await podman.run(...run('gone', '--rm'), ...cat);
    t.regex(gone.stderr, /no task of service gone is on this node|gone/);
    await host.ask(['service', 'rm', 'other']);
    t.regex((await podman.run('exec', 'third', 'cat', '/run/secrets/key')).stderr, /No such file/);
    await podman.ask('restart', '-t', '1', 'first');
    await agent.end();
    t.not((await podman.run('exec', 'first', 'cat', '/run/secrets/key')).code, 0);
    await podman.ask('stop', 'first');
    const late = await podman.run('start', 'first');
    t.regex(late.stderr, /no agent at unix:.run.inro.agent.sock: nothing answers there/);
    t.is(
      await podman.ask(
        'run',
        '--rm',
        '--network',
        'none',
        '-v',
        '/run:/some:ro',
        image,
        'sh',
        '-c',
        'echo begins',
      ),
      'begins',
    );
  },
  { timeoutMs },
);
