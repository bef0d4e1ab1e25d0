import { create } from '@bufbuild/protobuf';
import test from 'ava';
import { managerLimits } from '../../src/manager/limits.js';
import { NodeRecordSchema } from '../../src/proto/gen/inro/v1/records_pb.js';
import { stateOf } from '../../src/proto/task_state.js';
import { tables } from '../../src/store/tables.js';
import { transact } from '../../src/store/transaction.js';
import { settle } from '../support/fake_clock.js';
import { scheduling } from '../support/scheduling.js';

const hourMs = 3_600_000;

test('replicas are spread over the ready nodes', async (t) => {
  const s = await scheduling(t, ['a', 'b', 'c']);
  await s.service('web', { replicas: 5 });
  t.deepEqual(s.shown(), ['1 ASSIGNED a', '2 ASSIGNED b', '3 ASSIGNED c', '4 ASSIGNED a', '5 ASSIGNED b']);
});

test('among nodes with as many tasks of this service, the one with the fewest of all takes the next', async (t) => {
  const s = await scheduling(t, ['a', 'b', 'c']);
  await s.service('other', { replicas: 2 });
  await s.service('web', { replicas: 1 });
  t.deepEqual(s.shown('web'), ['1 ASSIGNED c']);
});

test('a task on a node stays there: it never moves', async (t) => {
  const s = await scheduling(t, ['a']);
  await s.service('web', { replicas: 2 });
  const before = s.tasks().map(({ id }) => id);
  await s.nodeReady('b');
  s.ready.delete('a');
  await s.service('web', { labels: { a: 'b' } });
  t.deepEqual(
    s.tasks().map(({ id }) => id),
    before,
  );
  t.deepEqual(s.shown(), ['1 ASSIGNED a', '2 ASSIGNED a']);
});

test('where the constraints do not let it be any more a task ends, and then another comes elsewhere', async (t) => {
  const s = await scheduling(t, ['a', 'b']);
  await s.service('web', { replicas: 2 });
  await s.service('web', { constraints: ['node.id!=a'] });
  t.deepEqual(s.shown(), ['1 ASSIGNED a ending', '2 ASSIGNED b']);
  t.is(s.tasks()[0]?.error, 'its node does not satisfy node.id!=a any more');
  await s.report(s.tasks()[0], 'SHUTDOWN');
  t.deepEqual(s.shown(), ['1 SHUTDOWN a ending', '1 ASSIGNED b', '2 ASSIGNED b']);
});

test('a node that is lost: others take the slots at once, and what it had is to end when it comes back', async (t) => {
  const s = await scheduling(t, ['a', 'b']);
  await s.service('web', { replicas: 2 });
  for (const task of s.tasks()) await s.report(task, 'RUNNING');
  s.ready.delete('a');
  await s.nodesChanged('a');
  t.deepEqual(s.shown(), ['1 RUNNING a', '2 RUNNING b'], 'a node that may come back is waited for');
  s.down.add('a');
  await s.nodesChanged('a');
  t.deepEqual(s.shown(), ['1 RUNNING a ending', '1 ASSIGNED b', '2 RUNNING b']);
  t.is(s.tasks()[0]?.error, 'its node is down');
  s.down.delete('a');
  await s.nodeReady('a');
  t.deepEqual(
    s.shown(),
    ['1 RUNNING a ending', '1 ASSIGNED b', '2 RUNNING b'],
    'it never comes back to life',
  );
});

test('a task on a lost node stays while there is nowhere else for it', async (t) => {
  const s = await scheduling(t, ['a']);
  await s.node('a', 'active');
  await s.service('web');
  await s.report(s.tasks()[0], 'RUNNING');
  s.ready.delete('a');
  s.down.add('a');
  await s.nodesChanged('a');
  t.deepEqual(s.shown(), ['1 RUNNING a']);
  await s.nodeReady('b');
  t.deepEqual(s.shown(), ['1 RUNNING a ending', '1 ASSIGNED b']);
});

