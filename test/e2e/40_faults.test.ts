/** Processes that are stopped or killed, and hosts that are cut off, while secrets are served, moved and taken away. */
import type { ExecutionContext } from 'ava';
import { scenario } from '../support/host.js';
import { eventually, pause, type Daemon } from '../support/inro.js';
import { readSteadily, type ReaderResult } from '../support/steady_reader.js';
import { twoNodes, type NodeHost, type TwoNodes } from '../support/two_nodes.js';

const file = '/run/inro/secrets/web/key';
const gone = 'No such file or directory';
const stale = 'Stale file handle';

interface Task {
  id: string;
  nodeId: string;
  state: string;
  desiredState: string;
}

interface Receipt {
  nodeId: string;
  tasks: string[];
  secret: string;
  version: number;
  reason: string;
  signatureChecked: boolean;
}

interface Secret {
  versions: { version: number; holders: { nodeId: string; until: string | null }[] }[];
}

type Cluster = TwoNodes & { agentOf: (node: NodeHost) => Daemon };

async function cluster(t: ExecutionContext): Promise<Cluster> {
  const agents: Daemon[] = [];
  const nodes = await twoNodes(t, async (host) => agents.push(await host.startAgent()));
  const agentOf = (node: NodeHost): Daemon => agents[node === nodes.a ? 0 : 1] as Daemon;
  return Object.assign(nodes, { agentOf });
}

const held = async ({ host }: NodeHost): Promise<number> =>
  (await host.json<{ arena: { values: number } }>(['agent', 'status'])).arena.values;

const live = async ({ manager }: TwoNodes): Promise<Task[]> =>
  (await manager.json<Task[]>(['service', 'ps', 'web'])).filter(
    ({ state, desiredState }) => state === 'RUNNING' && desiredState === 'RUNNING',
  );

const receipts = async ({ manager }: TwoNodes, secret: string): Promise<Receipt[]> =>
  manager.json<Receipt[]>(['receipts', '--secret', secret]);

const holders = async ({ manager }: TwoNodes, name: string): Promise<string[]> => {
  const [secret] = await manager.json<Secret[]>(['secret', 'inspect', name]);
  const versions = secret?.versions ?? [];
  return versions.flatMap((each) => each.holders.map(({ nodeId }) => `${nodeId} ${each.version}`));
};

/** Whatever failed, nobody was given what he should not have been. */
function nothingWrong(t: ExecutionContext, results: readonly ReaderResult[]): void {
  for (const { wrong } of results) {
    const { 'a list without it': _, ...values } = wrong;
    t.deepEqual(values, {});
  }
  t.true(results.every(({ reads }) => reads > 0));
}

/** Service web with one task, on the first node. */
async function webOnA({ manager, b }: TwoNodes, secrets: readonly string[]): Promise<void> {
  await manager.ask(['node', 'update', '--availability', 'pause', b.id]);
  await manager.ask(['service', 'create', '--name', 'web', ...secrets.flatMap((name) => ['--secret', name])]);
  await manager.ask(['node', 'update', '--availability', 'active', b.id]);
}

scenario(
  '1: an agent that is stopped: others take over; when it goes on, what is over is not read, the rest is wiped first',
  async (t) => {
    const c = await cluster(t);
    const { manager, a, b } = c;
    await manager.ask(['secret', 'create', 'key', '-'], { stdin: 'first' });
    await manager.ask(['secret', 'create', '--lease', '10s', 'short', '-'], { stdin: 'short' });
    await webOnA(c, ['key', 'short']);
    t.is(await a.host.read(file), 'first');
    const [task] = await live(c);
    const finish = await readSteadily(a.host, file, ['first']);

    process.kill(c.agentOf(a).pid, 'SIGSTOP');
    t.teardown(() => process.kill(c.agentOf(a).pid, 'SIGCONT'));
    await manager.ask(['secret', 'update', '--detach', 'key', '-'], { stdin: 'second' });
    await eventually('the other node serves', async () => (await b.host.read(file)) === 'second', 60_000);
    const late = a.host.spawn(['cat', '/run/inro/secrets/web/short']);
    await pause(300);
    t.true(late.running, 'nobody answers it');
    process.kill(c.agentOf(a).pid, 'SIGCONT');

    await late.exited;
    t.is(late.stdout, '', 'it was over before anybody could answer');
    await eventually('it has wiped', async () => (await held(a)) === 0);
    t.is(await a.host.read(file), gone);
    nothingWrong(t, await finish());
    await eventually('it has said so', async () => (await receipts(c, 'short')).length > 0);
    const said = [...(await receipts(c, 'key')), ...(await receipts(c, 'short'))];
    t.deepEqual(
      said.map(({ nodeId, tasks, secret, reason }) => [nodeId, tasks, secret, reason]),
      [
        [a.id, [task?.id], 'key', 'removed'],
        [a.id, [task?.id], 'short', 'lease'],
      ],
    );
    t.true(said.every(({ signatureChecked }) => signatureChecked));
    t.deepEqual(await holders(c, 'key'), [`${b.id} 2`]);
    t.deepEqual(
      (await live(c)).map(({ nodeId }) => nodeId),
      [b.id],
    );
  },
  { timeoutMs: 240_000 },
);

