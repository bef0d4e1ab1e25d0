import test from 'ava';
import { create } from '@bufbuild/protobuf';
import { Ledger } from '../../src/manager/ledger.js';
import { managerLimits } from '../../src/manager/limits.js';
import { ClusterView } from '../../src/manager/view.js';
import { ReceiptSchema, type Receipt } from '../../src/proto/gen/inro/v1/dispatcher_pb.js';
import { SecretRecordSchema, type ReceiptRecord } from '../../src/proto/gen/inro/v1/records_pb.js';
import { decodeRecord, tables } from '../../src/store/tables.js';
import { transact } from '../../src/store/transaction.js';
import { FakeClock } from '../support/fake_clock.js';
import { anyReceipt, type Said } from '../support/fake_node.js';
import { FakeDisk, fakeStore } from '../support/fake_store.js';
import { refusesAsync } from '../support/refuses.js';

async function ledgerOn(disk = new FakeDisk()) {
  const store = fakeStore({ disk });
  const view = await ClusterView.follow(store);
  const clock = new FakeClock();
  return { disk, store, view, clock, ledger: await Ledger.open({ store, view, clock }) };
}

const version = (secretId: string, number = 1) => ({ secretId, version: number });
const nothing = (): boolean => false;

function receipt(says: Partial<Said> = {}): Receipt {
  const said = { ...anyReceipt, ...says };
  return create(ReceiptSchema, {
    ...said,
    number: BigInt(said.number),
    wipedMs: BigInt(said.wipedMs),
    durationUs: BigInt(said.durationUs),
    signature: Uint8Array.of(1, 2, 3),
  });
}

async function kept({ store }: Awaited<ReturnType<typeof ledgerOn>>): Promise<ReceiptRecord[]> {
  const entries = await store.list(tables.receipts.prefix);
  return entries.map(({ key, value }) => decodeRecord(tables.receipts, key, value));
}

const numbersOf = (receipts: readonly { number: bigint }[]): number[] =>
  receipts.map(({ number }) => Number(number));

test('who may hold what is durable when the word is back, and noted once', async (t) => {
  const l = await ledgerOn();
  await l.ledger.hand('n1', [version('s1'), version('s2')]);
  const { revision } = l.disk;
  await l.ledger.hand('n1', [version('s1')]);
  t.is(l.disk.revision, revision, 'nothing to write');
  t.deepEqual(l.view.holders.of('s1', 1), ['n1']);
  const again = await ledgerOn(l.disk);
  t.is(again.view.holders.ofNode('n1').length, 2);
});

test('steps of one turn are one commit', async (t) => {
  const l = await ledgerOn();
  const nodes = Array.from({ length: 200 }, (_, n) => `n${n}`);
  await Promise.all(nodes.map((nodeId) => l.ledger.hand(nodeId, [version('s1')])));
  t.is(l.disk.revision, 1);
  t.is(l.view.holders.of('s1', 1).length, 200);
});

test('a receipt is kept with all that it says, and ends what its node held', async (t) => {
  const l = await ledgerOn();
  const { secretId } = anyReceipt;
  await transact(l.store, async (tx) =>
    tx.put(tables.secrets, secretId, create(SecretRecordSchema, { id: secretId, name: 'db' })),
  );
  for (const nodeId of ['n1', 'n2']) await l.ledger.hand(nodeId, [version(secretId), version(secretId, 2)]);
  await l.ledger.take('n1', [receipt({ reason: 'revoked', number: 7 })], nothing);
  t.like(await kept(l), [
    {
      nodeId: 'n1',
      runId: anyReceipt.runId,
      number: 7n,
      secretId,
      secretName: 'db',
      version: 1,
      reason: 'revoked',
      wipedMs: 1_000n,
      durationUs: 5n,
      mapped: false,
      takenMs: BigInt(l.clock.now()),
    },
  ]);
  t.deepEqual([...((await kept(l))[0]?.signature ?? [])], [1, 2, 3]);
  t.deepEqual(l.view.holders.of(secretId, 1), ['n2']);
  t.deepEqual(l.view.holders.of(secretId, 2), ['n1', 'n2']);
});

test('each counts once, over repetitions, over a restart, and when both come at once', async (t) => {
  const l = await ledgerOn();
  const [one, two, three] = [receipt({ number: 1 }), receipt({ number: 2 }), receipt({ number: 3 })];
  t.deepEqual(numbersOf(await l.ledger.take('n1', [one, two], nothing)), [1, 2]);
  t.deepEqual(numbersOf(await l.ledger.take('n1', [one, two, three], nothing)), [3]);
  t.is(l.ledger.lastTaken('n1', anyReceipt.runId), 3n);
  t.is(l.ledger.lastTaken('n1', 'another'), 0n);
  t.is(l.ledger.lastTaken('n2', anyReceipt.runId), 0n);

  const again = await ledgerOn(l.disk);
  t.is(again.ledger.lastTaken('n1', anyReceipt.runId), 3n);
  t.deepEqual(await again.ledger.take('n1', [two, three], nothing), []);
  const four = receipt({ number: 4 });
  const both = await Promise.all([1, 2].map(() => again.ledger.take('n1', [four], nothing)));
  t.deepEqual(both.map(numbersOf), [[4], []]);
  t.is((await kept(again)).length, 4);
});