test('a drained node: a slot’s next task waits for the end of the one before; a paused node keeps what it has', async (t) => {
  const s = await scheduling(t, ['a', 'b']);
  await s.service('web', { replicas: 2 });
  await s.node('a', 'pause');
  t.deepEqual(s.shown(), ['1 ASSIGNED a', '2 ASSIGNED b']);
  await s.service('web', { replicas: 3 });
  t.deepEqual(s.shown(), ['1 ASSIGNED a', '2 ASSIGNED b', '3 ASSIGNED b']);
  await s.node('a', 'drain');
  t.deepEqual(s.shown(), ['1 ASSIGNED a ending', '2 ASSIGNED b', '3 ASSIGNED b']);
  await s.report(s.tasks()[0], 'SHUTDOWN');
  t.deepEqual(s.shown(), ['1 SHUTDOWN a ending', '1 ASSIGNED b', '2 ASSIGNED b', '3 ASSIGNED b']);
  await s.node('b', 'drain');
  for (const task of s.tasks()) if (stateOf(task.state) === 'ASSIGNED') await s.report(task, 'SHUTDOWN');
  const waiting = s.tasks().filter((task) => stateOf(task.state) === 'NEW');
  t.deepEqual(
    waiting.map(({ error }) => error),
    Array.from({ length: 3 }, () => '2 of 2 ready nodes take no new tasks'),
  );
  await s.node('a', 'active');
  t.is(s.tasks().filter((task) => stateOf(task.state) === 'ASSIGNED' && task.nodeId === 'a').length, 3);
});

test('no more of its tasks on one node than it says', async (t) => {
  const s = await scheduling(t, ['a', 'b']);
  await s.service('web', { replicas: 5, maxReplicasPerNode: 2 });
  t.deepEqual(s.shown(), ['1 ASSIGNED a', '2 ASSIGNED b', '3 ASSIGNED a', '4 ASSIGNED b', '5 NEW -']);
  t.is(s.tasks()[4]?.error, '2 nodes have 2 of its tasks, which is the most');
  await s.nodeReady('c');
  t.deepEqual(s.shown().slice(4), ['5 ASSIGNED c']);
});

test('a global service has a task on each node that may have one', async (t) => {
  const s = await scheduling(t, ['a', 'b']);
  await s.node('b', 'active', { edge: '1' });
  await s.service('web', { global: true, replicas: 0, constraints: ['node.labels.edge==1'] });
  t.deepEqual(s.shown(), ['0 ASSIGNED b']);
  await s.node('a', 'active', { edge: '1' });
  t.deepEqual(s.shown().sort(), ['0 ASSIGNED a', '0 ASSIGNED b']);
  for (const task of s.tasks()) await s.report(task, 'RUNNING');
  s.ready.delete('a');
  s.down.add('a');
  await s.nodesChanged('a');
  t.deepEqual(s.shown().sort(), ['0 RUNNING a', '0 RUNNING b'], 'it could be nowhere else');
  await s.node('b', 'drain', { edge: '1' });
  t.deepEqual(s.shown().sort(), ['0 RUNNING a', '0 RUNNING b ending']);
  const ofB = s.tasks().find(({ nodeId }) => nodeId === 'b');
  await s.report(ofB, 'SHUTDOWN');
  await s.node('b', 'active', { edge: '1' });
  t.deepEqual(s.shown().sort(), ['0 ASSIGNED b', '0 RUNNING a', '0 SHUTDOWN b ending']);
});

test('a global service makes no task on a node that is being removed, though it is still taken for ready', async (t) => {
  const s = await scheduling(t, ['a', 'b']);
  const leaving = create(NodeRecordSchema, { id: 'a', removingMs: 1n });
  await transact(s.store, async (tx) => tx.put(tables.nodes, 'a', leaving));
  await s.service('web', { global: true, replicas: 0 });
  t.deepEqual(s.shown(), ['0 ASSIGNED b']);
});

test('constraints narrow the nodes', async (t) => {
  const s = await scheduling(t, ['a', 'b', 'c']);
  await s.service('web', { replicas: 3, constraints: ['node.id==b'] });
  await s.service('api', { replicas: 2, constraints: ['node.id!=a', 'node.id!=b'] });
  t.deepEqual(s.shown('web'), ['1 ASSIGNED b', '2 ASSIGNED b', '3 ASSIGNED b']);
  t.deepEqual(s.shown('api'), ['1 ASSIGNED c', '2 ASSIGNED c']);
});

