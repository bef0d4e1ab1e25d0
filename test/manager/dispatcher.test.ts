import { randomBytes } from 'node:crypto';
import test, { type ExecutionContext } from 'ava';
import { generateNodeKey } from '../../src/crypto/signing.js';
import { drawExchangeKey } from '../../src/crypto/exchange.js';
import { managerLimits } from '../../src/manager/limits.js';
import { InroError } from '../../src/model/error.js';
import { stateOf, wireState } from '../../src/proto/task_state.js';
import { settle } from '../support/fake_clock.js';
import { fakeManager, type FakeManager } from '../support/fake_manager.js';
import { refuses } from '../support/refuses.js';

async function cluster(t: ExecutionContext): Promise<FakeManager> {
  const m = await fakeManager();
  t.teardown(() => m.stop());
  return m;
}

async function nodeOf(m: FakeManager, hostname = 'host') {
  const identity = await m.joined();
  const attached = m.attach(identity);
  const first = await attached.node.begin({ hostname });
  return { ...attached, first, identity, nodeId: identity.nodeId };
}

test('a stream begins with a challenge, a welcome, and everything that the node should have', async (t) => {
  const m = await cluster(t);
  await m.createSecret('db', 'hunter2');
  const serviceId = await m.createService('web', { secrets: ['db'] });
  const { node, first, nodeId } = await nodeOf(m);
  t.is(node.challenge?.clusterId, m.clusterId);
  t.is(node.challenge?.nonce.length, 32);
  t.like(node.welcome, {
    heartbeatPeriodMs: managerLimits.heartbeatPeriodMs,
    leaseMs: BigInt(managerLimits.leaseMs),
    managerAddresses: ['127.0.0.1:1'],
  });
  t.true(first.complete);
  t.is(first.tasks.length, 0, 'it was not ready when the service was made');

  const next = await node.assignment();
  t.false(next.complete);
  t.like(next.tasks[0], { serviceId, serviceName: 'web', slot: 1 });
  t.is(next.versions.length, 1);
  t.is(node.open(next.versions[0] as never), 'hunter2');
  t.is(m.dispatcher.statusOf(nodeId), 'ready');
  t.is(m.view.nodes.get(nodeId)?.description?.hostname, 'host');
});

test('a node is heard with its hello, from when on its lease counts, not when its stream begins', async (t) => {
  const m = await cluster(t);
  const identity = await m.joined();
  const { node } = m.attach(identity);
  await settle();
  await m.clock.advance(8_000);
  await node.begin();
  t.is(m.dispatcher.session(identity.nodeId)?.heardAtMs, m.clock.boottimeMs());
});

test('what comes back holds what it holds: a version is not sent again, unless it is another', async (t) => {
  const m = await cluster(t);
  const secretId = await m.createSecret('db', 'hunter2');
  const one = await nodeOf(m);
  await m.createService('web', { secrets: ['db'] });
  const { versions } = await one.node.assignment();
  const [delivered] = versions;
  if (delivered === undefined) return t.fail('no version');
  const { ciphertextDigest } = delivered;

  let last: Pick<typeof one, 'node' | 'ended'> = one;
  const again = async (holding: { version: number; ciphertextDigest: Uint8Array }) => {
    last.node.channel.close();
    await last.ended;
    last = m.attach(one.identity);
    const { node } = last;
    const assignment = await node.begin({ holdings: [{ secretId, ...holding }] });
    return assignment.versions.map(({ version, ciphertext, sealedKey }) => ({
      version,
      sent: ciphertext.length > 0 || sealedKey.length > 0,
    }));
  };
  t.deepEqual(await again({ version: 1, ciphertextDigest }), [{ version: 1, sent: false }]);
  t.deepEqual(await again({ version: 2, ciphertextDigest }), [{ version: 1, sent: true }]);
  t.deepEqual(await again({ version: 1, ciphertextDigest: randomBytes(32) }), [{ version: 1, sent: true }]);
  await m.updateSecret(secretId, 'changed');
  t.deepEqual(await again({ version: 1, ciphertextDigest }), [{ version: 2, sent: true }]);
});

