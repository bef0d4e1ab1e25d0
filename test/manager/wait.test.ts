import test, { type ExecutionContext } from 'ava';
import { managerLimits } from '../../src/manager/limits.js';
import { waitForNodes } from '../../src/manager/wait.js';
import { settle } from '../support/fake_clock.js';
import { fakeManager, type Attached, type FakeManager } from '../support/fake_manager.js';
import type { Assignment, FakeNode } from '../support/fake_node.js';

interface Waiting {
  /** undefined while it waits. */
  missing: { nodeHostname?: string; reason?: string }[] | undefined;
  gone: AbortController;
}

async function cluster(t: ExecutionContext) {
  const m = await fakeManager();
  t.teardown(() => m.stop());
  return m;
}

async function nodeOf(m: FakeManager): Promise<Attached & { first: Assignment; nodeId: string }> {
  const identity = await m.joined();
  const attached = m.attach(identity);
  const first = await attached.node.begin({ hostname: `host-${m.view.nodes.size}` });
  await attached.node.applied(first);
  await settle();
  return { ...attached, first, nodeId: identity.nodeId };
}

function wait(
  m: FakeManager,
  request: { revision?: number; nodeIds?: string[]; serviceIds?: string[]; timeoutMs?: number },
): Waiting {
  const waiting: Waiting = { missing: undefined, gone: new AbortController() };
  const { revision = m.view.revision, nodeIds = [], serviceIds = [], timeoutMs = 30_000 } = request;
  const message = { revision: BigInt(revision), nodeIds, serviceIds, timeoutMs };
  void waitForNodes(
    message as Parameters<typeof waitForNodes>[0],
    { ...m, nodes: m.nodeStates },
    waiting.gone.signal,
  ).then(({ missing }) => (waiting.missing = missing));
  return waiting;
}

/** Does what the node is told until it is told to end tasks, and ends them. */
async function endRemoved(node: FakeNode): Promise<void> {
  for (let ended = false; !ended;) {
    const { removed, revision } = await node.assignment();
    await node.applied({ revision, tasks: removed.map((id) => ({ id })) }, 'SHUTDOWN');
    ended = removed.length > 0;
  }
  await settle();
}

/** Does what the node is told until it is given a task, which then runs. */
async function runNext(node: FakeNode): Promise<void> {
  for (let given = false; !given;) {
    const assignment = await node.assignment();
    await node.applied(assignment);
    given = assignment.tasks.length > 0;
  }
  await settle();
}

test('nothing to wait for is done at once', async (t) => {
  const m = await cluster(t);
  const waiting = wait(m, {});
  await settle();
  t.deepEqual(waiting.missing, []);
});

test('it does not end before the scheduler has come to what an operator has decided', async (t) => {
  const m = await cluster(t);
  const { node, nodeId } = await nodeOf(m);
  const serviceId = await m.createService('web');
  await node.applied(await node.assignment());
  await settle();
  await m.scheduler.stop();
  const { changed } = await m.operate('updateNode', { name: nodeId, availability: 'drain' });
  const waiting = wait(m, { serviceIds: [serviceId], revision: Number(changed?.revision), timeoutMs: 0 });
  await m.clock.advance(0);
  t.like(waiting.missing?.[0], { reason: 'task 1 has not ended yet: its node is drained' });
});

test('it ends when the node says that it has done it, and its task runs', async (t) => {
  const m = await cluster(t);
  const { node, nodeId } = await nodeOf(m);
  const serviceId = await m.createService('web');
  const waiting = wait(m, { nodeIds: [nodeId], serviceIds: [serviceId] });
  await m.clock.advance(5_000);
  t.is(waiting.missing, undefined);
  await node.applied(await node.assignment());
  await settle();
  t.deepEqual(waiting.missing, []);
});

test('when time is up it says who has not done it', async (t) => {
  const m = await cluster(t);
  const { nodeId } = await nodeOf(m);
  const serviceId = await m.createService('web');
  const waiting = wait(m, { nodeIds: [nodeId], serviceIds: [serviceId] });
  await m.clock.advance(29_999);
  t.is(waiting.missing, undefined);
  await m.clock.advance(1);
  t.like(waiting.missing, [
    { nodeHostname: 'host-1', reason: 'has not answered yet' },
    { nodeHostname: 'host-1', reason: 'task 1 is ASSIGNED' },
  ]);
});

test('a node that is away is missing, with what is known of it', async (t) => {
  const m = await cluster(t);
  const known = await nodeOf(m);
  known.breakOff();
  await known.ended;
  await m.clock.advance(60_000);
  const waiting = wait(m, { nodeIds: [known.nodeId], timeoutMs: 1_000 });
  await m.clock.advance(1_000);
  t.like(waiting.missing, [{ nodeHostname: 'host-1', reason: 'node is down' }]);
});