scenario(
  '2: a manager that is killed in a rolling update, and one that is stopped: nothing is lost, moved or sent again',
  async (t) => {
    const c = await cluster(t);
    const { manager, a } = c;
    const large = 'v'.repeat(60_000);
    const names = Array.from({ length: 8 }, (_, n) => `large-${n}`);
    await manager.ask(['secret', 'create', 'key', '-'], { stdin: 'first' });
    for (const name of names) await manager.ask(['secret', 'create', name, '-'], { stdin: large });
    const policy = ['--update-parallelism', '1', '--update-delay', '0s', '--update-monitor', '1s'];
    const references = ['key', ...names].flatMap((name) => ['--secret', name]);
    await manager.ask(['service', 'create', '--name', 'web', '--replicas', '6', ...policy, ...references]);
    const before = new Set((await live(c)).map(({ id }) => id));
    t.is(before.size, 6);
    const replaced = async (): Promise<number> => (await live(c)).filter(({ id }) => !before.has(id)).length;
    const finish = await readSteadily(a.host, file, ['first']);
    const sentBytes = async (): Promise<number> => {
      const { stdout } = await manager.run(['ip', '-s', '-j', 'link', 'show', a.wire]);
      return (JSON.parse(stdout) as { stats64: { tx: { bytes: number } } }[])[0]?.stats64.tx.bytes ?? 0;
    };

    const sentBefore = await sentBytes();
    t.true(sentBefore > names.length * large.length);
    await manager.ask(['service', 'update', '--force', '--detach', 'web']);
    await eventually('it is under way', async () => (await replaced()) > 0);
    await c.killManager();
    t.is(await a.host.read(file), 'first');
    await c.startManager();
    await eventually('the next one ends it', async () => (await replaced()) === 6, 60_000);
    await eventually('and says so', async () =>
      /completed/.test(await manager.ask(['service', 'inspect', 'web'])),
    );
    const sent = (await sentBytes()) - sentBefore;
    t.log(`${sent} bytes went to the node, which holds ${names.length * large.length}`);
    t.true(sent < (names.length * large.length) / 2);

    nothingWrong(t, await finish());
    const ids = new Set((await live(c)).map(({ id }) => id));
    process.kill(c.managerPid, 'SIGSTOP');
    await pause(17_000);
    t.is(await a.host.read(file), 'first');
    process.kill(c.managerPid, 'SIGCONT');
    await manager.ask(['service', 'update', '--label-add', 'a=b', 'web']);
    t.deepEqual(new Set((await live(c)).map(({ id }) => id)), ids, 'nobody was taken for lost');
  },
  { timeoutMs: 240_000 },
);

scenario(
  '3: a secret that is removed while a node is cut off is gone there with its lease; an agent that is killed in a drain comes back empty',
  async (t) => {
    const c = await cluster(t);
    const { manager, a, b } = c;
    await manager.ask(['secret', 'create', '--lease', '10s', 'key', '-'], { stdin: 'first' });
    await webOnA(c, ['key']);
    t.is(await a.host.read(file), 'first');
    await manager.sh(`ip link set ${a.wire} down`);
    await manager.ask(['service', 'rm', '--detach', 'web']);
    t.regex(
      await manager.ask(['secret', 'inspect', 'key']),
      /UNTIL, IF IT IS NOT HEARD\n.*node-a +1 .*20\d\d-/,
    );
    const removed = await manager.inro(['secret', 'rm', 'key']);
    t.is(removed.code, 0, removed.stderr);
    t.regex(removed.stderr, /secret key is removed, but node-a may serve version 1 of it until 20\d\d-/);
    await eventually('its lease is over', async () => (await a.host.read(file)) === stale, 30_000);
    await eventually('it has wiped, with nobody there to say so', async () => (await held(a)) === 0);
    await manager.sh(`ip link set ${a.wire} up`);
    await eventually('it says so', async () => (await receipts(c, 'key')).length > 0, 60_000);
    t.like((await receipts(c, 'key'))[0], { nodeId: a.id, reason: 'lease', signatureChecked: true });
    t.is(await a.host.read(file), gone);

    await manager.ask(['secret', 'create', 'key', '-'], { stdin: 'second' });
    await manager.ask(['service', 'create', '--name', 'web', '--replicas', '4', '--secret', 'key']);
    t.is(await a.host.read(file), 'second');
    const finish = await readSteadily(a.host, file, ['second']);
    await manager.ask(['node', 'update', '--availability', 'drain', '--detach', a.id]);
    await c.agentOf(a).kill9();
    nothingWrong(t, await finish());
    await a.host.startAgent();
    const onB = async (): Promise<boolean> =>
      (await live(c)).length === 4 && (await live(c)).every(({ nodeId }) => nodeId === b.id);
    await eventually('all are elsewhere', onB, 60_000);
    t.is(await held(a), 0);
    t.is(await a.host.read(file), gone);
    t.is(await b.host.read(file), 'second');
    await eventually('nobody takes it for a holder', async () => (await holders(c, 'key')).length === 1);
    t.deepEqual(await holders(c, 'key'), [`${b.id} 1`]);
  },
  { timeoutMs: 240_000 },
);
