/** Where a secret goes is the operators' decision: ids and labels that the manager gave, never what a host says of itself. */
import test from 'ava';
import { stateOf } from '../../src/proto/task_state.js';
import { settle } from '../support/fake_clock.js';
import { fakeManager, type FakeManager } from '../support/fake_manager.js';

async function nodeOf(m: FakeManager, hostname: string) {
  const identity = await m.joined();
  const { node } = m.attach(identity);
  await node.begin({ hostname });
  return { id: identity.nodeId, node };
}

test('a label of a node decides once an operator has given it; what the host says of itself does not', async (t) => {
  const m = await fakeManager();
  t.teardown(() => m.stop());
  await m.createSecret('db', 'hunter2');
  const liar = await nodeOf(m, 'rack=7');
  const honest = await nodeOf(m, 'honest');
  const serviceId = await m.createService('web', { secrets: ['db'], constraints: ['node.labels.rack==7'] });
  const where = () => m.tasksOf(serviceId).map(({ nodeId, state }) => [nodeId, stateOf(state)]);
  t.deepEqual(where(), [['', 'NEW']]);
  t.regex(m.tasksOf(serviceId)[0]?.error ?? '', /none of 2 ready nodes satisfies node\.labels\.rack==7/);
  const changed = await m.operate('updateNode', { name: 'honest', labelsAdd: { rack: '7' } });
  t.deepEqual(changed.node?.labels, { rack: '7' });
  await settle();
  t.deepEqual(where(), [[honest.id, 'ASSIGNED']]);
  t.is((await honest.node.assignment()).tasks.length, 1);
  t.is(m.view.tasksOfNode(liar.id).length, 0);

  await t.throwsAsync(m.operate('updateNode', { name: honest.id, labelsRemove: ['never'] }), {
    code: 'not_found',
    message: /has no label/,
  });
  const without = await m.operate('updateNode', { name: honest.id, labelsRemove: ['rack'] });
  t.deepEqual(without.node?.labels, {});
  await settle();
  const [task] = m.tasksOf(serviceId);
  t.is(task?.error, 'its node does not satisfy node.labels.rack==7 any more');
  t.deepEqual((await honest.node.assignment()).tasks, [], 'what the label has brought goes with it');
});

test('a label that is none, and a node that is not there, are refused', async (t) => {
  const m = await fakeManager();
  t.teardown(() => m.stop());
  const { id } = await nodeOf(m, 'a');
  await t.throwsAsync(m.operate('updateNode', { name: id, labelsAdd: { 'a\nb': 'x' } }), {
    code: 'bad_input',
  });
  await t.throwsAsync(m.operate('updateNode', { name: 'nobody', labelsAdd: { a: 'b' } }), {
    code: 'not_found',
  });
  await m.createSecret('db', 'hunter2');
  for (const constraint of ['node.id==nobody', `node.id==${id.slice(0, 10)}`])
    await t.throwsAsync(m.createService('web', { secrets: ['db'], constraints: [constraint] }), {
      code: 'not_found',
      message: /no node has the id/,
    });
  await t.notThrowsAsync(m.createService('web', { secrets: ['db'], constraints: ['node.id!=nobody'] }));
});
