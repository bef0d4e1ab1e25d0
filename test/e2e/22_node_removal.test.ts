/** Removing nodes: what they held is wiped, their certificates are refused on every call, their tasks go elsewhere. */
import { readFile } from 'node:fs/promises';
import { Dispatcher } from '../../src/proto/gen/inro/v1/dispatcher_pb.js';
import { Enrollment } from '../../src/proto/gen/inro/v1/enrollment_pb.js';
import { call, connectTls, openStream } from '../../src/rpc/client.js';
import { nodeCredentials } from '../../src/rpc/tls.js';
import { Host, scenario } from '../support/host.js';
import { labScenario } from '../support/lab.js';
import { eventually } from '../support/inro.js';
import { refusesAsync } from '../support/refuses.js';

const web = '/run/inro/secrets/web';
const agentFolder = '/var/lib/inro/agent';
const listen = '127.0.0.1:4747';

interface Removed {
  id: string;
  tasks: number;
  versions: number;
  wiped: number;
  leaseEndsAt: string | null;
}

interface Status {
  session: { state: string; lastError: string; leaseLeftMs: number };
  arena: { values: number };
}

async function withService(host: Host): Promise<void> {
  await host.ask(['secret', 'create', 'key', '-'], { stdin: 'first' });
  await host.ask(['service', 'create', '--name', 'web', '--secret', 'key']);
}

async function identityOf(host: Host) {
  const [rootPem, certificatePem, keyPem] = (await Promise.all(
    ['ca.crt', 'node.crt', 'node.key'].map((file) =>
      readFile(host.outside(`${agentFolder}/${file}`), 'utf8'),
    ),
  )) as [string, string, string];
  return { rootPem, certificatePem, keyPem };
}

scenario(
  'removed while readers read: nothing is read after the receipt, the agent says so and asks no more',
  async (t) => {
    const host = await Host.of(t);
    const { agent, nodeId } = await host.startCluster();
    await withService(host);
    // Each reading with the time at which it began.
    const reader = host.spawn([
      'sh',
      '-c',
      `while :; do at=$(date +%s%N); if cat ${web}/key > /dev/null 2>&1; then echo "read $at"; else echo "none $at"; fi; done`,
    ]);
    const held = host.spawn([
      'sh',
      '-c',
      `exec 3< ${web}/key; echo opened; until [ -e read-on ]; do sleep 0.02; done; dd bs=100 count=1 <&3`,
    ]);
    await held.printed(/opened/);
    await reader.printed(/read/);
    const { stdout } = await host.sh(`inro node rm --json ${nodeId}; date +%s%N`);
    const removed = JSON.parse(stdout.slice(0, stdout.lastIndexOf('}') + 1)) as Removed;
    const endedNs = BigInt(stdout.trimEnd().split('\n').at(-1) ?? '');
    t.like(removed, { id: nodeId, tasks: 1, versions: 1, wiped: 1, leaseEndsAt: null });
    await reader.printed(/none/);
    await reader.kill9();
    const late = reader.stdout
      .split('\n')
      .filter((line) => line.startsWith('read ') && BigInt(line.slice(5)) > endedNs);
    t.deepEqual(late, []);
    await host.sh('touch read-on');
    t.not(await held.exited, 0);
    t.notRegex(held.stdout, /first/);

    const status = await eventually('the agent knows', async () => {
      const now = await host.json<Status>(['agent', 'status']);
      return now.session.state === 'removed' && now;
    });
    t.regex(status.session.lastError, new RegExp(`^node ${nodeId} was removed from the cluster at `));
    t.like(status, { session: { leaseLeftMs: 0 }, arena: { values: 0 } });
    t.notRegex(agent.stderr, /silent for/, 'it is told, and does not find out');
    t.is((agent.stderr.match(/this node is not one of the cluster any more/g) ?? []).length, 1);
    t.deepEqual(await host.json(['node', 'ls']), []);
    t.like((await host.json(['service', 'ps', 'web']))[0], { state: 'NEW', error: 'no node is ready' });
  },
);