test('what a node said it holds counts for its first assignment alone', async (t) => {
  const m = await cluster(t);
  const secretId = await m.createSecret('db', 'hunter2');
  const one = await nodeOf(m);
  const serviceId = await m.createService('web', { secrets: ['db'] });
  const [delivered] = (await one.node.assignment()).versions;
  one.node.channel.close();
  await one.ended;
  const { node } = m.attach(one.identity);
  await node.begin({
    holdings: [{ secretId, version: 1, ciphertextDigest: delivered?.ciphertextDigest ?? new Uint8Array() }],
  });
  await m.operate('updateService', { name: serviceId, referencesRemove: ['db'] });
  await node.assignment();
  await m.operate('updateService', {
    name: serviceId,
    referencesAdd: [{ secretName: 'db', target: 'db', uid: '0', gid: '0', mode: 0o444 }],
  });
  const { versions } = await node.assignment();
  t.is(versions.length, 1);
  t.is(node.open(versions[0] as never), 'hunter2', 'it has wiped it meanwhile, and gets it again');
});

test('a rotation sends the new version and the task, nothing else', async (t) => {
  const m = await cluster(t);
  await m.createSecret('other', 'stays');
  const secretId = await m.createSecret('db', 'before');
  const { node } = await nodeOf(m);
  await m.createService('web', { secrets: ['db', 'other'] });
  await node.assignment();
  await m.updateSecret(secretId, 'after');
  const { tasks, removed, versions, complete } = await node.assignment();
  t.false(complete);
  t.deepEqual(removed, []);
  t.deepEqual(
    tasks[0]?.references.map(({ version }) => version),
    [2, 1],
  );
  t.deepEqual(
    versions.map((version) => node.open(version)),
    ['after'],
  );
});

test('a change that is none of its business is not told to a node', async (t) => {
  const m = await cluster(t);
  const [a, b] = [await nodeOf(m), await nodeOf(m)];
  await m.createService('web', { constraints: [`node.id==${a.nodeId}`] });
  t.is((await a.node.assignment()).tasks.length, 1);
  let heard = false;
  void b.node.next().then(() => (heard = true));
  await m.createSecret('db', 'x');
  await m.operate('updateService', {
    name: 'web',
    referencesAdd: [{ secretName: 'db', target: 'db', uid: '0', gid: '0', mode: 0o444 }],
  });
  t.is((await a.node.assignment()).versions.length, 1);
  await settle();
  t.false(heard);
});

test('states are taken from the node whose task it is, and go forward only', async (t) => {
  const m = await cluster(t);
  const [a, b] = [await nodeOf(m), await nodeOf(m)];
  const serviceId = await m.createService('web', { constraints: [`node.id==${a.nodeId}`] });
  const { tasks, revision } = await a.node.assignment();
  const state = (): string =>
    m
      .tasksOf(serviceId)
      .map((task) => `${stateOf(task.state)} ${task.error}`.trim())
      .join();

  await b.node.applied({ revision, tasks }, 'RUNNING');
  await settle();
  t.is(state(), 'ASSIGNED', 'another node’s word');
  await b.node.applied({ revision, tasks }, 'FAILED', 'haha');
  await settle();
  t.is(state(), 'ASSIGNED');

  await a.node.applied({ revision, tasks }, 'RUNNING');
  await settle();
  t.is(state(), 'RUNNING');
  await a.node.applied({ revision, tasks }, 'ASSIGNED');
  await settle();
  t.is(state(), 'RUNNING');
  await a.node.applied({ revision, tasks }, 'FAILED', 'first words');
  await settle();
  await a.node.applied({ revision, tasks }, 'RUNNING');
  await a.node.applied({ revision, tasks }, 'FAILED', 'other words');
  await settle();
  t.is(state(), 'FAILED first words', 'how it ended stays');
});

