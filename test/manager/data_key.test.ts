/** The data key is replaced: everything is served meanwhile, whatever ends it in between, and what was let go opens no more. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { create } from '@bufbuild/protobuf';
import test from 'ava';
import { unwrap } from '../../src/crypto/envelope.js';
import { drawExchangeKey } from '../../src/crypto/exchange.js';
import { readCluster } from '../../src/manager/cluster_record.js';
import { createKeyring, type Keyring } from '../../src/manager/keyring.js';
import { readDataKeys } from '../../src/manager/data_key_files.js';
import { DataKey } from '../../src/manager/data_key.js';
import { ClusterRecordSchema } from '../../src/proto/gen/inro/v1/records_pb.js';
import { tables } from '../../src/store/tables.js';
import { transact } from '../../src/store/transaction.js';
import { settle } from '../support/fake_clock.js';
import { fakeManager, type FakeManager } from '../support/fake_manager.js';
import { FakeDisk, fakeStore } from '../support/fake_store.js';
import { InroError } from '../../src/model/error.js';

async function scene(count: number, store = fakeStore()) {
  const m = await fakeManager({ store });
  const cluster = create(ClusterRecordSchema, {
    id: m.clusterId,
    createdMs: BigInt(m.clock.now()),
    sealedWorkerToken: m.keyring.keepText('the token'),
  });
  await transact(store, async (tx) => tx.put(tables.cluster, 'self', cluster));
  const ids: string[] = [];
  for (let n = 0; n < count; n++) ids.push(await m.createSecret(`secret-${n}`, `value ${n}`));
  return { m, ids };
}

/** Every version's content key opens with this ring. */
function opensAll(m: FakeManager, ring: Keyring = m.keyring): boolean {
  const session = drawExchangeKey(m.arena);
  const key = ring.sessionKey(session.publicKey);
  try {
    for (const { secretId, version, ciphertextDigest, sealedKey } of m.view.everyVersion())
      if (sealedKey.length > 0)
        ring.deliver(sealedKey, { clusterId: m.clusterId, secretId, version, ciphertextDigest }, key);
    return true;
  } finally {
    key.wipe();
    session.secret.wipe();
  }
}

async function untilDone(m: FakeManager, dataKey = m.dataKey): Promise<void> {
  for (let n = 0; n < 200 && (await dataKey.state()).progress !== undefined; n++) await settle();
}

/** As the next start reads them. */
const ringOf = (m: FakeManager): Keyring =>
  createKeyring(m.arena, drawExchangeKey(m.arena), readDataKeys(m.folder, m.arena));
const bytesIn = (folder: string): Buffer =>
  Buffer.concat(readdirSync(folder).map((name) => readFileSync(join(folder, name))));

test('all content keys are under another key, and the former one is gone from the disk', async (t) => {
  const { m, ids } = await scene(450);
  t.teardown(() => m.stop());
  const former = readFileSync(join(m.folder, 'data.key')).subarray(1);
  const revoked = m.view.everyVersion()[0];
  const [id = ''] = ids;
  await m.operate('revokeSecret', { name: id, version: 1 });
  const { sinceMs } = await m.dataKey.state();
  await m.clock.advance(60_000);
  await m.operate('rotateDataKey', {});
  await t.throwsAsync(m.dataKey.rotate(), { code: 'conflict' });
  // A new value meanwhile.
  await m.updateSecret(ids[1] as string, 'another');
  t.true(opensAll(m));
  await untilDone(m);
  t.true(opensAll(m));
  const state = await m.dataKey.state();
  t.deepEqual(state, { sinceMs: sinceMs + 60_000, lastError: '' });
  t.deepEqual(readdirSync(m.folder), ['data.key']);
  t.is(bytesIn(m.folder).indexOf(former), -1);
  t.true(opensAll(m, ringOf(m)), 'at the next start');
  t.is(m.keyring.readText((await readCluster(m.store)).sealedWorkerToken), 'the token');
  t.is(m.keyring.hasFormer, false);

  // What was revoked before may still lie in a freed page of the store: nothing that is left opens it.
  const { present } = readDataKeys(m.folder, m.arena);
  const binding = { clusterId: m.clusterId, secretId: id, version: 1, ciphertextDigest: new Uint8Array(32) };
  t.true((revoked?.sealedKey.length ?? 0) > 0);
  t.throws(() => unwrap('atRest', revoked?.sealedKey as Uint8Array, binding, present, m.arena), {
    code: 'envelope',
    message: /does not open/,
  });
});

test('a manager that ends in between goes on at its next start', async (t) => {
  const disk = new FakeDisk();
  let commits = 0;
  let failsAfter = Infinity;
  const store = fakeStore({
    disk,
    delay: async (call) => {
      if (call === 'commit' && ++commits > failsAfter) throw new Error('killed');
    },
  });
  const { m } = await scene(450, store);
  t.teardown(() => m.stop());
  for (const after of [1, 2, 3]) {
    failsAfter = commits + after;
    await m.dataKey.rotate();
    for (let n = 0; n < 20; n++) await settle();
    t.true(m.keyring.hasFormer, `killed after ${after} commits`);
    t.deepEqual(readdirSync(m.folder).toSorted(), ['data-next.key', 'data.key']);
    await m.dataKey.stop();
    failsAfter = Infinity;
    // The next run, with the keys that lie there.
    const ring = ringOf(m);
    t.true(ring.hasFormer);
    t.true(opensAll(m, ring));
    const next = new DataKey({ ...m, keyring: ring, publish: async () => undefined });
    await untilDone(m, next);
    t.false(ring.hasFormer);
    t.deepEqual(readdirSync(m.folder), ['data.key']);
    t.true(opensAll(m, ring));
    await next.stop();
    // So far as this test's first run is concerned, it has seen it, too.
    m.keyring.forgetFormer();
    m.keyring.useNext(readDataKeys(m.folder, m.arena).present);
    m.keyring.forgetFormer();
    (m as { dataKey: DataKey }).dataKey = new DataKey({ ...m, publish: async () => undefined });
  }
});

test('a full disk makes it wait, and it says so', async (t) => {
  let full = false;
  const store = fakeStore({
    delay: async (call) => {
      if (full && call === 'commit') throw new InroError('store_full', 'the disk is full');
    },
  });
  const { m } = await scene(3, store);
  t.teardown(() => m.stop());
  full = true;
  await m.dataKey.rotate();
  for (let n = 0; n < 10; n++) await settle();
  t.like(await m.dataKey.state(), { lastError: 'the disk is full', progress: { total: 3 } });
  t.true(opensAll(m));
  full = false;
  await m.clock.advance(10_000);
  await untilDone(m);
  t.is((await m.dataKey.state()).progress, undefined);
  t.true(opensAll(m, ringOf(m)));
});