labScenario(
  'a connection that is open, and every new one, is refused at its next call: by node id, serial and key',
  async (t) => {
    const host = await Host.of(t);
    const { manager, agent, nodeId } = await host.startCluster();
    const identity = await identityOf(host);
    await agent.stop();
    const open = connectTls(manager.address, nodeCredentials(identity));
    t.teardown(() => open.close());
    const attach = async (connection: typeof open): Promise<void> => {
      for await (const _ of openStream(connection, Dispatcher, 'attach').messages) break;
    };
    await attach(open);
    await call(open, Enrollment, 'getRoot', {});

    t.regex(await host.ask(['node', 'rm', nodeId]), /is removed: it held nothing$/);
    const words = new RegExp(`node ${nodeId} was removed from the cluster`);
    await refusesAsync(t, call(open, Enrollment, 'getRoot', {}), 'not_permitted', words);
    await refusesAsync(t, attach(open), 'not_permitted', words);
    const again = connectTls(manager.address, nodeCredentials(identity));
    t.teardown(() => again.close());
    await refusesAsync(t, attach(again), 'not_permitted', words);

    // A manager that is killed and started again knows it still.
    await manager.kill9();
    const next = await host.startManager({ listen: manager.address });
    const later = connectTls(next.address, nodeCredentials(identity));
    t.teardown(() => later.close());
    await refusesAsync(t, call(later, Enrollment, 'getRoot', {}), 'not_permitted', words);

    // Its agent says so, and the host may become a node again: another one.
    const restarted = await host.startAgent({ connected: false });
    await restarted.printed(/this node is not one of the cluster any more/);
    await restarted.stop();
    const token = await host.ask(['token', 'show', 'worker']);
    const { code, stdout, stderr } = await host.inro(
      ['agent', 'join', '--json', '--again', '--token', '-', '--manager', next.address],
      { stdin: token },
    );
    t.is(code, 0, stderr);
    t.regex(stderr, /this host has a new node id: node [0-9a-z]{25} was removed/);
    t.not((JSON.parse(stdout) as { nodeId: string }).nodeId, nodeId);
    await host.startAgent();
  },
);

labScenario(
  'a node that is not reached: the command says until when it may serve, and its tasks are elsewhere',
  async (t) => {
    const a = await Host.of(t);
    const b = await Host.of(t, { hostname: 'host-b' });
    const { manager, agent, nodeId } = await a.startCluster();
    await withService(a);
    await b.join(await a.ask(['token', 'show', 'worker']), manager.address);
    await b.startAgent();
    process.kill(agent.pid, 'SIGSTOP');
    t.teardown(() => process.kill(agent.pid, 'SIGCONT'));
    const { code, stdout, stderr } = await a.inro(['node', 'rm', nodeId]);
    t.is(code, 1);
    t.regex(stdout, /^node [0-9a-z]{25} \(host-a\) is removed: its certificate is refused from now on\n$/);
    t.regex(
      stderr,
      /^inro: the node is removed, but did not say that it has wiped 1 of 1 values: it may serve them until [-0-9TZ:.]+ at the latest, when its lease ends\n/,
    );
    await eventually('its task is elsewhere', async () => (await b.read(`${web}/key`)) === 'first');
    t.deepEqual(
      (await a.json<{ hostname: string }[]>(['node', 'ls'])).map(({ hostname }) => hostname),
      ['host-b'],
    );
    // What it reads in its own time ends when it is heard again.
    process.kill(agent.pid, 'SIGCONT');
    await eventually(
      'it knows',
      async () => (await a.json<Status>(['agent', 'status'])).session.state === 'removed',
    );
    t.regex(await a.read(`${web}/key`), /No such file|Stale/);
  },
);

labScenario(
  'a manager that is killed while it waits for the node finishes the removal when it is started',
  async (t) => {
    const host = await Host.of(t, { ownNetwork: true });
    const { manager, agent, nodeId } = await host.startCluster({ listen });
    await withService(host);
    process.kill(agent.pid, 'SIGSTOP');
    t.teardown(() => process.kill(agent.pid, 'SIGCONT'));
    const removing = host.inro(['node', 'rm', nodeId]);
    await manager.daemon.printed(/"node is being removed"/);
    t.like(await host.json(['node', 'ls']), [{ status: 'removing' }]);
    await manager.kill9();
    t.is((await removing).code, 1);
    await host.startManager({ listen });
    t.deepEqual(await host.json(['node', 'ls']), []);
    process.kill(agent.pid, 'SIGCONT');
    await eventually(
      'it knows',
      async () => (await host.json<Status>(['agent', 'status'])).session.state === 'removed',
    );
    t.regex(await host.read(`${web}/key`), /No such file|Stale/);
  },
);
