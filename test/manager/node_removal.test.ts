import test, { type ExecutionContext } from 'ava';
import { managerLimits } from '../../src/manager/limits.js';
import { Sweeper } from '../../src/manager/sweeper.js';
import type { InroError } from '../../src/model/error.js';
import type { RemovedNode } from '../../src/proto/gen/inro/v1/control_pb.js';
import { stateOf } from '../../src/proto/task_state.js';
import { settle } from '../support/fake_clock.js';
import { fakeManager, type Attached, type FakeManager } from '../support/fake_manager.js';
import { FakeDisk, fakeStore } from '../support/fake_store.js';
import { refusesAsync } from '../support/refuses.js';

async function cluster(t: ExecutionContext) {
  const disk = new FakeDisk();
  const m = await fakeManager({ store: fakeStore({ disk }) });
  t.teardown(() => m.stop());
  return { m, disk };
}

async function nodeOf(m: FakeManager) {
  const identity = await m.joined();
  const attached = m.attach(identity);
  await attached.node.begin();
  return { ...attached, identity, nodeId: identity.nodeId };
}

/** A node with one task and its one version. */
async function withTask(m: FakeManager) {
  const secretId = await m.createSecret('db', 'hunter2');
  const one = await nodeOf(m);
  const serviceId = await m.createService('web', { secrets: ['db'] });
  await one.node.applied(await one.node.assignment());
  await settle();
  return { ...one, secretId, serviceId };
}

/** The revision of the assignment without this task. */
async function toldToEnd(node: Attached['node'], taskId: string): Promise<number> {
  let hasEnded = false;
  for (;;) {
    const message = await node.next();
    if (message?.case === 'change' && message.value.change.case === 'removeTaskId')
      hasEnded ||= message.value.change.value === taskId;
    if (message?.case === 'commit' && hasEnded) return Number(message.value.revision);
  }
}

const remove = (m: FakeManager, name: string, force = false): Promise<RemovedNode> =>
  m.operate('removeNode', { name, force }) as Promise<RemovedNode>;

test('it is told to have nothing, and when it says so it is gone, without waiting any longer', async (t) => {
  const { m, disk } = await cluster(t);
  const { node, nodeId, secretId, ended } = await withTask(m);
  const accesses = { opened: 1n, refused: 0n, openedMs: 1n, refusedMs: 0n };
  const [taskId = ''] = [...m.view.tasks.keys()];
  const counts = [{ secretId, version: 1, taskId, uid: 0, workload: 'unit x', ...accesses }];
  await node.beat(1, { runId: 'r'.repeat(25), number: 1n, counts });
  await m.clock.advance(managerLimits.gatherCountsMs);
  await node.hears('accessesTaken');

  const removing = remove(m, nodeId);
  const told = await toldToEnd(node, taskId);
  t.is(m.dispatcher.statusOf(nodeId), 'removing');
  t.deepEqual(m.dispatcher.readyNodes(), []);
  await node.report([node.receipt({ secretId, version: 1 })]);
  await node.report([], told);
  t.like(await removing, { id: nodeId, tasks: 1, versions: 1, wiped: 1, leaseEndsMs: 0n });

  const error = (await ended) as InroError | undefined;
  t.true(error === undefined || error.code === 'not_permitted');
  await settle();
  const left = [...disk.entries.keys()].filter((key) => key.includes(nodeId));
  t.deepEqual(
    left.map((key) => key.split('/')[0]),
    ['receipt', 'refused'],
    'its receipts are history',
  );
  t.deepEqual(
    (await m.operate('listTasks', { name: 'web' })).tasks?.map(({ state }) => stateOf(state ?? 0)).sort(),
    ['NEW', 'SHUTDOWN'].sort(),
  );
  const again = (await m.attach(node.identity).ended) as InroError;
  t.is(again.code, 'not_permitted');
  t.regex(again.message, /was removed from the cluster at/);
});

