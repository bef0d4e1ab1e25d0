/**
 * A node that was conquered has a valid certificate and speaks whatever it likes. It must get nothing but the
 * secrets of its own tasks, and must not keep the manager from serving the others. Against a real manager, over
 * real TLS.
 */
import { randomBytes } from 'node:crypto';
import test, { type ExecutionContext } from 'ava';
import { drawExchangeKey } from '../../src/crypto/exchange.js';
import { generateNodeKey } from '../../src/crypto/signing.js';
import { managerLimits } from '../../src/manager/limits.js';
import { InroError } from '../../src/model/error.js';
import { hasControl } from '../../src/model/name.js';
import { Agent } from '../../src/proto/gen/inro/v1/agent_pb.js';
import { Control, type Task } from '../../src/proto/gen/inro/v1/control_pb.js';
import type { DeliveredVersion, ManagerMessage } from '../../src/proto/gen/inro/v1/dispatcher_pb.js';
import { Enrollment } from '../../src/proto/gen/inro/v1/enrollment_pb.js';
import { stateOf, wireState } from '../../src/proto/task_state.js';
import { call } from '../../src/rpc/client.js';
import type { UnaryNames } from '../../src/rpc/definition.js';
import { rpcLimits } from '../../src/rpc/limits.js';
import type { FakeIdentity } from '../support/fake_authority.js';
import { FakeNode, type Said } from '../support/fake_node.js';
import { realManager, type RealManager } from '../support/real_manager.js';
import { refuses, refusesAsync } from '../support/refuses.js';

interface Scene {
  manager: RealManager;
  /** The conquered node; its own task uses `mine`. */
  hostile: FakeIdentity;
  /** An honest one, attached; its task uses `theirs`. */
  honest: FakeNode;
  secretIds: { mine: string; theirs: string };
  /** The honest node's task and version, as it was told. */
  theirTaskId: string;
  theirVersion: DeliveredVersion;
}

async function scene(t: ExecutionContext): Promise<Scene> {
  const manager = await realManager(t);
  const [hostile, other] = [await manager.joined(), await manager.joined()];
  const secretIds = {
    mine: await manager.createSecret('mine', 'value of mine'),
    theirs: await manager.createSecret('theirs', 'value of theirs'),
  };
  await manager.createService('my-service', ['mine'], hostile.nodeId);
  await manager.createService('their-service', ['theirs'], other.nodeId);
  const honest = manager.attach(other);
  await honest.begin();
  const { tasks, versions, revision } = await honest.assignment();
  await honest.applied({ revision, tasks });
  const [theirVersion] = versions;
  if (theirVersion === undefined) throw new Error('the honest node got nothing');
  return { manager, hostile, honest, secretIds, theirTaskId: tasks[0]?.id ?? '', theirVersion };
}

/** Everything that arrives until the manager has answered a last heartbeat. */
async function everything(node: FakeNode): Promise<ManagerMessage['message'][]> {
  await node.channel.send({ message: { case: 'heartbeat', value: { sequence: 4_711 } } });
  const all: ManagerMessage['message'][] = [];
  for (;;) {
    const message = await node.next();
    if (message === undefined) throw new Error('the stream is over');
    if (message.case === 'heartbeatAck' && message.value.sequence === 4_711) return all;
    all.push(message);
  }
}

function versionsIn(messages: readonly ManagerMessage['message'][]): DeliveredVersion[] {
  return messages.flatMap((message) =>
    message.case === 'change' && message.value.change.case === 'putVersion'
      ? [message.value.change.value]
      : [],
  );
}

/** The honest node still gets what is its own. */
async function honestIsServed(
  t: ExecutionContext,
  { manager, honest, secretIds }: Scene,
  version = 2,
): Promise<void> {
  const text = `value ${version} of theirs`;
  await manager.updateSecret(secretIds.theirs, version, text);
  for (;;) {
    const { versions } = await honest.assignment();
    if (versions.length === 0) continue;
    t.deepEqual(
      versions.map((delivered) => honest.open(delivered)),
      [text],
    );
    break;
  }
}

async function stateOfTheirTask({ manager }: Scene): Promise<string> {
  const { tasks } = await manager.operate('listTasks', { name: 'their-service' });
  return tasks.map(({ state, error }: Task) => `${stateOf(state)} ${error}`.trim()).join();
}

