/** A manager and two nodes, each a host of its own with its own network: each node holds only what its own tasks use. */
import { generateKeyPairSync } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { readPrivateKey, signBytes } from '../../src/crypto/signing.js';
import { sessionKeyStatement } from '../../src/crypto/statement.js';
import { TaskState } from '../../src/proto/gen/inro/v1/common_pb.js';
import { Dispatcher, type ManagerMessage } from '../../src/proto/gen/inro/v1/dispatcher_pb.js';
import { connectTls, openStream } from '../../src/rpc/client.js';
import { nodeCredentials } from '../../src/rpc/tls.js';
import { Host, scenario } from '../support/host.js';
import { twoNodes, type NodeHost } from '../support/two_nodes.js';

interface Status {
  session: { state: string; manager: string };
  arena: { values: number };
  tasks: { service: string; files: { target: string; secret: string; version: number }[] }[];
}

scenario('each node holds only the secrets of its own tasks, and hears of no others', async (t) => {
  const { manager, a, b } = await twoNodes(t);
  const seen = async ({ host }: NodeHost): Promise<unknown> => {
    const { tasks, arena } = await host.json<Status>(['agent', 'status']);
    return {
      values: arena.values,
      tasks: tasks.map(({ service, files }) => ({ service, files: files.map((f) => f.target) })),
    };
  };
  /** Every name in the mount; `.task` and what is in it too. */
  const names = async ({ host }: NodeHost): Promise<string[]> => {
    const { stdout } = await host.sh('cd /run/inro/secrets && find . -mindepth 1 -printf "%P %y\\n" | sort');
    return stdout
      .split('\n')
      .filter((line) => line.endsWith(' f') && !line.startsWith('.task/') && !line.includes('/..'));
  };

  // 1. Two services with different secrets, one for each node.
  for (const [service, node] of [
    ['red', a],
    ['blue', b],
  ] as const) {
    await manager.ask(['secret', 'create', `${service}_key`, '-'], { stdin: `${service} value` });
    await manager.ask([
      'service',
      'create',
      '--name',
      service,
      '--secret',
      `${service}_key`,
      '--constraint',
      `node.id==${node.id}`,
    ]);
  }
  t.is(await a.host.read('/run/inro/secrets/red/red_key'), 'red value');
  t.is(await b.host.read('/run/inro/secrets/blue/blue_key'), 'blue value');
  t.deepEqual(await names(a), ['red/red_key f']);
  t.deepEqual(await names(b), ['blue/blue_key f']);
  t.deepEqual(await seen(a), { values: 1, tasks: [{ service: 'red', files: ['red_key'] }] });
  t.deepEqual(await seen(b), { values: 1, tasks: [{ service: 'blue', files: ['blue_key'] }] });
  t.is((await a.host.sh('ls -d /run/inro/secrets/*')).stdout, '/run/inro/secrets/red\n');
  t.is((await b.host.sh('ls -d /run/inro/secrets/*')).stdout, '/run/inro/secrets/blue\n');

  // 2. What is added on one never reaches the other: neither a secret nor a new version.
  await manager.ask(['secret', 'create', 'extra', '-'], { stdin: 'only a' });
  await manager.ask(['service', 'update', '--secret-add', 'extra', 'red']);
  await manager.ask(['secret', 'update', 'red_key', '-'], { stdin: 'red, again' });
  t.is(await a.host.read('/run/inro/secrets/red/extra'), 'only a');
  t.is(await a.host.read('/run/inro/secrets/red/red_key'), 'red, again');
  t.deepEqual(await names(b), ['blue/blue_key f']);
  t.deepEqual(await seen(b), { values: 1, tasks: [{ service: 'blue', files: ['blue_key'] }] });

  // 3. A secret that both use is on both, and goes from each with its own service.
  await manager.ask(['service', 'update', '--secret-add', 'source=extra,target=shared', 'blue']);
  t.is(await b.host.read('/run/inro/secrets/blue/shared'), 'only a');
  await manager.ask(['service', 'update', '--secret-rm', 'extra', 'red']);
  t.is(await a.host.read('/run/inro/secrets/red/extra'), 'No such file or directory');
  t.is(await b.host.read('/run/inro/secrets/blue/shared'), 'only a');

  // 4. A service that is removed leaves its own node only.
  await manager.ask(['service', 'rm', 'blue']);
  t.deepEqual(await names(b), []);
  t.deepEqual(await seen(b), { values: 0, tasks: [] });
  t.is(await a.host.read('/run/inro/secrets/red/red_key'), 'red, again');
});

scenario('replicas are spread over the nodes, and each node shows its own task', async (t) => {
  const { manager, a, b } = await twoNodes(t);
  await manager.ask(['secret', 'create', 'key', '-'], { stdin: 'v' });
  await manager.ask(['service', 'create', '--name', 'web', '--replicas', '4', '--secret', 'key']);
  const tasks = await manager.json<{ id: string; nodeId: string; state: string }[]>(['service', 'ps', 'web']);
  t.deepEqual(tasks.map(({ nodeId }) => nodeId).sort(), [a.id, a.id, b.id, b.id].sort());
  t.true(tasks.every(({ state }) => state === 'RUNNING'));
  for (const { host, id } of [a, b]) {
    const { stdout } = await host.sh('ls /run/inro/secrets/.task');
    const own = tasks.filter(({ nodeId }) => nodeId === id).map((task) => task.id);
    t.deepEqual(stdout.trim().split('\n'), own.sort());
    t.is(await host.read('/run/inro/secrets/web/key'), 'v');
  }

  const nodes = await manager.json<
    { id: string; hostname: string; status: string; tasks: number; address: string }[]
  >(['node', 'ls']);
  const shown = nodes.map(({ id, hostname, status, tasks: count, address }) => ({
    id,
    hostname,
    status,
    count,
    from: address.split(':')[0],
  }));
  t.deepEqual(shown, [
    { id: a.id, hostname: 'node-a', status: 'ready', count: 2, from: '10.77.0.2' },
    { id: b.id, hostname: 'node-b', status: 'ready', count: 2, from: '10.77.0.3' },
  ]);
  const { session } = await a.host.json<Status>(['agent', 'status']);
  t.like(session, { state: 'connected', manager: '10.77.0.1:4747' });
});

