/** Containers that inro starts: a task is one container, and its end is the task's. */
import type { ExecutionContext } from 'ava';
import { Docker, engineSocket } from '../support/docker.js';
import { Host } from '../support/host.js';
import { image } from '../support/image.js';
import { eventually, refused } from '../support/inro.js';
import { KeptAgent } from '../support/kept_agent.js';
import { labScenario } from '../support/lab.js';

interface TaskLine {
  id: string;
  state: string;
  error: string;
  exitCode: number | null;
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
    t.like((await tasks(host, 'fails'))[0], { error: 'exit code 3', exitCode: 3 });
    await host.ask(create('job', '--restart-condition', 'on-failure', image, 'true'));
    await eventually('it is complete', async () => (await tasks(host, 'job'))[0]?.state === 'COMPLETE');
    t.deepEqual(
      (await tasks(host, 'job')).map(({ exitCode }) => exitCode),
      [0],
      'what is complete is not done again',
    );
    await eventually('no node is said to hold what was wiped', async () => {
      const [current] = await host.json<{ nodes: number }[]>(['secret', 'history', 'key']);
      return current?.nodes === 0;
    });

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

    const line = 'until [ -e /tmp/go ]; do sleep 1; done; exec tail /dev/zero';
    await host.ask(create('greedy', ...once, image, 'sh', '-c', line));
    const greedy = await docker.ask('ps', '-q');
    await docker.ask('update', '--memory', '16m', '--memory-swap', '16m', greedy);
    await docker.ask('exec', greedy, 'sh', '-c', '> /tmp/go');
    await eventually('it has failed', async () => (await tasks(host, 'greedy'))[0]?.state === 'FAILED');
    t.is((await tasks(host, 'greedy'))[0]?.error, 'the container was killed: out of memory');

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

labScenario(
  '5: a container that is stopped has its secrets until its end, and they go then; of a removed node they go at once',
  async (t) => {
    const { host, docker, agent } = await engineHost(t);
    const line =
      "trap 'sleep 2; cat /run/secrets/key > /out/last 2>&1; exit 0' TERM; while :; do sleep 0.1; done";
    const out = ['--mount', 'type=volume,source=out,target=/out'];
    const last = async (): Promise<string> =>
      docker.ask('run', '--rm', '--network', 'none', '-v', 'out:/out', image, 'cat', '/out/last');
    const ends: Record<string, () => Promise<unknown>> = {
      'its service is removed': () => host.ask(['service', 'rm', 'web']),
      'there are fewer tasks': () => host.ask(['service', 'update', '--replicas', '0', 'web']),
      'the agent stops': async () => {
        await agent.order({ restarts: false });
        await host.ask(['agent', 'stop']);
      },
    };
    for (const [why, end] of Object.entries(ends)) {
      await host.inro(['service', 'rm', 'web']);
      await host.ask(create('web', ...out, image, 'sh', '-c', line));
      t.is((await docker.ask('ps', '-q')).split('\n').length, 1);
      await end();
      t.is(await docker.ask('ps', '-aq'), '', `${why}: the command waits for the container's end`);
      t.is(await last(), secret, why);
    }
  },
  { timeoutMs },
);

labScenario(
  '6: an agent that is killed while a container ends: its successor ends it; a removed node waits for none',
  async (t) => {
    const { host, docker, agent } = await engineHost(t);
    const slow = "trap 'sleep 6; exit 0' TERM; while :; do sleep 0.1; done";
    await host.ask(create('web', '--stop-grace-period', '20', image, 'sh', '-c', slow));
    const [task] = await tasks(host, 'web');
    await host.ask(['service', 'rm', '--detach', 'web']);
    const shown = async () => (await host.sh(`ls /run/inro/secrets/.task`)).stdout.includes(task?.id ?? '?');
    t.true(await shown());
    await agent.killAndWait();
    await eventually('the container is gone', async () => (await docker.ask('ps', '-aq')) === '');
    await eventually('its files are', async () => !(await shown()));

    await host.ask(create('web', '--stop-grace-period', '20', image, 'sh', '-c', slow));
    const [{ id } = { id: '' }] = await host.json<{ id: string }[]>(['node', 'ls']);
    const removed = await host.json<{ wiped: number; versions: number }>(['node', 'rm', id]);
    t.like(removed, { versions: 1, wiped: 1 });
    await eventually('the container goes then', async () => (await docker.ask('ps', '-aq')) === '');
  },
  { timeoutMs },
);

/** The change is stored, and a task says why it does not run. */
function refusedWith(t: ExecutionContext, result: { code: number; stderr: string }, words: RegExp): void {
  t.is(result.code, 1);
  t.regex(result.stderr, words);
}

labScenario(
  '8: what runs is changed: one after the other, back again when it fails, start first where that is asked for',
  async (t) => {
    const { host } = await engineHost(t);
    const images = async (): Promise<string[]> => {
      const list = await host.json<
        { container: { env: string[] }; updateStatus: { state: string; message: string } }[]
      >(['service', 'inspect', 'web']);
      return [
        list[0]?.container.env.join(' ') ?? '',
        list[0]?.updateStatus.state ?? '',
        list[0]?.updateStatus.message ?? '',
      ];
    };
    const line = 'test "$MODE" != bad || exit 3; exec sleep 1000';
    const policy = ['--update-monitor', '1s', '--stop-grace-period', '1'];
    await host.ask(
      create('web', '--replicas', '2', '--env', 'MODE=good', ...policy, image, 'sh', '-c', line),
    );
    const before = (await tasks(host, 'web')).map(({ id }) => id);
    await host.ask(['service', 'update', '--env-add', 'MODE=better', 'web']);
    t.deepEqual((await images()).slice(0, 2), ['MODE=better', 'completed']);
    const now = (await tasks(host, 'web')).filter(({ state }) => state === 'RUNNING');
    t.is(now.length, 2);
    t.true(now.every(({ id }) => !before.includes(id)));

    const bad = await host.inro(['service', 'update', '--env-add', 'MODE=bad', 'web']);
    t.is(bad.code, 1);
    t.regex(bad.stderr, /its update is paused: task \w+ has failed: .*exit code 3/);
    t.is(
      (await tasks(host, 'web')).filter(
        ({ id, state }) => state === 'RUNNING' && now.some((one) => one.id === id),
      ).length,
      1,
    );
    await host.ask(['service', 'rollback', 'web']);
    t.deepEqual((await images()).slice(0, 2), ['MODE=better', 'rollback_completed']);
    t.is((await tasks(host, 'web')).filter(({ state }) => state === 'RUNNING').length, 2);

    await host.ask([
      'service',
      'update',
      '--update-failure-action',
      'rollback',
      '--update-order',
      'start-first',
      'web',
    ]);
    const running = (await tasks(host, 'web')).filter(({ state }) => state === 'RUNNING').map(({ id }) => id);
    const back = await host.inro(['service', 'update', '--env-add', 'MODE=bad', 'web']);
    t.is(back.code, 1);
    t.regex(back.stderr, /its update was taken back: task \w+ has failed/);
    t.deepEqual(
      (await tasks(host, 'web')).filter(({ state }) => state === 'RUNNING').map(({ id }) => id),
      running,
      'what ran was never stopped',
    );
    await host.ask(['service', 'rm', 'web']);
  },
  { timeoutMs },
);
