/** Going back to an earlier version, and letting old ones go: what nodes are told, and what never comes back. */
import test from 'ava';
import { assignmentOf } from '../../src/manager/assignment.js';
import { ValueExpiry } from '../../src/manager/value_expiry.js';
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

const events = (m: FakeManager): string[] =>
  m.events
    .after(0)
    .filter(({ type }) => type === 'secret')
    .map(({ action, attributes }) => `${action} ${attributes['version'] ?? ''}`);

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
  t.deepEqual(
    events(m).slice(-(pruned?.length ?? 0)),
    pruned?.map((version) => `prune ${version}`),
  );
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

test('a reference can name its version: that one stays, is not pruned, and says so when it is revoked', async (t) => {
  const { m, id } = await scene(3);
  t.teardown(() => m.stop());
  const identity = await m.joined();
  const { node } = m.attach(identity);
  await node.begin();
  const assigned = () => assignmentOf(m.view, identity.nodeId);
  await m.operate('createService', {
    name: 'old',
    references: [{ secretName: 'db', target: 'db', uid: '0', gid: '0', mode: 0o444, version: 2 }],
    replicas: 1,
  });
  await m.createService('web', { secrets: ['db'] });
  const told = async (): Promise<number[]> =>
    [...assigned().versions.values()].map(({ version }) => version).toSorted();
  t.deepEqual(await told(), [2, 3]);
  await m.updateSecret(id, 'value 4');
  t.deepEqual(await told(), [2, 4]);
  const pruned = await m.operate('pruneSecret', { name: 'db', keep: 1 });
  t.true(pruned.inUse?.includes(2));
  t.false(pruned.pruned?.includes(2));
  const shown = await m.operate('getSecret', { name: 'db' });
  t.deepEqual(shown.versions?.find(({ version }) => version === 2)?.pinnedBy, ['old']);
  for (const [version, code] of [
    [9, 'not_found'],
    [1, 'not_found'],
  ] as const)
    await refusesAsync(
      t,
      m.operate('createService', {
        name: 'bad',
        references: [{ secretName: 'db', target: 'db', uid: '0', gid: '0', mode: 0o444, version }],
        replicas: 1,
      }),
      code,
      /has no version/,
    );
  await m.operate('revokeSecret', { name: 'db', version: 2 });
  t.deepEqual(await told(), [4]);
  const { tasks } = await m.operate('listTasks', { name: 'old' });
  t.regex(tasks?.[0]?.error ?? '', /secret db is revoked/);
});

