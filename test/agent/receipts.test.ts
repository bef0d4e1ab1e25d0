import test from 'ava';
import { agentLimits } from '../../src/agent/limits.js';
import { Receipts, type SignedReceipt } from '../../src/agent/receipts.js';
import type { Wiped } from '../../src/agent/vault.js';
import { generateNodeKey, verifyBytes } from '../../src/crypto/signing.js';
import { receiptStatement } from '../../src/crypto/statement.js';
import { FakeClock, settle } from '../support/fake_clock.js';
import { refuses } from '../support/refuses.js';
import { receiptsOf } from '../support/receipts.js';

const key = generateNodeKey();
const own = { nodeId: 'n1', clusterId: 'c1' };
const wiped = (version: number): Wiped => ({
  taskIds: [`t${version}`],
  secretId: 's1',
  version,
  reason: 'removed',
  wipedMs: 1_000,
  durationUs: 7,
  mapped: false,
});

/** With so many receipts in it. */
function queue(count: number): Receipts {
  const receipts = receiptsOf(own, 'r1');
  for (let version = 1; version <= count; version++) receipts.add(wiped(version));
  return receipts;
}

const numbers = (receipts: readonly SignedReceipt[]): number[] =>
  receipts.map(({ number }) => Number(number));

test('a receipt is signed over all that it says, for this run of this node of this cluster', (t) => {
  const receipts = queue(3);
  const [receipt] = receipts.after(2, 10, key.privateKey);
  t.like(receipt, {
    runId: 'r1',
    number: 3n,
    secretId: 's1',
    version: 3,
    reason: 'removed',
    wipedMs: 1_000n,
    durationUs: 7n,
    mapped: false,
  });
  const signature = receipt?.signature ?? new Uint8Array();
  const says = { clusterId: 'c1', nodeId: 'n1', runId: 'r1', number: 3, ...wiped(3) };
  t.true(verifyBytes(key.publicKey, receiptStatement(says), signature));
  for (const change of [
    { clusterId: 'c2' },
    { nodeId: 'n2' },
    { runId: 'r2' },
    { number: 4 },
    { secretId: 's2' },
    { version: 4 },
    { reason: 'lease' },
    { wipedMs: 1 },
    { durationUs: 8 },
    { mapped: true },
    { taskIds: [] },
    { taskIds: ['t3', 't4'] },
  ])
    t.false(verifyBytes(key.publicKey, receiptStatement({ ...says, ...change }), signature));
});

test('they go out in order, as many as asked for, and stay until they are acknowledged', (t) => {
  const receipts = queue(5);
  t.deepEqual(numbers(receipts.after(0, 2, key.privateKey)), [1, 2]);
  t.deepEqual(numbers(receipts.after(2, 100, key.privateKey)), [3, 4, 5]);
  t.deepEqual(receipts.after(5, 100, key.privateKey), []);
  t.true(receipts.hasAfter(4));
  t.false(receipts.hasAfter(5));
  t.is(receipts.pending, 5);
  t.deepEqual(
    numbers(receipts.after(0, 100, key.privateKey)),
    [1, 2, 3, 4, 5],
    'another stream gets them all again',
  );
  t.is(receipts.after(0, 1, key.privateKey)[0], receipts.after(0, 1, key.privateKey)[0], 'signed once');
});

test('what waited while the certificate was renewed is signed by the new key, in a stream under that', (t) => {
  const receipts = queue(1);
  const next = generateNodeKey();
  const says = { ...own, runId: 'r1', number: 1, ...wiped(1) };
  for (const { privateKey, publicKey } of [key, next, key]) {
    const [receipt] = receipts.after(0, 1, privateKey);
    t.true(verifyBytes(publicKey, receiptStatement(says), receipt?.signature ?? new Uint8Array()));
  }
});

test('what is acknowledged is forgotten, up to its number; once more changes nothing', (t) => {
  const receipts = queue(5);
  receipts.taken({ runId: 'r1', number: 3n });
  t.deepEqual(numbers(receipts.after(0, 100, key.privateKey)), [4, 5]);
  receipts.taken({ runId: 'r1', number: 3n });
  receipts.taken({ runId: 'r1', number: 1n });
  t.is(receipts.pending, 2);
  receipts.taken({ runId: 'r1', number: 5n });
  t.is(receipts.pending, 0);
  receipts.add(wiped(6));
  t.deepEqual(numbers(receipts.after(0, 100, key.privateKey)), [6], 'numbers go on');
  t.deepEqual(receipts.after(6, 100, key.privateKey), []);
});

test('an acknowledgement of what was never sent is refused, and nothing is forgotten', (t) => {
  const receipts = queue(2);
  refuses(t, () => receipts.taken({ runId: 'r1', number: 3n }), 'protocol', /receipt 3, which/);
  refuses(t, () => receipts.taken({ runId: 'r2', number: 1n }), 'protocol');
  refuses(t, () => receipts.taken({ runId: 'r1', number: 2n ** 64n - 1n }), 'protocol');
  t.is(receipts.pending, 2);
});

