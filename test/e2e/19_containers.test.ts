/** Containers that inro starts: a task is one container, and its end is the task's. */
import type { ExecutionContext } from 'ava';
import { Docker, engineSocket, image } from '../support/docker.js';
import { Host } from '../support/host.js';
import { eventually, refused } from '../support/inro.js';
import { KeptAgent } from '../support/kept_agent.js';
import { labScenario } from '../support/lab.js';

interface TaskLine {
  id: string;
  state: string;
  error: string;
}

const timeoutMs = 300_000;
const secret = 'a-value-that-nobody-may-find';

async function engineHost(t: ExecutionContext): Promise<{ host: Host; docker: Docker; agent: KeptAgent }> {
  const host = await Host.of(t, { ownNetwork: true });
  const manager = await host.startManager();
  const docker = await Docker.on(t, host);
  await host.join(await host.ask(['token', 'show', 'worker']), manager.address);
  const agent = await KeptAgent.start(host, ['--docker', engineSocket]);
  await host.ask(['secret', 'create', 'key', '-'], { stdin: secret });
  return { host, docker, agent };
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
  '1: a container runs with its secrets, which nobody else reads, and ends with its service',
  async (t) => {
    const { host, docker } = await engineHost(t);
    const line = 'cat /run/secrets/key > /tmp/seen; exec sleep 1000';
    await host.ask(create('web', '--env', 'TZ=UTC', '--stop-grace-period', '1', image, 'sh', '-c', line));
    const [task] = await tasks(host, 'web');
    t.like(task, { state: 'RUNNING', error: '' });
    const container = `web.1.${task?.id ?? ''}`;
    await eventually(
      'it has read',
      async () => (await docker.run('exec', container, 'cat', '/tmp/seen')).stdout === secret,
    );
    t.is(await host.read(`/run/inro/secrets/web/key`), 'Permission denied');

    // Nothing that the engine keeps has the value.
    for (const kept of [
      ['inspect', container],
      ['image', 'inspect', image],
      ['logs', container],
    ])
      t.false((await docker.ask(...kept)).includes(secret), kept.join(' '));

    await host.ask(['secret', 'update', 'key', '-'], { stdin: 'another' });
    t.is(await docker.ask('exec', container, 'cat', '/run/secrets/key'), 'another');
    await host.ask(['service', 'rm', 'web']);
    await eventually('the container is gone', async () => (await docker.ask('ps', '-aq')) === '');
  },
  { timeoutMs },
);

labScenario(
  '2: how a container ends is how its task does, and what cannot be run says why',
  async (t) => {
    const { host, docker } = await engineHost(t);
    const once = ['--restart-condition', 'none'];
    await host.inro(create('fails', ...once, image, 'sh', '-c', 'exit 3'));
    await eventually('it has failed', async () => (await tasks(host, 'fails'))[0]?.state === 'FAILED');
    t.is((await tasks(host, 'fails'))[0]?.error, 'exit code 3');
    await host.ask(create('job', '--restart-condition', 'on-failure', image, 'true'));
    await eventually('it is complete', async () => (await tasks(host, 'job'))[0]?.state === 'COMPLETE');
    t.is((await tasks(host, 'job')).length, 1, 'what is complete is not done again');

    const missing = await host.inro(create('bad', ...once, 'no-such-image:1'));
    refusedWith(t, missing, /REJECTED: the container engine says: /);
    const broken = await host.inro(create('worse', ...once, image, '/no/such/program'));
    refusedWith(t, broken, /REJECTED: the container engine says: .*no such file/);
    await eventually('none is left', async () => (await docker.ask('ps', '-aq')) === '');
    refused(
      t,
      await host.inro(create('host', '--network', 'host', image)),
      2,
      /network "host" is not the service's own/,
    );

    await host.ask(create('web', image, 'sleep', '1000'));
    await docker.ask('kill', await docker.ask('ps', '-q'));
    await eventually('another takes its place', async () => {
      const [newest, before] = await tasks(host, 'web');
      return newest?.state === 'RUNNING' && before?.error === 'exit code 137';
    });
  },
  { timeoutMs },
);

labScenario(
  '3: a killed agent’s successor goes on with the container; a stopped one ends it',
  async (t) => {
    const { host, docker, agent } = await engineHost(t);
    await host.ask(create('web', '--stop-grace-period', '1', image, 'sleep', '1000'));
    const [task] = await tasks(host, 'web');
    const container = await docker.ask('ps', '-q');
    const read = () => docker.ask('exec', container, 'cat', '/run/secrets/key');
    for (let n = 0; n < 3; n++) {
      await agent.killAndWait();
      t.is(await read(), secret);
      await eventually('the successor has its assignment', async () => (await revision(host)) > 0);
      t.is(await read(), secret);
      t.is(await host.read('/run/inro/secrets/web/key'), 'Permission denied');
    }
    t.is(await docker.ask('ps', '-q'), container, 'it is the same');
    t.is((await tasks(host, 'web'))[0]?.id, task?.id);
    await agent.order({ restarts: false });
    await host.ask(['agent', 'stop']);
    t.is(await docker.ask('ps', '-aq'), '');
  },
  { timeoutMs },
);

labScenario(
  '4: a changed secret signals a container, or restarts it in its place: the task goes on',
  async (t) => {
    const { host, docker } = await engineHost(t);
    const line = "trap 'cat /run/secrets/key > /tmp/seen' HUP; while :; do sleep 1; done";
    await host.ask(create('told', '--on-change', 'signal=HUP', image, 'sh', '-c', line));
    await host.ask(
      create(
        'anew',
        '--on-change',
        'restart',
        '--stop-grace-period',
        '1',
        image,
        'sh',
        '-c',
        'cat /run/secrets/key; echo; exec sleep 1000',
      ),
    );
    const containerOf = (name: string) => docker.ask('ps', '-q', '--filter', `label=inro.service=${name}`);
    const [told, anew] = [await containerOf('told'), await containerOf('anew')];
    const [task] = await tasks(host, 'anew');
    await host.ask(['secret', 'update', 'key', '-'], { stdin: 'the next one' });
    await eventually(
      'one has been told',
      async () => (await docker.run('exec', told, 'cat', '/tmp/seen')).stdout === 'the next one',
    );
    await eventually(
      'the other one has begun anew',
      async () => (await docker.ask('logs', anew)) === `${secret}\nthe next one`,
    );
    t.is(await containerOf('anew'), anew);
    await eventually('it is said', async () =>
      (await host.ask(['service', 'ps', 'anew'])).includes(' restart '),
    );
    const after = await tasks(host, 'anew');
    t.deepEqual(
      after.map(({ id, state }) => [id, state]),
      [[task?.id, 'RUNNING']],
    );
  },
  { timeoutMs },
);

/** The change is stored, and a task says why it does not run. */
function refusedWith(t: ExecutionContext, result: { code: number; stderr: string }, words: RegExp): void {
  t.is(result.code, 1);
  t.regex(result.stderr, words);
}