test('it gets its own tasks’ secrets, and never another byte', async (t) => {
  const s = await scene(t);
  const node = s.manager.attach(s.hostile);
  await node.begin();
  await node.applied(await node.assignment());
  // What happens elsewhere in the cluster meanwhile.
  await s.manager.updateSecret(s.secretIds.theirs, 2, 'another value of theirs');
  await s.manager.createSecret('unused', 'nobody needs it');
  await s.manager.operate('updateService', { name: 'their-service', labelsAdd: { a: 'b' } });
  await s.manager.updateSecret(s.secretIds.mine, 2, 'another value of mine');
  const heard = await everything(node);
  t.deepEqual(
    versionsIn(heard).map((version) => node.open(version)),
    ['another value of mine'],
  );
  const text = JSON.stringify(heard, (_, value: unknown) =>
    typeof value === 'bigint' ? String(value) : value,
  );
  for (const foreign of [
    s.secretIds.theirs,
    s.theirTaskId,
    'their-service',
    'theirs',
    'unused',
    s.honest.identity.nodeId,
  ])
    t.false(text.includes(foreign), foreign);
});

test('claiming to hold other nodes’ secrets brings them no nearer', async (t) => {
  const s = await scene(t);
  const { secretIds, theirVersion } = s;
  const { ciphertextDigest } = theirVersion;
  const holdings = [
    { secretId: secretIds.theirs, version: 1, ciphertextDigest },
    { secretId: secretIds.theirs, version: 1, ciphertextDigest: randomBytes(32) },
    { secretId: secretIds.mine, version: 1, ciphertextDigest },
    { secretId: '../secret/x', version: 0, ciphertextDigest: new Uint8Array() },
  ];
  const node = s.manager.attach(s.hostile);
  const first = await node.begin({ holdings });
  const versions = [
    ...first.versions,
    ...(await node.assignment()).versions,
    ...versionsIn(await everything(node)),
  ];
  t.deepEqual(
    versions.map(({ secretId }) => secretId),
    [secretIds.mine],
  );
});

test('what was recorded on another node’s stream does not open here', async (t) => {
  const s = await scene(t);
  const node = s.manager.attach(s.hostile);
  await node.begin();
  t.is(s.honest.open(s.theirVersion), 'value of theirs');
  refuses(t, () => node.open(s.theirVersion), 'envelope', /does not open/);
  const { versions } = await node.assignment();
  const mine = versions[0] as DeliveredVersion;
  t.is(node.open(mine), 'value of mine');
  refuses(t, () => node.open(mine, drawExchangeKey(node.arena)), 'envelope');
  refuses(t, () => node.open({ ...mine, ciphertext: s.theirVersion.ciphertext }), 'envelope');
  refuses(t, () => node.open({ ...mine, secretId: s.secretIds.theirs }), 'envelope');
});

const lies: Record<string, (s: Scene) => Parameters<FakeNode['hello']>[0]> = {
  'a session key that another key signed': () => ({ signWith: generateNodeKey().privatePem }),
  'the proof for another node': (s) => ({ nodeId: s.honest.identity.nodeId }),
  'the proof of another stream': (s) => ({ nonce: s.honest.challenge?.nonce ?? new Uint8Array() }),
  'another node’s session key and nonce': (s) => ({
    nonce: s.honest.challenge?.nonce ?? new Uint8Array(),
    sessionKey: s.honest.session.publicKey,
  }),
  'no proof': () => ({ proof: new Uint8Array() }),
};
for (const [name, lie] of Object.entries(lies)) {
  test(`with ${name} it is told nothing`, async (t) => {
    const s = await scene(t);
    const node = s.manager.attach(s.hostile);
    await node.hello(lie(s));
    await refusesAsync(t, node.next(), 'unauthenticated', /session key is not signed/);
    await honestIsServed(t, s);
  });
}

test('with a session key of low order it is told nothing, though it signed it', async (t) => {
  const s = await scene(t);
  const node = s.manager.attach(s.hostile);
  await node.hello({ sessionKey: new Uint8Array(32) });
  await refusesAsync(t, node.next(), 'envelope', /low order/);
});

test('it cannot speak for other nodes’ tasks', async (t) => {
  const s = await scene(t);
  const node = s.manager.attach(s.hostile);
  await node.begin();
  await everything(node);
  for (const state of ['FAILED', 'SHUTDOWN', 'COMPLETE', 'ORPHANED', 'RUNNING'] as const)
    await node.applied({ revision: 1, tasks: [{ id: s.theirTaskId }] }, state, 'haha');
  await everything(node);
  t.is(await stateOfTheirTask(s), 'RUNNING');
  t.true(s.manager.logged.some(({ msg }) => /reports on a task of another node/.test(String(msg))));
  await honestIsServed(t, s);
});

test('receipts that it did not sign end its stream', async (t) => {
  const s = await scene(t);
  const node = s.manager.attach(s.hostile);
  await node.begin();
  await everything(node);
  const says = { secretId: s.secretIds.theirs };
  await node.report([node.receipt(says, { signWith: generateNodeKey().privatePem })]);
  await refusesAsync(t, node.rest(), 'unauthenticated', /receipt is not signed/);
  t.false(s.manager.logged.some(({ msg }) => msg === 'wiped, by receipt'));
});