test('their number is bounded: the oldest are given up, and counted', (t) => {
  const receipts = queue(agentLimits.maxQueuedReceipts + 3);
  t.is(receipts.pending, agentLimits.maxQueuedReceipts);
  t.is(receipts.dropped, 3);
  t.deepEqual(numbers(receipts.after(0, 2, key.privateKey)), [4, 5], 'a gap says that some are missing');
  receipts.taken({ runId: 'r1', number: 2n });
  t.is(receipts.pending, agentLimits.maxQueuedReceipts);
});

test('who waits for one that is new is woken by it, and by nothing else but the end', async (t) => {
  const receipts = queue(2);
  const over = new AbortController();
  let woken = 0;
  const wait = (): void => void receipts.untilAfter(2, over.signal).then(() => (woken += 1));
  wait();
  receipts.taken({ runId: 'r1', number: 2n });
  await settle();
  t.is(woken, 0);
  receipts.add(wiped(3));
  await settle();
  t.is(woken, 1);
  receipts.taken({ runId: 'r1', number: 3n });
  wait();
  over.abort();
  await settle();
  t.is(woken, 2);
});

test('a wait for all of them ends with the last acknowledgement, or when time is up', async (t) => {
  const clock = new FakeClock();
  const receipts = queue(2);
  let done = false;
  const wait = (): void => void receipts.untilTaken(clock, 1_000).then(() => (done = true));
  wait();
  receipts.taken({ runId: 'r1', number: 1n });
  await settle();
  t.false(done);
  receipts.taken({ runId: 'r1', number: 2n });
  await settle();
  t.true(done);
  t.is(clock.pending, 0);

  receipts.add(wiped(3));
  done = false;
  wait();
  await clock.advance(999);
  t.false(done);
  await clock.advance(1);
  t.true(done);
});

const runId = 'r'.repeat(25);

/** An agent with an arena in which notes lie. */
function agentAt(arena: { note: Uint8Array; room?: number }, drawn = runId): Receipts {
  const keepNote = (note: Uint8Array): void => {
    arena.note = note.length > (arena.room ?? Infinity) ? new Uint8Array() : note;
  };
  return new Receipts({ identity: own, runId: drawn, keepNote, left: arena.note });
}

const told = (receipts: Receipts) =>
  receipts.after(0, 1_000, key.privateKey).map(({ runId: run, number, version }) => [run, number, version]);

test('what an agent that is killed has not told, its successor tells under the same numbers, and goes on', async (t) => {
  const arena = { note: new Uint8Array() };
  const first = agentAt(arena);
  for (const version of [1, 2, 3]) first.add(wiped(version));
  await settle();
  first.taken({ runId, number: 1n });
  await settle();
  const second = agentAt(arena, 'other'.repeat(5));
  t.is(second.pending, 2);
  second.add(wiped(4));
  t.deepEqual(told(second), [
    [runId, 2n, 2],
    [runId, 3n, 3],
    [runId, 4n, 4],
  ]);
  second.taken({ runId, number: 4n });
  await settle();
  t.is(arena.note.length, 0);
  const third = agentAt(arena, 'other'.repeat(5));
  third.add(wiped(5));
  t.deepEqual(told(third), [['other'.repeat(5), 1n, 5]]);
});

test('a receipt is noted before it is sent', (t) => {
  const arena = { note: new Uint8Array() };
  const receipts = agentAt(arena);
  receipts.add(wiped(1));
  t.is(arena.note.length, 0, 'in this turn more may be wiped');
  t.is(receipts.after(0, 10, key.privateKey).length, 1);
  t.deepEqual(told(agentAt(arena)), [[runId, 1n, 1]]);
});

test('of many the newest are noted; where there is no room, none, and the successor begins anew', async (t) => {
  const arena = { note: new Uint8Array(), room: Infinity };
  const receipts = agentAt(arena);
  for (let version = 1; version <= agentLimits.maxNotedReceipts + 10; version++) receipts.add(wiped(version));
  await settle();
  t.true(arena.note.length < 20_000);
  const all = told(agentAt(arena));
  t.is(all.length, agentLimits.maxNotedReceipts);
  t.deepEqual(all.at(-1), [
    runId,
    BigInt(agentLimits.maxNotedReceipts + 10),
    agentLimits.maxNotedReceipts + 10,
  ]);
  arena.room = 100;
  receipts.add(wiped(7));
  await settle();
  const next = agentAt(arena, 'other'.repeat(5));
  next.add(wiped(8));
  t.deepEqual(told(next), [['other'.repeat(5), 1n, 8]]);
});

test('a note that is none is not believed', (t) => {
  const good = { note: new Uint8Array() };
  const receipts = agentAt(good);
  for (const version of [1, 2]) receipts.add(wiped(version));
  receipts.after(0, 1, key.privateKey);
  for (let cut = 1; cut < good.note.length; cut++) {
    const next = agentAt({ note: good.note.subarray(0, cut) }, 'other'.repeat(5));
    next.add(wiped(9));
    const all = told(next);
    t.deepEqual(all.at(-1)?.[2], 9, `cut at ${cut}`);
    t.deepEqual(new Set(all.map(([, number]) => number)).size, all.length);
  }
  t.is(agentAt({ note: new TextEncoder().encode('nonsense') }).pending, 0);
});
