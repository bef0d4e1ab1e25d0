/** Two operators who change one thing: the second hears of the first, if he says what he has seen. */
import { create } from '@bufbuild/protobuf';
import test, { type ExecutionContext } from 'ava';
import { generateNodeKey } from '../../src/crypto/signing.js';
import { createCsr } from '../../src/pki/csr.js';
import { ClusterRecordSchema } from '../../src/proto/gen/inro/v1/records_pb.js';
import { tables } from '../../src/store/tables.js';
import { transact } from '../../src/store/transaction.js';
import { fakeManager, type FakeManager } from '../support/fake_manager.js';
import { refusesAsync } from '../support/refuses.js';

type Seen = { version: number };
type Ask = (call: string, request: object) => Promise<unknown>;

async function cluster(t: ExecutionContext): Promise<{ m: FakeManager; ask: Ask }> {
  const m = await fakeManager();
  t.teardown(() => m.stop());
  return { m, ask: m.operate as unknown as Ask };
}

test('a service, a node, an operator and the CA are changed only at the version that was seen', async (t) => {
  const { m, ask } = await cluster(t);
  const { nodeId } = await m.joined();
  const record = create(ClusterRecordSchema, { id: m.clusterId });
  await transact(m.store, async (tx) => tx.put(tables.cluster, 'self', record));
  await ask('createService', { name: 'web', replicas: 1 });
  await ask('createOperator', {
    name: 'ann',
    role: 'auditor',
    csrPem: createCsr(generateNodeKey().privateKey),
    ttlMs: 3_600_000n,
  });
  const kinds = [
    ['getService', { name: 'web' }, 'updateService', { name: 'web', replicas: 3 }],
    ['getNode', { name: nodeId }, 'updateNode', { name: nodeId, labelsAdd: { a: 'b' } }],
    ['getOperator', { name: 'ann' }, 'updateOperator', { name: 'ann', role: 'admin' }],
    ['getCa', {}, 'updateCa', { certificateLifetimeMs: 86_400_000n }],
  ] as const;
  for (const [get, named, update, change] of kinds) {
    const seen = async (): Promise<number> => ((await ask(get, named)) as Seen).version;
    t.is(await seen(), 1, get);
    await ask(update, { ...change, ifVersion: 1 });
    t.is(await seen(), 2, update);
    await refusesAsync(t, ask(update, { ...change, ifVersion: 1 }), 'conflict', /is at version 2, not 1/);
    t.is(await seen(), 2, update);
    // Who says nothing of what he has seen is not asked.
    await ask(update, change);
    t.is(await seen(), 3, update);
  }
});

test('of two at once with the same version one wins', async (t) => {
  const { ask } = await cluster(t);
  await ask('createService', { name: 'web', replicas: 1 });
  const ends = await Promise.allSettled(
    [2, 3, 4].map((replicas) => ask('updateService', { name: 'web', replicas, ifVersion: 1 })),
  );
  t.is(ends.filter(({ status }) => status === 'fulfilled').length, 1);
  t.is(((await ask('getService', { name: 'web' })) as Seen).version, 2);
});

test('a label that somebody else has changed since it was seen stays as it is; others stand beside each other', async (t) => {
  const { m, ask } = await cluster(t);
  const { nodeId } = await m.joined();
  const id = await m.createSecret('db', 'one');
  await ask('createService', { name: 'web', replicas: 1 });
  const kinds = [
    ['getSecret', { name: 'db' }, 'updateSecret', { id, version: 1 }],
    ['getService', { name: 'web' }, 'updateService', { name: 'web' }],
    ['getNode', { name: nodeId }, 'updateNode', { name: nodeId }],
  ] as const;
  for (const [get, named, update, it] of kinds) {
    const labels = async () => ((await ask(get, named)) as { labels: Record<string, string> }).labels;
    const seen = { labelsSeen: { labels: await labels() } };
    const add = (labelsAdd: Record<string, string>) => ask(update, { ...it, ...seen, labelsAdd });
    const remove = (key: string) => ask(update, { ...it, ...seen, labelsRemove: [key] });
    await add({ tier: 'db' });
    await refusesAsync(t, add({ tier: 'web' }), 'conflict', /label .tier. is .db. by now/);
    await refusesAsync(t, remove('tier'), 'conflict', /label .tier. is .db. by now/);
    await add({ tier: 'db', rack: '7' });
    t.deepEqual(await labels(), { tier: 'db', rack: '7' }, update);
    const later = { labelsSeen: { labels: await labels() } };
    await ask(update, { ...it, ...later, labelsRemove: ['rack'] });
    await refusesAsync(
      t,
      ask(update, { ...it, ...later, labelsAdd: { rack: '8' } }),
      'conflict',
      /is gone by now/,
    );
    // Who says nothing of what he has seen is not asked.
    await ask(update, { ...it, labelsAdd: { tier: 'web' } });
    t.deepEqual(await labels(), { tier: 'web' }, update);
  }
});

test('of two who go back, promote or take back at once, the second is told what has become of it', async (t) => {
  const { m, ask } = await cluster(t);
  const id = await m.createSecret('db', 'one');
  for (const value of ['two', 'three']) await m.updateSecret(id, value);
  const back = () => ask('rollbackSecret', { name: 'db', ifVersion: 3 });
  await back();
  await refusesAsync(t, back(), 'conflict', /secret .db. is at version 2, not 3/);
  await ask('createService', {
    name: 'web',
    replicas: 1,
    references: [{ secretName: 'db', target: 'db', uid: '0', gid: '0', mode: 0o444 }],
  });
  const stage = (version: number) =>
    ask('updateSecret', { id, version, ...m.seal('tried', id, version), stageServices: ['web'] });
  await stage(4);
  // Somebody has looked at version 4 and thinks about it; another one takes it back and tries the next.
  await ask('endStage', { name: 'db', promote: false });
  await stage(5);
  const promote = (ifStaged: number, ifVersion = 2) =>
    ask('endStage', { name: 'db', promote: true, ifStaged, ifVersion });
  await refusesAsync(t, promote(4), 'conflict', /version 5 of secret .db. is staged by now, not 4/);
  await refusesAsync(t, promote(5, 1), 'conflict', /is at version 2, not 1/);
  await promote(5);
  t.is(((await ask('getSecret', { name: 'db' })) as Seen).version, 5);
});

test('of two who rotate the join token at once, one is told; the token of the other is the one', async (t) => {
  const { m, ask } = await cluster(t);
  const record = create(ClusterRecordSchema, {
    id: m.clusterId,
    sealedWorkerToken: m.keyring.keepText('none'),
  });
  await transact(m.store, async (tx) => tx.put(tables.cluster, 'self', record));
  const ends = await Promise.allSettled([1, 2].map(() => ask('rotateJoinToken', { role: 'worker' })));
  t.deepEqual(ends.map(({ status }) => status).toSorted(), ['fulfilled', 'rejected']);
});