const strange: Record<string, Partial<Said>[]> = {
  'the largest number that there is': [{ number: Number.MAX_SAFE_INTEGER }],
  'a number that cannot be': [{ number: 2 ** 63 }],
  'the number 0': [{ number: 0 }],
  'one number twice': [{ number: 3 }, { number: 3, version: 2 }],
  'numbers that go back': [{ number: 3 }, { number: 2 }],
  'two runs in one message': [{ number: 1 }, { number: 2, runId: 'q'.repeat(25) }],
  'a run of its own invention': [{ runId: '../receipt/x' }],
};
for (const [name, says] of Object.entries(strange)) {
  test(`receipts with ${name} hurt nobody else`, async (t) => {
    const s = await scene(t);
    const node = s.manager.attach(s.hostile);
    await node.begin();
    await everything(node);
    const { theirs: secretId } = s.secretIds;
    await node.report(says.map((one) => node.receipt({ secretId, reason: 'revoked', ...one })));
    await everything(node).catch(() => undefined);
    // Its word on another node's copy is worth nothing.
    const { versions } = await s.manager.operate('getSecret', { name: 'theirs' });
    t.is(versions[0]?.nodes, 1);
    await honestIsServed(t, s);
    await s.honest.report([s.honest.receipt({ secretId, reason: 'superseded' })]);
    t.like(await s.honest.taken(), { number: 1n });
  });
}

test('a second hello ends its stream', async (t) => {
  const s = await scene(t);
  const node = s.manager.attach(s.hostile);
  await node.begin();
  await node.hello({ holdings: [] });
  await refusesAsync(t, node.rest(), 'protocol', /second hello/);
});

test('operators’ calls are not for it, and others are not there', async (t) => {
  const s = await scene(t);
  const connection = s.manager.connect(s.hostile);
  for (const name of Object.keys(Control.method) as UnaryNames<typeof Control>[]) {
    const error = await t.throwsAsync<InroError>(call(connection, Control, name, {}), {
      instanceOf: InroError,
    });
    // After some it is told in fewer words, and the log hears no more of it.
    t.true(['not_permitted', 'rate_limited'].includes(error.code), error.message);
    t.regex(error.message, /a worker certificate may not make this call/);
  }
  await refusesAsync(t, call(connection, Agent, 'getStatus', {}), 'not_supported');
  await refusesAsync(
    t,
    call(connection, Enrollment, 'issueCertificate', { csrPem: 'x', token: 'y' }),
    'bad_token',
  );
  t.is((await call(connection, Enrollment, 'getRoot', {})).rootPem, s.manager.rootPem);
});

const strangers: Record<string, (s: Scene) => FakeIdentity | undefined> = {
  'without a certificate': () => undefined,
  'with the certificate of a manager': (s) => s.manager.issue('manager'),
  'with the certificate of a node that is not in the cluster': (s) => s.manager.issue('worker'),
};
for (const [name, identity] of Object.entries(strangers)) {
  test(`${name} nobody gets a challenge`, async (t) => {
    const s = await scene(t);
    const channel = s.manager.open(s.manager.connect(identity(s)));
    const error = await t.throwsAsync<InroError>(new FakeNode(channel, s.hostile).next(), {
      instanceOf: InroError,
    });
    t.true(['unauthenticated', 'not_permitted'].includes(error.code), `${error.code}: ${error.message}`);
    t.truthy(error.remedy);
  });
}

test('a message over the limit ends its stream, and nothing else', async (t) => {
  const s = await scene(t);
  const node = s.manager.attach(s.hostile);
  await node.hello({ hostname: 'x'.repeat(rpcLimits.maxMessageBytes) });
  await refusesAsync(t, node.next(), 'too_large');
  const again = s.manager.attach(s.hostile);
  await again.begin();
  await again.applied({ revision: 1, tasks: [] }, 'FAILED');
  const endless = 'y'.repeat(rpcLimits.maxMessageBytes);
  await again.applied({ revision: 1, tasks: [{ id: 'x' }] }, 'FAILED', endless);
  await refusesAsync(t, again.rest(), 'too_large');
  await honestIsServed(t, s);
});

test('more holdings or states in one message than the bound are refused', async (t) => {
  const s = await scene(t);
  const none = { secretId: '', version: 0, ciphertextDigest: new Uint8Array() };
  const node = s.manager.attach(s.hostile);
  await node.hello({ holdings: Array.from({ length: managerLimits.maxHoldings + 1 }, () => none) });
  await refusesAsync(t, node.next(), 'too_large', /holdings/);
  const again = s.manager.attach(s.hostile);
  await again.begin();
  await again.applied({
    revision: 1,
    tasks: Array.from({ length: managerLimits.maxStatusesPerMessage + 1 }, () => ({ id: '' })),
  });
  await refusesAsync(t, again.rest(), 'too_large', /task states/);
  await honestIsServed(t, s);
});