test('a state that nobody knows, and a task that is gone, change nothing and end nothing', async (t) => {
  const m = await cluster(t);
  const { node } = await nodeOf(m);
  const serviceId = await m.createService('web');
  const { tasks } = await node.assignment();
  const status = (taskId: string, state: number) => ({ taskId, state, error: '', atMs: 0n });
  const strange = [
    status(tasks[0]?.id ?? '', 0),
    status(tasks[0]?.id ?? '', 99),
    status('gone', wireState('RUNNING')),
    status('', wireState('RUNNING')),
  ];
  await node.channel.send({
    message: { case: 'applied', value: { revision: 0n, tasks: strange, receipts: [] } },
  });
  await node.channel.send({ message: { case: 'heartbeat', value: { sequence: 7 } } });
  t.is((await node.expect('heartbeatAck')).value.sequence, 7);
  t.is(m.tasksOf(serviceId)[0]?.state, wireState('ASSIGNED'));
});

test('a stream does not outlive its certificate', async (t) => {
  const m = await cluster(t);
  const { node, ended } = await nodeOf(m);
  const beat = (sequence: number) =>
    node.channel.send({ message: { case: 'heartbeat', value: { sequence } } });
  await m.clock.jump(90 * 86_400_000 - 60_000);
  await beat(1);
  t.is((await node.expect('heartbeatAck')).value.sequence, 1);
  await m.clock.jump(120_000);
  await beat(2);
  const error = (await ended) as InroError;
  t.is(error.code, 'unauthenticated');
  t.regex(error.message, /expired at/);
  t.regex(error.remedy ?? '', /inro agent join --token -/);
});

test('a node’s words are kept in bounds', async (t) => {
  const m = await cluster(t);
  const { node } = await nodeOf(m);
  const serviceId = await m.createService('web');
  await node.applied(await node.assignment(), 'FAILED', 'x'.repeat(100_000));
  await settle();
  t.is(m.tasksOf(serviceId)[0]?.error.length, managerLimits.maxErrorChars);
});

test('a node that beats is ready, one that is silent goes down, and one that was never heard is unknown for a while', async (t) => {
  const m = await cluster(t);
  const never = await m.joined();
  const { node, nodeId, breakOff, ended } = await nodeOf(m);
  const period = managerLimits.heartbeatPeriodMs;
  t.is(m.dispatcher.statusOf(never.nodeId), 'unknown');
  for (let beat = 1; beat <= 10; beat++) {
    await m.clock.advance(period);
    await node.channel.send({ message: { case: 'heartbeat', value: { sequence: beat } } });
    t.is((await node.expect('heartbeatAck')).value.sequence, beat);
    t.is(m.dispatcher.statusOf(nodeId), 'ready');
  }
  t.is(m.dispatcher.statusOf(never.nodeId), 'down');
  await m.clock.advance(period * managerLimits.missedBeats);
  t.is(m.dispatcher.statusOf(nodeId), 'ready');
  await m.clock.advance(1);
  t.is(m.dispatcher.statusOf(nodeId), 'down', 'its stream is open, but nobody answers');
  breakOff();
  await ended;
  t.is(m.dispatcher.statusOf(nodeId), 'down');
});

test('a silent node gets no new tasks', async (t) => {
  const m = await cluster(t);
  const [silent, alive] = [await nodeOf(m, 'silent'), await nodeOf(m, 'alive')];
  for (let beat = 1; beat <= 4; beat++) {
    await m.clock.advance(managerLimits.heartbeatPeriodMs);
    await alive.node.channel.send({ message: { case: 'heartbeat', value: { sequence: beat } } });
    await alive.node.expect('heartbeatAck');
  }
  t.is(m.dispatcher.statusOf(silent.nodeId), 'down');
  const serviceId = await m.createService('web', { replicas: 4 });
  t.deepEqual([...new Set(m.tasksOf(serviceId).map(({ nodeId }) => nodeId))], [alive.nodeId]);
});

