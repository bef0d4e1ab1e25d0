import { create } from '@bufbuild/protobuf';
import test from 'ava';
import { pino } from 'pino';
import { managerLimits } from '../../src/manager/limits.js';
import { NodeWatch } from '../../src/manager/node_watch.js';
import { ClusterView } from '../../src/manager/view.js';
import { NodeRecordSchema } from '../../src/proto/gen/inro/v1/records_pb.js';
import { tables } from '../../src/store/tables.js';
import { transact } from '../../src/store/transaction.js';
import { FakeClock } from '../support/fake_clock.js';
import { fakeStore } from '../support/fake_store.js';

type Contact = 'ready' | 'down' | 'unknown';

async function watching(t: { teardown(step: () => void): void }) {
  const store = fakeStore();
  const clock = new FakeClock();
  const view = await ClusterView.follow(store);
  const state: Record<string, Contact> = { a: 'unknown', b: 'ready' };
  const told: string[] = [];
  const dispatcher = {
    contactWith: (id: string) => state[id] ?? 'down',
    statusOf: (id: string) => state[id] ?? 'down',
    dropSlow: () => undefined,
    readyNodes: () => Object.keys(state).filter((id) => state[id] === 'ready'),
  };
  const onChanged = (ids: readonly string[]): void => void told.push(...ids);
  const watch = new NodeWatch({ view, dispatcher, clock, log: pino({ level: 'silent' }), onChanged });
  for (const id of ['a', 'b'])
    await transact(store, async (tx) => tx.put(tables.nodes, id, create(NodeRecordSchema, { id })));
  void watch.watch();
  t.teardown(() => watch.stop());
  const look = async (): Promise<string[]> => {
    await clock.advance(managerLimits.nodeCheckMs);
    return told.splice(0);
  };
  return { store, clock, state, watch, look };
}

test('what has changed about a node is told once', async (t) => {
  const w = await watching(t);
  t.deepEqual(await w.look(), ['a', 'b']);
  t.deepEqual(await w.look(), []);
  w.state['b'] = 'down';
  t.deepEqual(await w.look(), ['b']);
  t.true(w.watch.isDown('b'));
  t.deepEqual(w.watch.ready(), []);
  const drained = create(NodeRecordSchema, { id: 'a', availability: 'drain' });
  await transact(w.store, async (tx) => tx.put(tables.nodes, 'a', drained));
  t.deepEqual(await w.look(), ['a']);
});

test('when all are silent none is lost, nor are the last to come back', async (t) => {
  const w = await watching(t);
  w.state['a'] = 'ready';
  await w.look();
  const lostMs = managerLimits.heartbeatPeriodMs * managerLimits.missedBeats;
  await w.clock.advance(lostMs);
  w.state['b'] = 'down';
  await w.look();
  t.true(w.watch.isLost('b'), 'the other one was heard all the time');
  w.state['a'] = 'down';
  await w.look();
  t.deepEqual([w.watch.isLost('a'), w.watch.isLost('b')], [false, false]);
  w.state['a'] = 'ready';
  await w.look();
  await w.clock.advance(lostMs - managerLimits.nodeCheckMs);
  t.false(w.watch.isLost('b'));
  await w.clock.advance(managerLimits.nodeCheckMs);
  t.true(w.watch.isLost('b'));
  t.true((await w.look()).includes('b'), 'and that is told');
});

test('a manager that did not look for a while has lost no node: it hears them first', async (t) => {
  const w = await watching(t);
  w.state['a'] = 'ready';
  await w.look();
  const lostMs = managerLimits.heartbeatPeriodMs * managerLimits.missedBeats;
  await w.clock.advance(lostMs);
  for (let n = 0; n < 3; n++) {
    Object.assign(w.state, { a: 'down', b: 'down' });
    await w.clock.jump(10 * lostMs);
    t.deepEqual([w.watch.isLost('a'), w.watch.isDown('a')], [false, false], 'nobody could be heard');
    w.state['a'] = 'ready';
    await w.look();
    t.deepEqual([w.watch.isLost('b'), w.watch.isDown('b')], [false, false]);
    w.state['b'] = 'ready';
    await w.look();
    t.deepEqual([w.watch.steadyInMs('a'), w.watch.steadyInMs('b')], [0, 0], 'nor does any of them flap');
  }
  await w.clock.jump(10 * lostMs);
  w.state['b'] = 'down';
  await w.clock.advance(lostMs);
  t.true(w.watch.isDown('b'), 'who is silent on is down');
  await w.clock.advance(lostMs);
  t.true(w.watch.isLost('b'));
});

test('a node that comes and goes is given nothing until it has stayed, longer each time', async (t) => {
  const w = await watching(t);
  await w.look();
  const held: number[] = [];
  for (let n = 0; n < 8; n++) {
    w.state['b'] = 'down';
    await w.look();
    w.state['b'] = 'ready';
    await w.look();
    held.push(w.watch.steadyInMs('b'));
  }
  const { firstSteadyMs, maxSteadyMs } = managerLimits;
  t.deepEqual(
    held,
    [0, 1, 2, 4, 8, 16, 32, 64].map((n) => Math.min(maxSteadyMs, n * firstSteadyMs)),
  );
  t.deepEqual(w.watch.ready(), []);
  await w.clock.advance(maxSteadyMs - 1);
  t.deepEqual(w.watch.ready(), []);
  await w.clock.advance(1);
  t.deepEqual(w.watch.ready(), ['b']);
  await w.clock.advance(managerLimits.flapWindowMs);
  w.state['b'] = 'down';
  await w.look();
  w.state['b'] = 'ready';
  await w.look();
  t.deepEqual(w.watch.ready(), ['b'], 'what was long ago is forgotten');
});