scenario(
  'a node that asks for more than its own gets nothing, and can say nothing for another',
  async (t) => {
    const a = await Host.of(t, { hostname: 'node-a' });
    const b = await Host.of(t, { hostname: 'node-b' });
    const { manager, agent, nodeId } = await a.startCluster();
    const other = await b.join(await a.ask(['token', 'show', 'worker']), manager.address);
    await b.startAgent();
    for (const [service, node] of [
      ['red', nodeId],
      ['blue', other],
    ] as const) {
      await a.ask(['secret', 'create', `${service}_key`, '-'], { stdin: `${service} value` });
      await a.ask([
        'service',
        'create',
        '--name',
        service,
        '--secret',
        `${service}_key`,
        '--constraint',
        `node.id==${node}`,
      ]);
    }
    const [blue] = await a.json<{ id: string; versions: { ciphertextSha256: string }[] }[]>([
      'secret',
      'inspect',
      'blue_key',
    ]);
    const [red] = await a.json<{ id: string }[]>(['secret', 'inspect', 'red_key']);
    const [blueTask] = await a.json<{ id: string }[]>(['service', 'ps', 'blue']);
    await agent.stop();

    // 1. With a's own certificate and a proved session key, it claims to hold b's secret.
    const [rootPem, certificatePem, keyPem] = (await Promise.all(
      ['ca.crt', 'node.crt', 'node.key'].map((file) =>
        readFile(a.outside(`/var/lib/inro/agent/${file}`), 'utf8'),
      ),
    )) as [string, string, string];
    const connection = connectTls(manager.address, nodeCredentials({ rootPem, certificatePem, keyPem }));
    t.teardown(() => connection.close());
    const channel = openStream(connection, Dispatcher, 'attach');
    const messages = channel.messages[Symbol.asyncIterator]();
    const heard = async (until: string): Promise<ManagerMessage['message'][]> => {
      const all: ManagerMessage['message'][] = [];
      for (;;) {
        const { value, done } = await messages.next();
        if (done === true) throw new Error(`the stream ended before ${until}`);
        all.push(value.message);
        if (all.at(-1)?.case === until) return all;
      }
    };
    const [challenge] = await heard('challenge');
    if (challenge?.case !== 'challenge') return t.fail();
    const { nonce, clusterId } = challenge.value;
    const { x = '' } = generateKeyPairSync('x25519').publicKey.export({ format: 'jwk' });
    const session = { nonce, clusterId, nodeId, bootId: 'boot', sessionKey: Buffer.from(x, 'base64url') };
    const proof = signBytes(readPrivateKey(keyPem), sessionKeyStatement(session));
    const ciphertextDigest = Buffer.from(blue?.versions[0]?.ciphertextSha256 ?? '', 'hex');
    const holdings = [{ secretId: blue?.id ?? '', version: 1, ciphertextDigest }];
    await channel.send({ message: { case: 'hello', value: { ...session, proof, holdings } } });
    const complete = await heard('commit');
    t.deepEqual(secretsIn(complete), [red?.id]);

    // 2. It reports b's task as failed, and b's secret as wiped: neither is believed.
    const applied = {
      revision: 1n,
      tasks: [{ taskId: blueTask?.id ?? '', state: TaskState.FAILED, error: 'a says so' }],
    };
    await channel.send({ message: { case: 'applied', value: applied } });
    await channel.send({ message: { case: 'heartbeat', value: { sequence: 1 } } });
    await heard('heartbeatAck');
    t.like((await a.json(['service', 'ps', 'blue']))[0], { id: blueTask?.id, state: 'RUNNING', error: '' });

    // 3. A change for b passes it by.
    await a.ask(['secret', 'update', 'blue_key', '-'], { stdin: 'blue, again' });
    await channel.send({ message: { case: 'heartbeat', value: { sequence: 2 } } });
    t.deepEqual(secretsIn(await heard('heartbeatAck')), []);
    t.is(await b.read('/run/inro/secrets/blue/blue_key'), 'blue, again');
    channel.close();
  },
);

/** The secrets that are named in what a manager said, in any way. */
function secretsIn(messages: readonly ManagerMessage['message'][]): string[] {
  const changes = messages.flatMap((message) => (message.case === 'change' ? [message.value.change] : []));
  const ids = changes.flatMap((change) => {
    if (change.case === 'putVersion') return [change.value.secretId];
    return change.case === 'putTask'
      ? change.value.references.map(({ reference }) => reference?.secretId ?? '')
      : [];
  });
  return [...new Set(ids)];
}

/** Three hosts on one bridge, which stands in the manager's own network: nothing is left when they end. */
