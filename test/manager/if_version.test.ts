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