test('task ids that are none are passed over', async (t) => {
  const s = await scene(t);
  const node = s.manager.attach(s.hostile);
  await node.begin();
  await everything(node);
  for (const id of ['', '\0', '../secret/x', 'x'.repeat(2_000), 'y'.repeat(10_000), 'z'.repeat(1_000_000)])
    await node.applied({ revision: 1, tasks: [{ id }] }, 'FAILED');
  await t.notThrowsAsync(everything(node), 'its stream lives, as for any task that is gone');
  await honestIsServed(t, s);
});

test('what it says of itself and of its tasks cannot corrupt an operator’s terminal or fill the store', async (t) => {
  const s = await scene(t);
  const node = s.manager.attach(s.hostile);
  await node.begin({ hostname: `evil\u001b[2J\u009b31m\n${'x'.repeat(100_000)}` });
  const { tasks, revision } = await node.assignment();
  await node.applied({ revision, tasks }, 'FAILED', 'words\u001b]0;title\u0007\u009b2J\r\nfaked line');
  await everything(node);
  const { description } = await s.manager.operate('getNode', { name: s.hostile.nodeId });
  const listed = await s.manager.operate('listTasks', { name: 'my-service' });
  t.false(hasControl(description?.hostname ?? ''));
  t.true((description?.hostname ?? '').length <= 255);
  t.false(listed.tasks.some(({ error }) => hasControl(error)));
});

test('a flood of heartbeats, of which it reads no answer, keeps nobody else waiting', async (t) => {
  const s = await scene(t);
  const node = s.manager.attach(s.hostile);
  await node.begin();
  let sent = 0;
  const over = new AbortController();
  const flooding = (async () => {
    while (!over.signal.aborted && sent < 200_000) {
      await node.channel.send({ message: { case: 'heartbeat', value: { sequence: sent++ } } });
      if (sent % 500 === 0) await new Promise((resolve) => setImmediate(resolve)); // this process serves, too
    }
  })().catch(() => undefined);
  await new Promise((resolve) => setTimeout(resolve, 300));
  await honestIsServed(t, s, 2);
  await honestIsServed(t, s, 3);
  over.abort();
  t.true(sent > 1_000, `sent ${sent}`);
  t.log(`${sent} heartbeats`);
  node.channel.close();
  await flooding;
});

test('silence after the connection is ended after 10 s, and so are many silent streams', async (t) => {
  const s = await scene(t);
  const connection = s.manager.connect(s.hostile);
  const { atOnce } = managerLimits.streamPace;
  const silent = Array.from({ length: atOnce }, () => new FakeNode(s.manager.open(connection), s.hostile));
  for (const node of silent) await node.expect('challenge');
  for (let n = 0; n < 20; n++)
    await refusesAsync(t, s.manager.attach(s.hostile).next(), 'rate_limited', /comes again too often/);
  await s.manager.clock.advance(managerLimits.helloMs - 1);
  t.true(silent.every((node) => !node.channel.closed.aborted));
  await s.manager.clock.advance(1);
  for (const node of silent) t.deepEqual(await node.rest(), []);
  const again = s.manager.attach(s.hostile);
  await t.notThrowsAsync(again.begin(), 'after a while it may come again');
  await honestIsServed(t, s);
});

test('a stream that ends in any of these ways leaves no timer and no key behind', async (t) => {
  const s = await scene(t);
  const pending = s.manager.clock.pending;
  const one = s.manager.attach(s.hostile);
  await one.hello({ proof: randomBytes(70) });
  await t.throwsAsync(one.next());
  const two = s.manager.attach(s.hostile);
  await two.expect('challenge');
  two.channel.close();
  const three = s.manager.attach(s.hostile);
  await three.begin();
  three.channel.close();
  for (let turn = 0; turn < 500 && s.manager.clock.pending !== pending; turn++)
    await new Promise((resolve) => setTimeout(resolve, 10));
  t.is(s.manager.clock.pending, pending);
  t.is((await s.manager.operate('getNode', { name: s.hostile.nodeId })).id, s.hostile.nodeId);
});

test('it is one node, however many streams it opens: its task runs once', async (t) => {
  const s = await scene(t);
  const nodes = await Promise.all(
    Array.from({ length: 5 }, async () => {
      const node = s.manager.attach(s.hostile);
      await node.hello();
      return node;
    }),
  );
  await new Promise((resolve) => setTimeout(resolve, 100));
  const { tasks } = await s.manager.operate('listTasks', { name: 'my-service' });
  t.is(tasks.length, 1);
  t.is(tasks[0]?.state, wireState('ASSIGNED'));
  for (const node of nodes) node.channel.close();
  await honestIsServed(t, s);
});