test('without a node a task waits and says why, and starts when one is ready', async (t) => {
  const s = await scheduling(t);
  await s.service('web', { replicas: 2, constraints: ['node.id==b'] });
  t.deepEqual(s.shown(), ['1 NEW -', '2 NEW -']);
  t.deepEqual(
    s.tasks().map(({ error }) => error),
    ['no node is ready', 'no node is ready'],
  );
  await s.nodeReady('a');
  t.deepEqual(s.shown(), ['1 NEW -', '2 NEW -']);
  await s.nodeReady('b');
  t.deepEqual(s.shown(), ['1 ASSIGNED b', '2 ASSIGNED b']);
  t.deepEqual(
    s.tasks().map(({ error }) => error),
    ['', ''],
  );
});

test('no node that satisfies the constraints is another reason than no node', async (t) => {
  const s = await scheduling(t, ['a', 'b']);
  await s.service('web', { constraints: ['node.id==c'] });
  t.is(s.tasks()[0]?.error, 'none of 2 ready nodes satisfies node.id==c');
});

test('waiting costs no commits', async (t) => {
  const s = await scheduling(t);
  await s.service('web', { replicas: 3 });
  const revision = await s.store.revision();
  for (let n = 0; n < 5; n++) {
    s.scheduler.nodesChanged(['a']);
    await s.clock.advance(10_000);
  }
  t.is(await s.store.revision(), revision);
});

test('scaling up makes tasks, scaling down ends those with the highest slots', async (t) => {
  const s = await scheduling(t, ['a', 'b']);
  await s.service('web', { replicas: 1 });
  await s.report(s.tasks()[0], 'RUNNING');
  await s.service('web', { replicas: 3 });
  t.deepEqual(s.shown(), ['1 RUNNING a', '2 ASSIGNED b', '3 ASSIGNED a']);
  await s.service('web', { replicas: 1 });
  t.deepEqual(s.shown(), ['1 RUNNING a', '2 ASSIGNED b ending', '3 ASSIGNED a ending']);
  await s.report(s.tasks()[1], 'SHUTDOWN');
  await s.report(s.tasks()[2], 'SHUTDOWN');
  t.deepEqual(s.shown(), ['1 RUNNING a', '2 SHUTDOWN b ending', '3 SHUTDOWN a ending']);
});

test('scaled down and up again, a slot gets a new task when the old one has ended', async (t) => {
  const s = await scheduling(t, ['a', 'b']);
  await s.service('web', { replicas: 1 });
  await s.service('web', { replicas: 0 });
  await s.service('web', { replicas: 1 });
  t.deepEqual(s.shown(), ['1 ASSIGNED a ending']);
  await s.report(s.tasks()[0], 'SHUTDOWN');
  t.deepEqual(s.shown(), ['1 SHUTDOWN a ending', '1 ASSIGNED a']);
});

test('a task that waits for a node ends at once when it is not wanted any more', async (t) => {
  const s = await scheduling(t);
  await s.service('web', { replicas: 2 });
  await s.service('web', { replicas: 1 });
  t.deepEqual(s.shown(), ['1 NEW -', '2 SHUTDOWN - ending']);
});

for (const state of ['FAILED', 'REJECTED'] as const) {
  test(`a task that is ${state} is replaced after the restart delay, not before`, async (t) => {
    const s = await scheduling(t, ['a']);
    await s.service('web');
    await s.report(s.tasks()[0], state, 'it does not fit');
    await s.clock.advance(managerLimits.restartDelayMs - 1);
    t.deepEqual(s.shown(), [`1 ${state} a`]);
    await s.clock.advance(1);
    t.deepEqual(s.shown(), [`1 ${state} a`, '1 ASSIGNED a']);
    t.is(s.tasks()[0]?.error, 'it does not fit', 'and says on why');
  });
}

test('a task that completed or was shut down is replaced at once', async (t) => {
  const s = await scheduling(t, ['a']);
  await s.service('web');
  await s.report(s.tasks()[0], 'SHUTDOWN');
  t.deepEqual(s.shown(), ['1 SHUTDOWN a', '1 ASSIGNED a']);
});

test('where a slot has failed twice in a row it is not tried again while there is another node', async (t) => {
  const s = await scheduling(t, ['a', 'b']);
  await s.service('other', { constraints: ['node.id==b'], replicas: 3 });
  await s.service('web');
  const tried: string[] = [];
  for (let n = 0; n < 7; n++) {
    const live = s.tasks().find((task) => stateOf(task.state) === 'ASSIGNED');
    tried.push(live?.nodeId ?? '-');
    await s.report(live, 'REJECTED', 'the arena is full');
    await s.clock.advance(managerLimits.restartDelayMs);
  }
  t.deepEqual(tried, ['a', 'a', 'b', 'a', 'a', 'b', 'a']);
});