test('a node that was silent and beats again gets what waits for a node', async (t) => {
  const m = await cluster(t);
  const { node, nodeId } = await nodeOf(m);
  await m.clock.advance(4 * managerLimits.heartbeatPeriodMs);
  const serviceId = await m.createService('web');
  t.is(stateOf(m.tasksOf(serviceId)[0]?.state ?? 0), 'NEW');
  // Whether its stream was kept or ended: it does what a living agent does.
  const back = node.channel.closed.aborted ? m.attach(node.identity).node : node;
  if (back === node) await node.channel.send({ message: { case: 'heartbeat', value: { sequence: 1 } } });
  else await back.begin();
  await settle();
  t.is(m.dispatcher.statusOf(nodeId), 'ready');
  await m.clock.advance(managerLimits.heartbeatPeriodMs / 2);
  t.is(stateOf(m.tasksOf(serviceId)[0]?.state ?? 0), 'ASSIGNED');
});

for (const how of ['broke before its answer was out', 'was started anew']) {
  test(`a task that was ended while its node ${how} is ended when the node has applied what it should have`, async (t) => {
    const m = await cluster(t);
    const one = await nodeOf(m);
    const serviceId = await m.createService('web', { replicas: 2 });
    await one.node.applied(await one.node.assignment());
    await settle();
    if (how === 'was started anew') {
      one.breakOff();
      await one.ended;
    }
    await m.operate('updateService', { name: 'web', replicas: 1 });
    await settle();
    one.breakOff();
    await one.ended;
    // It comes back and knows nothing of the task that it should not have.
    const { node } = m.attach(one.identity);
    const { revision, tasks } = await node.begin();
    t.is(tasks.length, 1);
    await node.applied({ revision, tasks });
    await settle();
    const [first, second] = m.tasksOf(serviceId);
    t.is(stateOf(first?.state ?? 0), 'RUNNING');
    t.is(stateOf(second?.state ?? 0), 'SHUTDOWN');
  });
}

test('who does not say hello in time is sent away', async (t) => {
  const m = await cluster(t);
  const identity = await m.joined();
  const { node, ended } = m.attach(identity);
  await node.expect('challenge');
  await m.clock.advance(managerLimits.helloMs - 1);
  t.false(node.channel.closed.aborted);
  await m.clock.advance(1);
  t.true(node.channel.closed.aborted);
  await ended;
  t.is(m.clock.pending, 0);
});

test('who said hello in time is not', async (t) => {
  const m = await cluster(t);
  const { node } = await nodeOf(m);
  await m.clock.advance(2 * managerLimits.helloMs);
  t.false(node.channel.closed.aborted);
});

type Hello = NonNullable<Parameters<Awaited<ReturnType<typeof nodeOf>>['node']['hello']>[0]>;
const lies: Record<string, (m: FakeManager) => Hello | Promise<Hello>> = {
  'signed by another key': () => ({ signWith: generateNodeKey().privatePem }),
  'signed by another node': async (m) => ({ signWith: (await m.joined()).keyPem }),
  'signed by the CA': (m) => ({ signWith: m.cluster.rootKeyPem }),
  'over another nonce': () => ({ nonce: randomBytes(32) }),
  'over no nonce': () => ({ nonce: new Uint8Array() }),
  'for another node': async (m) => ({ nodeId: (await m.joined()).nodeId }),
  'for another cluster': () => ({ clusterId: 'another' }),
  'without a signature': () => ({ proof: new Uint8Array() }),
  'with garbage': () => ({ proof: randomBytes(71) }),
};
for (const [name, lie] of Object.entries(lies)) {
  test(`a session key ${name} is refused, and nothing is told`, async (t) => {
    const m = await cluster(t);
    await m.createSecret('db', 'hunter2');
    await m.createService('web', { secrets: ['db'] });
    const identity = await m.joined();
    const { node, ended } = m.attach(identity);
    await node.hello(await lie(m));
    const error = await ended;
    t.true(error instanceof InroError && error.code === 'unauthenticated', String(error));
    await t.throwsAsync(node.next());
    t.is(m.dispatcher.session(identity.nodeId), undefined);
    t.deepEqual(m.dispatcher.readyNodes(), []);
  });
}

