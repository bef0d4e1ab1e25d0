/** Going back to an earlier version, and letting old ones go: what nodes are told, and what never comes back. */
import test from 'ava';
import { fakeManager, type FakeManager } from '../support/fake_manager.js';
import { settle } from '../support/fake_clock.js';
import { refusesAsync } from '../support/refuses.js';

async function scene(versions: number) {
  const m = await fakeManager();
  const id = await m.createSecret('db', 'value 1');
  for (let n = 2; n <= versions; n++) await m.updateSecret(id, `value ${n}`);
  return { m, id };
}

const numbers = (m: FakeManager, id: string): number[] => m.view.versionsOf(id).map(({ version }) => version);

test('a node is told the earlier version, and the next value has a number of its own', async (t) => {
  const { m, id } = await scene(3);
  t.teardown(() => m.stop());
  const { node } = m.attach(await m.joined());
  await node.begin();
  await m.createService('web', { secrets: ['db'] });
  const told = async (): Promise<number[]> =>
    (await node.assignment()).versions.map(({ version }) => version);
  t.deepEqual(await told(), [3]);
  const { version, nodeIds } = await m.operate('rollbackSecret', { name: 'db' });
  t.is(version, 2);
  t.is(nodeIds?.length, 1);
  t.deepEqual(await told(), [2]);
  await m.operate('rollbackSecret', { name: 'db', version: 1 });
  t.deepEqual(await told(), [1]);
  await m.operate('rollbackSecret', { name: 'db', version: 3 });
  t.deepEqual(await told(), [3], 'forward again');
  await m.operate('rollbackSecret', { name: 'db', version: 1 });
  const sealed = m.seal('value 2 anew', id, 2);
  await refusesAsync(
    t,
    m.operate('updateSecret', { id, version: 2, ...sealed }),
    'conflict',
    /it has version 3 now/,
  );
  await m.operate('updateSecret', { id, version: 4, ...m.seal('value 4', id, 4) });
  t.is(m.view.secrets.get(id)?.currentVersion, 4);
});

test('what is revoked never comes back, what is pruned neither, and no number is given twice', async (t) => {
  const { m, id } = await scene(5);
  t.teardown(() => m.stop());
  await m.operate('revokeSecret', { name: 'db', version: 4 });
  await refusesAsync(
    t,
    m.operate('rollbackSecret', { name: 'db', version: 4 }),
    'revoked',
    /never comes back/,
  );
  t.is((await m.operate('rollbackSecret', { name: 'db' })).version, 3, 'the revoked one is passed over');
  await refusesAsync(
    t,
    m.operate('rollbackSecret', { name: 'db', version: 3 }),
    'bad_input',
    /current one already/,
  );
  const { pruned, inUse } = await m.operate('pruneSecret', { name: 'db', keep: 1 });
  t.deepEqual([pruned, inUse], [[1, 2], [3]]);
  t.deepEqual(numbers(m, id), [3, 4, 5]);
  for (const gone of [1, 2]) {
    t.is(await m.store.get(`ciphertext/${id}/000000000${gone}`), undefined);
    await refusesAsync(
      t,
      m.operate('rollbackSecret', { name: 'db', version: gone }),
      'not_found',
      /is not there/,
    );
  }
  await refusesAsync(t, m.operate('rollbackSecret', { name: 'db' }), 'not_found', /no version before 3/);
  await m.operate('rollbackSecret', { name: 'db', version: 5 });
  await m.operate('updateSecret', { id, version: 6, ...m.seal('value 6', id, 6) });
  t.deepEqual((await m.operate('pruneSecret', { name: 'db', keep: 1 })).pruned, [3, 5]);
  t.deepEqual(numbers(m, id), [4, 6], 'what is left of a revoked one stays for ever');
  await refusesAsync(t, m.operate('pruneSecret', { name: 'db', keep: 0 }), 'bad_input', /always kept/);
});

test('what a node may hold is not pruned until it is gone there', async (t) => {
  const { m, id } = await scene(1);
  t.teardown(() => m.stop());
  const { node } = m.attach(await m.joined());
  await node.begin();
  await m.createService('web', { secrets: ['db'] });
  await node.assignment();
  await settle();
  await m.updateSecret(id, 'value 2');
  await settle();
  t.deepEqual(await m.operate('pruneSecret', { name: 'db', keep: 1 }), {
    id,
    name: 'db',
    pruned: [],
    inUse: [1],
  });
  t.deepEqual(numbers(m, id), [1, 2]);
});
