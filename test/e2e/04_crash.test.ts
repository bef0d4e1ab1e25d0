/** Killed without a chance to clean up, and started again: what was acknowledged is there, and everybody goes on. */
import { Control } from '../../src/proto/gen/inro/v1/control_pb.js';
import { call, connectUnix } from '../../src/rpc/client.js';
import { Host, scenario } from '../support/host.js';
import { labScenario } from '../support/lab.js';
import { eventually } from '../support/inro.js';

const listen = '127.0.0.1:4747';
const file = '/run/inro/secrets/web/key';

interface Status {
  nodeId: string;
  session: { state: string; lastError: string };
  tasks: { id: string; state: string }[];
}

scenario(
  'a manager that is killed while it writes: everything acknowledged is there, and the agent goes on',
  async (t) => {
    const host = await Host.of(t, { ownNetwork: true });
    const { manager, agent, nodeId } = await host.startCluster({ listen });
    await host.ask(['secret', 'create', 'key', '-'], { stdin: 'before' });
    await host.ask(['service', 'create', '--name', 'web', '--secret', 'key']);
    const token = await host.ask(['token', 'show', 'worker']);

    // 1. Many writers at once; it dies under them.
    const connection = connectUnix(host.outside('/run/inro/manager.sock'), 'the manager');
    t.teardown(() => connection.close());
    const acknowledged: string[] = [];
    let asked = 0;
    const write = async (): Promise<void> => {
      for (;;) {
        const name = `s${asked++}`;
        await call(connection, Control, 'createService', { name, replicas: 0 });
        acknowledged.push(name);
      }
    };
    const writers = Promise.allSettled(Array.from({ length: 8 }, write));
    await eventually('writes', async () => acknowledged.length > 200);
    await manager.kill9();
    await writers;
    connection.close();

    // 2. Without a manager the agent serves on, and says how it stands.
    t.is(await host.read(file), 'before');
    await agent.printed(/no session with the manager/);
    const away = await host.json<Status>(['agent', 'status']);
    t.is(away.session.state, 'waiting');
    t.not(away.session.lastError, '');
    const refused = await host.inro(['secret', 'ls']);
    t.is(refused.code, 1);
    t.regex(
      refused.stderr,
      /^inro: no manager at unix:\/run\/inro\/manager\.sock: nothing answers on its socket\n/,
    );

    // 3. It comes back over its stale socket, with all that it had said yes to, and nothing half-written.
    await host.startManager({ listen });
    const names = new Set((await host.json<{ name: string }[]>(['service', 'ls'])).map(({ name }) => name));
    t.deepEqual(
      acknowledged.filter((name) => !names.has(name)),
      [],
    );
    t.true(names.size <= asked + 1);
    t.is(await host.ask(['token', 'show', 'worker']), token);

    // 4. The agent comes back by itself, as the same node, with the same task; changes reach it again.
    await eventually(
      'the node',
      async () => (await host.json<{ status: string }[]>(['node', 'ls']))[0]?.status === 'ready',
    );
    await eventually(
      'the session',
      async () => (await host.json<Status>(['agent', 'status'])).session.state === 'connected',
    );
    const back = await host.json<Status>(['agent', 'status']);
    t.is(back.nodeId, nodeId);
    t.deepEqual(back.tasks, away.tasks, 'the task is the same one, and was never published anew');
    await host.ask(['secret', 'update', 'key', '-'], { stdin: 'after' });
    t.is(await host.read(file), 'after');
    t.is(await agent.stop(), 0);
  },
);

scenario(
  'an agent that is killed: its dead mount is recovered, and the values are served again',
  async (t) => {
    const host = await Host.of(t, { ownNetwork: true });
    const { agent, nodeId } = await host.startCluster({ listen });
    await host.ask(['secret', 'create', 'key', '-'], { stdin: 'value' });
    await host.ask(['service', 'create', '--name', 'web', '--secret', 'key']);
    const [before] = await host.json<{ id: string }[]>(['service', 'ps', 'web']);
    await agent.kill9();
    t.is(await host.read(file), 'Transport endpoint is not connected');

    const again = await host.startAgent();
    await eventually('the value', async () => (await host.read(file)) === 'value');
    const status = await host.json<Status>(['agent', 'status']);
    t.is(status.nodeId, nodeId);
    t.deepEqual(
      status.tasks.map(({ id, state }) => ({ id, state })),
      [{ id: before?.id, state: 'RUNNING' }],
    );
    t.is((await host.json(['node', 'ls'])).length, 1);
    t.is(
      (await host.sh('grep -c /run/inro/secrets /proc/self/mountinfo')).stdout,
      '1\n',
      'one mount, not two on top of each other',
    );
    t.is(await again.stop(), 0);
    t.notRegex((await host.sh('cat /proc/self/mountinfo')).stdout, /inro\/secrets/);
  },
);

labScenario('what changed while the agent was away is so when it comes back', async (t) => {
  const host = await Host.of(t, { ownNetwork: true });
  const { agent } = await host.startCluster({ listen });
  await host.ask(['secret', 'create', 'key', '-'], { stdin: 'old' });
  await host.ask([
    'service',
    'create',
    '--name',
    'web',
    '--secret',
    'key',
    '--secret',
    'source=key,target=other',
  ]);
  await host.ask(['service', 'create', '--name', 'gone', '--secret', 'key']);
  await agent.kill9();
  await host.ask(['secret', 'update', '--detach', 'key', '-'], { stdin: 'new' });
  await host.ask(['service', 'rm', '--detach', 'gone']);

  await host.startAgent();
  await eventually('the value', async () => (await host.read(file)) === 'new');
  t.is(await host.read('/run/inro/secrets/gone/key'), 'No such file or directory');
  t.is((await host.sh('ls -A /run/inro/secrets/.task')).stdout.split('\n').length, 2, 'one task');
});

labScenario(
  'an agent that starts while no manager is there serves nothing, and everything once one comes',
  async (t) => {
    const host = await Host.of(t, { ownNetwork: true });
    const { manager, agent } = await host.startCluster({ listen });
    await host.ask(['secret', 'create', 'key', '-'], { stdin: 'value' });
    await host.ask(['service', 'create', '--name', 'web', '--secret', 'key']);
    t.is(await agent.stop(), 0);
    t.is(await manager.stop(), 0);

    const early = await host.startAgent({ connected: false });
    await early.printed(/no session with the manager/);
    t.is(await host.read(file), 'No such file or directory');
    const { code, stdout } = await host.inro(['agent', 'status']);
    t.is(code, 0);
    t.regex(stdout, /^Session: +waiting 127\.0\.0\.1:4747 /m);
    t.regex(stdout, /^Lease: +over: nothing is served$/m);

    await host.startManager({ listen });
    await eventually('the value', async () => (await host.read(file)) === 'value');
    t.pass();
  },
);

labScenario('an agent stopped while a reader has a file open: the reader is not left hanging', async (t) => {
  const host = await Host.of(t);
  const { agent } = await host.startCluster();
  await host.ask(['secret', 'create', 'key', '-'], { stdin: 'value' });
  await host.ask(['service', 'create', '--name', 'web', '--secret', 'key']);
  const reader = host.spawn([
    'sh',
    '-c',
    `exec 3< ${file}; echo opened; until [ -e stopped ]; do sleep 0.05; done; cat <&3`,
  ]);
  await reader.printed(/opened/);
  t.is(await agent.stop(), 0);
  await host.sh('touch stopped');
  t.is(await reader.exited, 1);
  t.regex(reader.stderr, /Stale file handle|Transport endpoint is not connected/);
  t.is(reader.stdout, 'opened\n');
});