test('one slot that fails for ever is tried once a delay, and its ended tasks are bounded', async (t) => {
  const s = await scheduling(t, ['a']);
  await s.service('web', { replicas: 2 });
  let made = 0;
  for (let round = 0; round < 10; round++) {
    const live = s.tasks().find((task) => task.slot === 1 && stateOf(task.state) === 'ASSIGNED');
    if (live === undefined) break;
    made += 1;
    await s.report(live, 'REJECTED');
    await s.clock.advance(managerLimits.restartDelayMs);
  }
  t.is(made, 10);
  const ended = s.tasks().filter((task) => stateOf(task.state) === 'REJECTED');
  t.is(ended.length, managerLimits.endedTasksPerSlot);
  t.deepEqual(
    s.shown().filter((line) => line.startsWith('2')),
    ['2 ASSIGNED a'],
    'the other slot is not touched',
  );
});

test('a wall clock that is set back does not keep a service down', async (t) => {
  const s = await scheduling(t, ['a']);
  await s.service('web');
  await s.report(s.tasks()[0], 'FAILED');
  s.clock.setWall(s.clock.now() - hourMs);
  await s.clock.advance(2 * managerLimits.restartDelayMs);
  t.deepEqual(s.shown().toSorted(), ['1 ASSIGNED a', '1 FAILED a']);
});

for (const [way, byMs] of [
  ['forward', hourMs],
  ['back', -hourMs],
] as const) {
  test(`a wall clock that is set ${way} makes no storm: a task that fails at once is tried once a delay`, async (t) => {
    const s = await scheduling(t, ['a']);
    await s.service('web');
    await s.report(s.tasks()[0], 'FAILED');
    s.clock.setWall(s.clock.now() + byMs);
    const made = new Set<string>();
    for (let elapsedMs = 0; elapsedMs < 30_000; elapsedMs += 500) {
      await s.clock.advance(500);
      const live = s.tasks().find((task) => stateOf(task.state) === 'ASSIGNED');
      if (live === undefined) continue;
      made.add(live.id);
      await s.report(live, 'FAILED');
    }
    t.true(made.size >= 2 && made.size <= 7, `${made.size} tasks in 30 s`);
  });
}

test('services do not disturb each other', async (t) => {
  const s = await scheduling(t, ['a']);
  await s.service('web');
  await s.service('api');
  const web = s.tasks('web')[0]?.id;
  await s.report(s.tasks('api')[0], 'FAILED');
  await s.clock.advance(managerLimits.restartDelayMs);
  t.deepEqual(s.shown('web'), ['1 ASSIGNED a']);
  t.is(s.tasks('web')[0]?.id, web);
});

test('a store that fails for a while is tried again', async (t) => {
  let full = true;
  const s = await scheduling(t, ['a'], {
    delay: async (call) => {
      if (call === 'commit' && full && s?.view.services.size === 1) throw new Error('the disk is full');
    },
  });
  await s.service('web');
  t.deepEqual(s.shown(), []);
  t.is(s.errors.length, 1);
  full = false;
  await s.clock.advance(managerLimits.restartDelayMs);
  t.deepEqual(s.shown(), ['1 ASSIGNED a']);
});

test('a service that goes while it is scheduled leaves no task behind', async (t) => {
  const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
  const s = await scheduling(t, ['a'], { delay: turn });
  await s.service('web', { replicas: 3 });
  const putting = s.service('api', { replicas: 3 });
  await turn();
  const removing = transact(s.store, async (tx) => {
    await tx.get(tables.services, 'api');
    for (const task of s.view.tasksOfService('api')) tx.delete(tables.tasks, task.id);
    tx.delete(tables.services, 'api');
  });
  await Promise.all([putting, removing]);
  for (let n = 0; n < 20; n++) await settle();
  t.false(s.view.services.has('api'));
  t.deepEqual(s.shown('api'), []);
});

test('stopped, it starts nothing any more and holds no timer', async (t) => {
  const s = await scheduling(t, ['a']);
  await s.service('web');
  await s.report(s.tasks()[0], 'FAILED');
  t.is(s.clock.pending, 1);
  await s.scheduler.stop();
  t.is(s.clock.pending, 0);
  await s.service('web', { replicas: 3 });
  t.deepEqual(s.shown(), ['1 FAILED a']);
});