test('a version is tried at one service first, and then everybody has it, or nobody', async (t) => {
  const { m, id } = await scene(1);
  t.teardown(() => m.stop());
  const identity = await m.joined();
  const { node } = m.attach(identity);
  await node.begin();
  const assigned = () => assignmentOf(m.view, identity.nodeId);
  await m.createService('canary', { secrets: ['db'] });
  await m.createService('web', { secrets: ['db'] });
  const told = async (): Promise<Record<string, number>> =>
    Object.fromEntries(
      [...assigned().tasks.values()].map((task) => [task.serviceName, task.references?.[0]?.version ?? 0]),
    );
  const update = (version: number, more: object) =>
    m.operate('updateSecret', { id, version, ...m.seal(`value ${version}`, id, version), ...more });
  t.deepEqual(await told(), { canary: 1, web: 1 });
  await refusesAsync(t, update(2, { stageServices: ['none'] }), 'not_found', /none/);
  await refusesAsync(t, update(2, { stageNodes: 2 }), 'bad_input', /1 nodes have tasks/);
  const staged = await update(2, { stageServices: ['canary'] });
  t.is(staged.version, 2);
  t.deepEqual(await told(), { canary: 2, web: 1 });
  t.like(await m.operate('getSecret', { name: 'db' }), {
    version: 1,
    latestVersion: 2,
    stagedVersion: 2,
    stagedServices: ['canary'],
  });
  await refusesAsync(t, update(3, {}), 'conflict', /version 2 of secret .db. is staged/);
  await refusesAsync(t, m.operate('rollbackSecret', { name: 'db' }), 'conflict', /is staged/);
  t.deepEqual((await m.operate('pruneSecret', { name: 'db', keep: 1 })).pruned, []);
  await m.operate('endStage', { name: 'db', promote: true });
  t.deepEqual(await told(), { canary: 2, web: 2 });
  await refusesAsync(
    t,
    m.operate('endStage', { name: 'db', promote: true }),
    'not_found',
    /no version .* is staged/,
  );

  await update(3, { stageNodes: 1 });
  t.deepEqual(await told(), { canary: 3, web: 3 }, 'both are on that node');
  await m.operate('endStage', { name: 'db', promote: false });
  t.deepEqual(await told(), { canary: 2, web: 2 });
  await refusesAsync(t, update(3, {}), 'conflict', /it has version 3 now/);
  await update(4, { stageServices: ['canary'] });
  await m.operate('revokeSecret', { name: 'db', version: 4 });
  t.deepEqual(await told(), { canary: 2, web: 2 }, 'the one that is tried was revoked');
  t.deepEqual(
    events(m),
    ['create 1', 'stage 2', 'update 2', 'stage 3', 'unstage 3', 'stage 4', 'unstage 4', 'revoke 4'],
    'whoever follows hears of each',
  );
  await update(5, { ifVersion: 2 });
  await refusesAsync(t, update(6, { ifVersion: 2 }), 'conflict', /is at version 5, not 2/);
});

test('a value that expires is warned of, and withdrawn where that was asked for', async (t) => {
  const dayMs = 86_400_000;
  const { m, id } = await scene(1);
  const expiry = new ValueExpiry(m);
  t.teardown(async () => {
    await expiry.stop();
    await m.stop();
  });
  const identity = await m.joined();
  const { node } = m.attach(identity);
  await node.begin();
  const assigned = () => assignmentOf(m.view, identity.nodeId);
  await m.createService('web', { secrets: ['db'] });
  await m.operate('updateSecret', {
    id,
    version: 2,
    ...m.seal('two', id, 2),
    expiration: { ttlMs: BigInt(30 * dayMs), withdraw: false },
  });
  const said = () => m.logged.map(({ msg }) => String(msg)).filter((msg) => msg.startsWith('a value'));
  await m.clock.advance(20 * dayMs);
  t.deepEqual(said(), []);
  const status = await m.operate('getStatus', {});
  t.true(status.expiries?.some(({ kind, name }) => kind === 'value' && name === 'db@2'));
  await m.clock.advance(4 * dayMs);
  t.deepEqual(said(), ['a value expires soon']);
  await m.clock.advance(7 * dayMs);
  t.deepEqual(said(), ['a value expires soon', 'a value has expired, and is still served']);
  t.false(m.view.isRevoked(id, 2));
  await m.operate('updateSecret', {
    id,
    version: 3,
    ...m.seal('three', id, 3),
    expiration: { ttlMs: BigInt(dayMs), withdraw: true },
  });
  await m.clock.advance(dayMs - 60_000);
  t.false(m.view.isRevoked(id, 3));
  await m.clock.advance(120_000);
  for (let n = 0; n < 20; n++) await settle();
  t.true(m.view.isRevoked(id, 3));
  t.is(m.view.version(id, 3)?.revokedBy, 'its expiry');
  t.deepEqual(events(m).slice(1), [
    'update 2',
    'expires 2',
    'expired 2',
    'update 3',
    'expires 3',
    'revoke 3',
  ]);
  t.is(m.events.after(0).at(-1)?.attributes['by'], 'its expiry');
  t.deepEqual([...assigned().tasks.values()][0]?.references, []);
  await refusesAsync(
    t,
    m.operate('updateSecret', {
      id,
      version: 4,
      ...m.seal('four', id, 4),
      expiration: { ttlMs: 0n, withdraw: true },
    }),
    'bad_input',
    /expired already/,
  );
});