test('a task that fails ends the wait early, with its words', async (t) => {
  const m = await cluster(t);
  const { node } = await nodeOf(m);
  const serviceId = await m.createService('web');
  const waiting = wait(m, { serviceIds: [serviceId] });
  await node.applied(await node.assignment(), 'REJECTED', 'this node has no user named "x"');
  await settle();
  t.like(waiting.missing, [{ reason: 'task 1 is REJECTED: this node has no user named "x"' }]);
});

/** The operator mends what made the task fail; the slot is in its restart delay meanwhile. */
const mends: Record<string, (m: FakeManager, secretId: string) => Promise<unknown>> = {
  service: (m) => m.operate('updateService', { name: 'web', labelsAdd: { mended: 'yes' } }),
  secret: (m, secretId) => m.updateSecret(secretId, 'a value that fits'),
};
for (const [what, mend] of Object.entries(mends)) {
  test(`a task that had failed before the ${what} was mended does not end the wait for its successor`, async (t) => {
    const m = await cluster(t);
    const { node } = await nodeOf(m);
    const secretId = await m.createSecret('db', 'a value that does not fit');
    const serviceId = await m.createService('web', { secrets: ['db'] });
    await node.applied(await node.assignment(), 'REJECTED', 'the arena has no room for 25 bytes');
    await settle();
    await m.clock.advance(100);
    await mend(m, secretId);
    const waiting = wait(m, { serviceIds: [serviceId] });
    await settle();
    t.is(waiting.missing, undefined, 'it waits for the next task of the slot');
    await m.clock.advance(managerLimits.restartDelayMs);
    for (let tasks: unknown[] = []; tasks.length === 0;) {
      const assignment = await node.assignment();
      await node.applied(assignment);
      tasks = assignment.tasks;
    }
    await settle();
    t.deepEqual(waiting.missing, []);
  });
}

test('a slot whose task was shut down is waited for when it is wanted again', async (t) => {
  const m = await cluster(t);
  const { node } = await nodeOf(m);
  const serviceId = await m.createService('web');
  await node.applied(await node.assignment());
  await settle();
  await m.operate('updateService', { name: 'web', replicas: 0 });
  await settle();
  await endRemoved(node);
  await m.clock.advance(100);
  await m.operate('updateService', { name: 'web', replicas: 1 });
  const waiting = wait(m, { serviceIds: [serviceId] }); // before the scheduler has had its turn
  await Promise.resolve();
  t.is(waiting.missing, undefined);
  await settle();
  await runNext(node);
  t.deepEqual(waiting.missing, []);
});

test('scaling down waits until the surplus has ended', async (t) => {
  const m = await cluster(t);
  const { node } = await nodeOf(m);
  const serviceId = await m.createService('web', { replicas: 2 });
  await node.applied(await node.assignment());
  await settle();
  await m.operate('updateService', { name: 'web', replicas: 1 });
  await settle();
  const waiting = wait(m, { serviceIds: [serviceId] });
  await settle();
  t.is(waiting.missing, undefined);
  await endRemoved(node);
  t.deepEqual(waiting.missing, []);
});

test('a node’s word for a revision that it was never sent counts for nothing', async (t) => {
  const m = await cluster(t);
  const { node, nodeId } = await nodeOf(m);
  const waiting = wait(m, { nodeIds: [nodeId], revision: m.view.revision + 1_000, timeoutMs: 1_000 });
  await node.applied({ revision: Number.MAX_SAFE_INTEGER, tasks: [] });
  await settle();
  t.is(waiting.missing, undefined);
  await m.clock.advance(1_000);
  t.is(waiting.missing?.length, 1);
});

test('who does not listen any more is not waited for, and nothing is left behind', async (t) => {
  const m = await cluster(t);
  const serviceId = await m.createService('web');
  const before = m.clock.pending;
  const waiting = wait(m, { serviceIds: [serviceId] });
  await settle();
  t.is(m.clock.pending, before + 1);
  waiting.gone.abort();
  await settle();
  t.is(m.clock.pending, before);
  t.is(waiting.missing?.length, 1);
});

test('no wait is longer than the bound', async (t) => {
  const m = await cluster(t);
  const serviceId = await m.createService('web');
  const waiting = wait(m, { serviceIds: [serviceId], timeoutMs: 2 ** 32 - 1 });
  await m.clock.advance(managerLimits.maxWaitMs);
  t.is(waiting.missing?.length, 1);
});
