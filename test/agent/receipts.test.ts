import test from 'ava';
import { agentLimits } from '../../src/agent/limits.js';
import { Receipts } from '../../src/agent/receipts.js';
import type { Wiped } from '../../src/agent/vault.js';
import { generateNodeKey, verifyBytes } from '../../src/crypto/signing.js';
import { receiptStatement } from '../../src/crypto/statement.js';

const key = generateNodeKey();
const own = { key: key.privateKey, nodeId: 'n1', clusterId: 'c1' };
const wiped = (version: number): Wiped => ({
  secretId: 's1',
  version,
  reason: 'removed',
  wipedMs: 1_000,
  durationUs: 7,
});

test('a receipt is signed over all that it says, for this node of this cluster', (t) => {
  const receipts = new Receipts(own);
  receipts.add(wiped(3));
  const [receipt] = receipts.take(10).map((one) => receipts.signed(one));
  t.like(receipt, { secretId: 's1', version: 3, reason: 'removed', wipedMs: 1_000n, durationUs: 7n });
  const signature = receipt?.signature ?? new Uint8Array();
  const says = { clusterId: 'c1', nodeId: 'n1', ...wiped(3) };
  t.true(verifyBytes(key.publicKey, receiptStatement(says), signature));
  for (const change of [
    { clusterId: 'c2' },
    { nodeId: 'n2' },
    { secretId: 's2' },
    { version: 4 },
    { reason: 'lease' },
    { wipedMs: 1 },
    { durationUs: 8 },
  ])
    t.false(verifyBytes(key.publicKey, receiptStatement({ ...says, ...change }), signature));
});

test('they go out in order, each once, as many as asked for', (t) => {
  const receipts = new Receipts(own);
  for (let version = 1; version <= 5; version++) receipts.add(wiped(version));
  t.deepEqual(
    receipts.take(2).map(({ version }) => version),
    [1, 2],
  );
  t.is(receipts.pending, 3);
  t.deepEqual(
    receipts.take(100).map(({ version }) => version),
    [3, 4, 5],
  );
  t.deepEqual(receipts.take(100), []);
});

test('what could not be sent comes first again', (t) => {
  const receipts = new Receipts(own);
  for (const version of [1, 2, 3]) receipts.add(wiped(version));
  receipts.putBack(receipts.take(2));
  t.deepEqual(
    receipts.take(3).map(({ version }) => version),
    [1, 2, 3],
  );
});

test('what could not be sent is put back, and goes out first', (t) => {
  const receipts = new Receipts(own);
  for (let version = 1; version <= 3; version++) receipts.add(wiped(version));
  receipts.putBack(receipts.take(2));
  receipts.add(wiped(4));
  t.deepEqual(
    receipts.take(100).map(({ version }) => version),
    [1, 2, 3, 4],
  );
});

test('their number is bounded: the oldest are given up, and counted', (t) => {
  const receipts = new Receipts(own);
  for (let version = 1; version <= agentLimits.maxQueuedReceipts + 3; version++) receipts.add(wiped(version));
  t.is(receipts.pending, agentLimits.maxQueuedReceipts);
  t.is(receipts.dropped, 3);
  t.is(receipts.take(1)[0]?.version, 4);
});