test('a proof from another stream of the same node is worth nothing', async (t) => {
  const m = await cluster(t);
  const identity = await m.joined();
  const first = m.attach(identity);
  await first.node.begin();
  const second = m.attach(identity);
  await second.node.hello({
    nonce: first.node.challenge?.nonce ?? new Uint8Array(),
    sessionKey: first.node.session.publicKey,
  });
  t.is(((await second.ended) as InroError).code, 'unauthenticated');
  t.false(first.node.channel.closed.aborted, 'and does not throw the node out');
});

test('a session key with which anybody could read along is refused, though it is signed', async (t) => {
  const m = await cluster(t);
  for (const sessionKey of [new Uint8Array(32), new Uint8Array(), randomBytes(33)]) {
    const { node, ended } = m.attach(await m.joined());
    await node.hello({ sessionKey });
    t.is(((await ended) as InroError).code, 'envelope');
  }
});

test('only the session key that was proved opens what is delivered', async (t) => {
  const m = await cluster(t);
  await m.createSecret('db', 'hunter2');
  const [a, b] = [await nodeOf(m), await nodeOf(m)];
  await m.createService('web', { secrets: ['db'], replicas: 2 });
  const [forA, forB] = [(await a.node.assignment()).versions[0], (await b.node.assignment()).versions[0]];
  if (forA === undefined || forB === undefined) return t.fail('both need it');
  t.is(a.node.open(forA), 'hunter2');
  t.is(b.node.open(forB), 'hunter2');
  t.deepEqual(forA.ciphertext, forB.ciphertext, 'one ciphertext for all');
  refuses(t, () => b.node.open(forA), 'envelope');
  refuses(t, () => a.node.open(forA, drawExchangeKey(a.node.arena)), 'envelope');
});

test('a second hello, or a message that this version does not know, ends the stream', async (t) => {
  const m = await cluster(t);
  const one = await nodeOf(m);
  await one.node.hello();
  t.like(await one.ended, { code: 'protocol', message: 'a second hello in one stream' });
  const two = await nodeOf(m);
  await two.node.channel.send({});
  t.like(await two.ended, { code: 'protocol' });
});

test('a first message that is no hello is refused', async (t) => {
  const m = await cluster(t);
  const { node, ended } = m.attach(await m.joined());
  await node.channel.send({ message: { case: 'heartbeat', value: { sequence: 1 } } });
  t.like(await ended, { code: 'protocol', message: 'the first message of a stream must be Hello' });
});

test('a change is told whenever it comes, also while the one before is just out', async (t) => {
  const m = await cluster(t);
  const { node } = await nodeOf(m);
  for (let turns = 0; turns < 12; turns++) {
    const first = m.createService(`first-${turns}`);
    for (let n = 0; n < turns; n++) await Promise.resolve();
    await Promise.all([first, m.createService(`second-${turns}`)]);
    await settle();
    const told = new Set<string>();
    while (told.size < 2) for (const task of (await node.assignment()).tasks) told.add(task.serviceName);
    t.deepEqual([...told].toSorted(), [`first-${turns}`, `second-${turns}`]);
  }
});

test('a stream that ends leaves no key in the arena and no timer', async (t) => {
  const m = await cluster(t);
  const before = m.arena.facts().pieces;
  const { breakOff, ended } = await nodeOf(m);
  t.is(m.arena.facts().pieces, before + 1);
  breakOff();
  await ended;
  await settle();
  t.is(m.arena.facts().pieces, before);
  t.is(m.clock.pending, 0);
  t.deepEqual(m.dispatcher.readyNodes(), []);
});

test('a node that was removed is told to join again', async (t) => {
  const m = await cluster(t);
  const stranger = m.cluster.worker();
  const error = (await m.attach(stranger).ended) as InroError;
  t.is(error.code, 'not_permitted');
  t.regex(error.remedy ?? '', /join it again/);
});
