/** Tasks that leave a node: what they had is wiped there, and another node has it. */
import type { ExecutionContext } from 'ava';
import { Host, scenario } from '../support/host.js';
import { eventually } from '../support/inro.js';
import { twoNodes, type NodeHost, type TwoNodes } from '../support/two_nodes.js';

const file = '/run/inro/secrets/web/key';
const value = 'a value that moves';
const gone = 'No such file or directory';

interface Status {
  session: { state: string };
  arena: { values: number };
}

interface TaskLine {
  nodeId: string;
  state: string;
  desiredState: string;
  error: string;
}

const values = async ({ host }: NodeHost): Promise<number> =>
  (await host.json<Status>(['agent', 'status'])).arena.values;

/** Service web with one task, on the first of the nodes. */
async function web(t: ExecutionContext): Promise<TwoNodes> {
  const cluster = await twoNodes(t);
  const { manager, a, b } = cluster;
  await manager.ask(['secret', 'create', 'key', '-'], { stdin: value });
  await manager.ask(['node', 'update', '--availability', 'pause', b.id]);
  await manager.ask(['service', 'create', '--name', 'web', '--secret', 'key']);
  await manager.ask(['node', 'update', '--availability', 'active', b.id]);
  t.is(await a.host.read(file), value);
  t.is(await b.host.read(file), gone);
  return cluster;
}

const live = async (manager: Host): Promise<TaskLine[]> =>
  (await manager.json<TaskLine[]>(['service', 'ps', 'web'])).filter(({ state }) => state === 'RUNNING');

scenario(
  '1: a node is drained: when the command returns the other one serves, and this one has wiped',
  async (t) => {
    const { manager, a, b } = await web(t);
    const held = a.host.spawn([
      'sh',
      '-c',
      `exec 3< ${file}; echo opened; until [ -e read-on ]; do sleep 0.02; done; dd bs=100 count=1 <&3`,
    ]);
    await held.printed(/opened/);
    const drained = await manager.ask(['node', 'update', '--availability', 'drain', a.id]);
    t.regex(drained, /is set to drain/);
    t.is(await b.host.read(file), value);
    t.is(await a.host.read(file), gone);
    t.is(await values(a), 0);
    await a.host.sh('touch read-on');
    await held.exited;
    t.regex(held.stderr, /Stale file handle/);
    const [moved, ended] = await manager.json<TaskLine[]>(['service', 'ps', 'web']);
    t.like(moved, { nodeId: b.id, state: 'RUNNING' });
    t.like(ended, { nodeId: a.id, state: 'SHUTDOWN', error: 'its node is drained' });

    // There is nowhere to go: the command says so, and what is not served any more is gone all the same.
    const nowhere = await manager.inro(['node', 'update', '--availability', 'drain', '--detach', b.id]);
    t.is(nowhere.code, 0, nowhere.stderr);
    await eventually('it has ended there', async () => (await b.host.read(file)) === gone);
    await eventually('it says why', async () =>
      (await manager.ask(['service', 'ps', 'web'])).includes('2 of 2 ready nodes take no new tasks'),
    );
    await manager.ask(['node', 'update', '--availability', 'active', a.id]);
    t.is(await a.host.read(file), value);
  },
);

scenario(
  '2: a node that is cut off: another has its task after 15 s; when it is back it wipes first, and says so',
  async (t) => {
    const { manager, a, b } = await web(t);
    await manager.sh(`ip link set ${a.wire} down`);
    await eventually('the other node serves', async () => (await b.host.read(file)) === value, 60_000);
    t.is(await a.host.read(file), value, 'nobody can tell it: it serves until its lease ends');
    const tasks = await manager.json<TaskLine[]>(['service', 'ps', 'web']);
    t.like(
      tasks.find(({ nodeId }) => nodeId === a.id),
      { state: 'RUNNING', desiredState: 'SHUTDOWN', error: 'its node is down' },
    );
    await manager.sh(`ip link set ${a.wire} up`);
    await eventually('it has wiped', async () => (await values(a)) === 0, 60_000);
    t.is(await a.host.read(file), gone);
    await eventually('and said so', async () => (await live(manager)).length === 1);
    t.deepEqual(
      (await live(manager)).map(({ nodeId }) => nodeId),
      [b.id],
    );
    t.is(await b.host.read(file), value);
  },
  { timeoutMs: 240_000 },
);

scenario(
  '3: the manager is killed in the middle of a drain: the next one ends it',
  async (t) => {
    const cluster = await twoNodes(t);
    const { manager, a, b } = cluster;
    await manager.ask(['secret', 'create', 'key', '-'], { stdin: value });
    await manager.ask(['service', 'create', '--name', 'web', '--secret', 'key', '--replicas', '20']);
    const on = async ({ id }: NodeHost): Promise<number> =>
      (await live(manager)).filter(({ nodeId, desiredState }) => nodeId === id && desiredState === 'RUNNING')
        .length;
    t.is(await on(a), 10);
    await manager.ask(['node', 'update', '--availability', 'drain', '--detach', a.id]);
    await cluster.killManager();
    await cluster.startManager();
    await eventually('all are elsewhere', async () => (await on(b)) === 20 && (await on(a)) === 0, 60_000);
    t.is(await values(a), 0);
    t.is(await a.host.read(file), gone);
    t.is(await b.host.read(file), value);
  },
  { timeoutMs: 240_000 },
);

scenario('4: scaling, a global service, and constraints that change', async (t) => {
  const { manager, a, b } = await web(t);
  t.is(await manager.ask(['service', 'scale', 'web=2']), 'web scaled to 2');
  t.is(await b.host.read(file), value);
  await manager.ask(['service', 'update', '--constraint-add', `node.id==${b.id}`, 'web']);
  t.is(await a.host.read(file), gone);
  t.is((await live(manager)).length, 2);
  const full = await manager.inro([
    'service',
    'update',
    '--max-replicas-per-node',
    '2',
    '--replicas',
    '3',
    '--detach',
    'web',
  ]);
  t.is(full.code, 0, full.stderr);
  await eventually('it says why', async () =>
    (await manager.ask(['service', 'ps', 'web'])).includes('1 node has 2 of its tasks, which is the most'),
  );
  await manager.ask(['service', 'rm', 'web']);
  await manager.ask(['service', 'create', '--name', 'web', '--mode', 'global', '--secret', 'key']);
  t.is(await a.host.read(file), value);
  t.is(await b.host.read(file), value);
  t.regex(await manager.ask(['service', 'ls']), /web +global +2\/2/);
  const scaled = await manager.inro(['service', 'scale', 'web=2']);
  t.regex(scaled.stderr, /is global: it has one task on each node/);
  await manager.ask(['node', 'update', '--availability', 'drain', a.id]);
  t.is(await a.host.read(file), gone);
  t.is(await values(a), 0);
  t.is(await b.host.read(file), value);
});
