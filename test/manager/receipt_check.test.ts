import { create } from '@bufbuild/protobuf';
import test from 'ava';
import { generateNodeKey, signBytes } from '../../src/crypto/signing.js';
import { receiptStatement } from '../../src/crypto/statement.js';
import { checkReceipts } from '../../src/manager/receipt_check.js';
import { ReceiptSchema, type Receipt } from '../../src/proto/gen/inro/v1/dispatcher_pb.js';
import { anyReceipt, type Said } from '../support/fake_node.js';
import { refusesAsync } from '../support/refuses.js';

const key = generateNodeKey();
const speaker = { clusterId: 'c1', nodeId: 'n1', publicKey: key.publicKey };

function signed(says: Partial<Said> = {}, by = key, as = { clusterId: 'c1', nodeId: 'n1' }): Receipt {
  const said = { ...anyReceipt, ...says };
  return create(ReceiptSchema, {
    ...said,
    number: BigInt(said.number),
    wipedMs: BigInt(said.wipedMs),
    durationUs: BigInt(said.durationUs),
    signature: signBytes(by.privateKey, receiptStatement({ ...as, ...said })),
  });
}

test('receipts of one run in order are believed, with gaps and with each reason', async (t) => {
  await t.notThrowsAsync(checkReceipts([], speaker, 0n));
  await t.notThrowsAsync(checkReceipts([signed({ taskIds: ['t'.repeat(25), 'u'.repeat(25)] })], speaker, 0n));
  const reasons = ['removed', 'revoked', 'superseded', 'lease', 'stopped'];
  const all = reasons.map((reason, n) => signed({ reason, number: 1 + n * n }));
  await t.notThrowsAsync(checkReceipts(all, speaker, 0n));
  await t.notThrowsAsync(
    checkReceipts([signed({ number: Number.MAX_SAFE_INTEGER, mapped: true })], speaker, 0n),
  );
});

const forged: Record<string, Receipt> = {
  'by another key': signed({}, generateNodeKey()),
  'for another node': signed({}, key, { clusterId: 'c1', nodeId: 'n2' }),
  'for another cluster': signed({}, key, { clusterId: 'c2', nodeId: 'n1' }),
  'over another run': { ...signed(), runId: 'x'.repeat(25) },
  'over another number': { ...signed(), number: 2n },
  'over another secret': { ...signed(), secretId: 'x'.repeat(25) },
  'over another version': { ...signed(), version: 2 },
  'over another reason': { ...signed(), reason: 'lease' },
  'over another time': { ...signed(), wipedMs: 2_000n },
  'over another duration': { ...signed(), durationUs: 6n },
  'over other tasks': { ...signed(), taskIds: ['t'.repeat(25)] },
  'over other words on mappings': { ...signed(), mapped: true },
  'with nothing': { ...signed(), signature: new Uint8Array() },
  'with garbage': { ...signed(), signature: Buffer.alloc(71, 0x30) },
};
for (const [name, receipt] of Object.entries(forged)) {
  test(`one that is signed ${name} is refused`, async (t) => {
    await refusesAsync(t, checkReceipts([receipt], speaker, 0n), 'unauthenticated', /is not signed/);
  });
}

const impossible: Record<string, Partial<Receipt>> = {
  'an impossible secret id': { secretId: 'x'.repeat(100_000) },
  'an impossible run id': { runId: '../../x' },
  'an impossible reason': { reason: 'because' },
  'no reason': { reason: '' },
  'the number 0': { number: 0n },
  'a number beyond all': { number: 2n ** 64n - 1n },
  'a task that cannot be': { taskIds: ['../x'] },
  'too many tasks': { taskIds: Array.from({ length: 9 }, () => 't'.repeat(25)) },
  'a time before all': { wipedMs: -1n },
  'a time beyond all': { wipedMs: 2n ** 63n - 1n },
  'an impossible duration': { durationUs: 2n ** 64n - 1n },
};
for (const [name, change] of Object.entries(impossible)) {
  test(`one with ${name} is refused before its signature is looked at`, async (t) => {
    await refusesAsync(t, checkReceipts([{ ...signed(), ...change }], speaker, 0n), 'protocol');
    await refusesAsync(t, checkReceipts([{ ...signed(), ...change }], speaker, 10n), 'protocol');
  });
}

test('numbers that do not grow, and two runs in one message, are refused', async (t) => {
  const check = (...receipts: Receipt[]) =>
    refusesAsync(t, checkReceipts(receipts, speaker, 0n), 'protocol', /order/);
  await check(signed({ number: 2 }), signed({ number: 2 }));
  await check(signed({ number: 2 }), signed({ number: 1 }));
  await check(signed({ number: 1 }), signed({ number: 2, runId: 'x'.repeat(25) }));
});

test('what was taken before costs no signature’s check', async (t) => {
  const bad = { ...signed({ number: 5 }), signature: new Uint8Array() };
  await t.notThrowsAsync(checkReceipts([bad, signed({ number: 6 })], speaker, 5n));
  await refusesAsync(t, checkReceipts([bad], speaker, 4n), 'unauthenticated');
});