test('one that does not answer is removed after 10 s; its lease is named, and its tasks are not waited for', async (t) => {
  const { m } = await cluster(t);
  const { nodeId, serviceId } = await withTask(m);
  const other = await nodeOf(m);
  const removing = remove(m, nodeId);
  await settle();
  t.deepEqual(
    m.tasksOf(serviceId).map((task) => task.nodeId),
    [nodeId],
    'the slot waits for the end of its task',
  );
  await m.clock.advance(managerLimits.removalWaitMs - 1);
  t.true(m.view.nodes.has(nodeId));
  await m.clock.advance(1);
  const removed = await removing;
  t.like(removed, { tasks: 1, versions: 1, wiped: 0 });
  const leaseEndsMs = m.clock.now() + managerLimits.leaseMs + managerLimits.leaseDriftMs;
  t.true(Number(removed.leaseEndsMs) <= leaseEndsMs && Number(removed.leaseEndsMs) > leaseEndsMs - 20_000);
  t.false(m.view.nodes.has(nodeId));
  t.like(
    m.tasksOf(serviceId).find((task) => task.nodeId === nodeId),
    { error: 'its node was removed' },
  );
  await settle();
  t.true(m.tasksOf(serviceId).some((task) => task.nodeId === other.nodeId));
});

test('by force nothing is waited for; one whose lease is over serves nothing', async (t) => {
  const { m } = await cluster(t);
  const { nodeId } = await withTask(m);
  t.like(await remove(m, nodeId, true), { versions: 1, wiped: 0 });
  await m.operate('removeService', { name: 'web' });
  await m.operate('removeSecret', { name: 'db' });

  const away = await withTask(m);
  away.breakOff();
  await away.ended;
  await m.clock.advance(managerLimits.leaseMs + managerLimits.leaseDriftMs + 1);
  t.like(await remove(m, away.nodeId), { versions: 1, wiped: 1, leaseEndsMs: 0n });
});

test('of two that remove one node at once, each ends, and the node is gone', async (t) => {
  const { m } = await cluster(t);
  const { nodeId } = await withTask(m);
  const both = Promise.allSettled([remove(m, nodeId), remove(m, nodeId)]);
  await settle();
  await m.clock.advance(managerLimits.removalWaitMs);
  t.true((await both).some(({ status }) => status === 'fulfilled'));
  t.false(m.view.nodes.has(nodeId));
  await refusesAsync(t, remove(m, nodeId), 'not_found', /no node/);
});

test('what is noted of its copies outlives it by its lease, when it has not said that it has wiped', async (t) => {
  const { m, disk } = await cluster(t);
  const { nodeId, secretId } = await withTask(m);
  const removing = remove(m, nodeId, true);
  const handing = m.ledger.hand(nodeId, [{ secretId, version: 1 }]);
  const [{ leaseEndsMs }] = await Promise.all([removing, handing]);
  await m.ledger.hand(nodeId, [{ secretId, version: 1 }]);
  const left = (): string[] =>
    [...disk.entries.keys()].filter((key) => key.includes(nodeId) && !key.startsWith('refused/'));
  t.is(left().length, 1);
  t.is(m.view.holders.get(nodeId, secretId, 1)?.removedUntilMs, leaseEndsMs);

  // A version that it may serve is revoked: it is named, with its end.
  const revoked = await m.operate('revokeSecret', { name: 'db', version: 1, operator: 'root' });
  t.deepEqual(revoked.nodeIds, [nodeId]);
  const report = async () => {
    const request = { secretId, version: 1, nodeIds: [nodeId], timeoutMs: 0 };
    const waiting = m.operate('waitForWipes', request);
    await m.clock.advance(0);
    return ((await waiting).nodes ?? [])[0]?.outcome;
  };
  t.like(await report(), {
    case: 'missing',
    value: { reason: 'it was removed while it could not be reached', leaseEndsMs },
  });
  const sweeper = new Sweeper(m);
  t.teardown(() => sweeper.stop());
  const leftMs = Number(leaseEndsMs) - m.clock.now();
  // A wall clock that is set ends no lease.
  m.clock.setWall(Number(leaseEndsMs) + 1);
  await m.clock.advance(managerLimits.sweepMs);
  t.is((await report())?.case, 'missing');
  t.is(left().length, 1);
  await m.clock.jump(leftMs - managerLimits.sweepMs - 60_000);
  t.is(left().length, 1);
  t.is((await report())?.case, 'missing');
  await m.clock.jump(60_001);
  await m.clock.advance(managerLimits.sweepMs);
  t.deepEqual(left(), []);
  t.is((await report())?.case, 'gone');
});