test('runs and nodes have numbers of their own', async (t) => {
  const l = await ledgerOn();
  const other = receipt({ runId: 'q'.repeat(25) });
  t.is((await l.ledger.take('n1', [receipt()], nothing)).length, 1);
  t.is((await l.ledger.take('n1', [other], nothing)).length, 1);
  t.is((await l.ledger.take('n2', [receipt()], nothing)).length, 1);
  t.is(
    (await l.ledger.take('n1', [receipt()], nothing)).length,
    0,
    'an older run, as of two agents with one identity',
  );
});

test('a receipt for an earlier copy of what the node needs does not end the present one', async (t) => {
  const l = await ledgerOn();
  const { secretId } = anyReceipt;
  await l.ledger.hand('n1', [version(secretId)]);
  await l.ledger.take('n1', [receipt({ reason: 'lease', number: 1 })], () => true);
  t.deepEqual(l.view.holders.of(secretId, 1), ['n1']);
});

test('steps for one node happen in the order in which they were asked for', async (t) => {
  const l = await ledgerOn();
  const { secretId } = anyReceipt;
  const hand = () => l.ledger.hand('n1', [version(secretId)]);
  const take = (number: number) => l.ledger.take('n1', [receipt({ number })], nothing);
  await Promise.all([hand(), take(1), hand()]);
  t.deepEqual(l.view.holders.of(secretId, 1), ['n1']);
  await Promise.all([take(2), hand(), take(3)]);
  t.deepEqual(l.view.holders.of(secretId, 1), []);
});

test('what is gone without a receipt is cleared', async (t) => {
  const l = await ledgerOn();
  await l.ledger.hand('n1', [version('s1'), version('s2')]);
  await l.ledger.hand('n2', [version('s1')]);
  await l.ledger.clear('n1', ({ secretId }) => secretId === 's1');
  t.deepEqual(l.view.holders.of('s1', 1), ['n2']);
  t.deepEqual(l.view.holders.of('s2', 1), ['n1']);
});

test('their number in the store is bounded, also after a restart', async (t) => {
  const l = await ledgerOn();
  const perMessage = 2_000;
  for (let from = 1; from <= managerLimits.maxReceipts; from += perMessage)
    await l.ledger.take(
      'flood',
      Array.from({ length: perMessage }, (_, n) => receipt({ number: from + n })),
      nothing,
    );
  t.is((await kept(l)).length, managerLimits.maxReceipts);
  await l.ledger.take('honest', [receipt({ number: 1 })], nothing);
  const again = await ledgerOn(l.disk);
  const more = [1, 2, 3].map((n) => receipt({ number: managerLimits.maxReceipts + n }));
  await again.ledger.take('flood', more, nothing);
  const left = await kept(again);
  t.is(left.length, managerLimits.maxReceipts);
  t.is(left.filter(({ nodeId }) => nodeId === 'honest').length, 1);
  t.is(Math.min(...numbersOf(left.filter(({ nodeId }) => nodeId === 'flood'))), 5);
});

test('the runs that are remembered for a node are bounded', async (t) => {
  const l = await ledgerOn();
  const runs = Array.from({ length: managerLimits.maxRunsPerNode + 1 }, (_, n) =>
    String(n).padStart(25, 'r'),
  );
  for (const runId of runs) await l.ledger.take('n1', [receipt({ runId })], nothing);
  t.deepEqual(
    runs.map((runId) => Number(l.ledger.lastTaken('n1', runId))),
    [0, ...runs.slice(1).map(() => 1)],
  );
});

test('what cannot be written is said to each that asked, and counts for nothing', async (t) => {
  const l = await ledgerOn();
  const full = new Error('no room');
  const { commit } = l.store;
  l.store.commit = async () => {
    throw full;
  };
  await t.throwsAsync(l.ledger.take('n1', [receipt()], nothing), { is: full });
  t.is(l.ledger.lastTaken('n1', anyReceipt.runId), 0n);
  l.store.commit = commit;
  t.is((await l.ledger.take('n1', [receipt()], nothing)).length, 1, 'it is sent again, and taken');
});

test('a record that cannot be read keeps no other node from its own', async (t) => {
  const l = await ledgerOn();
  const key = `n1/s1/0000000001`;
  l.disk.entries.set(tables.holders.prefix + key, { value: Uint8Array.of(0xff), revision: 1 });
  const bad = t.throwsAsync(l.ledger.hand('n1', [version('s1')]), { message: /cannot be read/ });
  await l.ledger.hand('n2', [version('s1')]);
  await bad;
  t.deepEqual(l.view.holders.of('s1', 1), ['n2']);
});

test('stopped, it finishes what it was asked for and takes nothing more', async (t) => {
  const l = await ledgerOn();
  const last = l.ledger.hand('n1', [version('s1')]);
  await l.ledger.stop();
  await last;
  t.deepEqual(l.view.holders.of('s1', 1), ['n1']);
  await refusesAsync(t, l.ledger.hand('n1', [version('s2')]), 'unreachable', /is stopping/);
});
