import test from 'ava';
import type { PendingCount } from '../../src/agent/access/access_log.js';
import { CountBatches } from '../../src/agent/access/count_batches.js';
import { agentLimits } from '../../src/agent/limits.js';
import { refuses } from '../support/refuses.js';

const runId = 'r'.repeat(25);

function batches() {
  const log: PendingCount[] = [];
  const taken: PendingCount[][] = [];
  const accesses = {
    pending: () => log,
    taken: (counts: readonly PendingCount[]) => void taken.push([...counts]),
  };
  const add = (opened: number, uid?: number): void =>
    void log.push({
      secretId: 's',
      version: 1,
      taskId: 't',
      workload: 'exec sh',
      refused: 0,
      openedMs: 5,
      refusedMs: 0,
      uid,
      opened,
    });
  return { log, taken, add, batches: new CountBatches(accesses, runId) };
}

test('a batch stays what it is until it is taken, whatever is counted meanwhile', (t) => {
  const b = batches();
  t.is(b.batches.current(), undefined);
  b.add(3, 0);
  const first = b.batches.current();
  t.like(first, { runId, number: 1n });
  t.like(first?.counts?.[0], { secretId: 's', uid: 0, opened: 3n, openedMs: 5n });
  (b.log[0] as PendingCount).opened = 10;
  b.add(1);
  t.is(b.batches.current(), first);
  b.batches.taken({ runId, number: 0n });
  t.deepEqual(b.taken, [], 'of an earlier one');
  b.batches.taken({ runId, number: 1n });
  t.deepEqual(b.taken, [[{ ...(b.log[0] as PendingCount), opened: 3 }]]);
  b.batches.taken({ runId, number: 1n });
  t.is(b.taken.length, 1, 'it is said again');
  const second = b.batches.current();
  t.is(second?.number, 2n);
  t.deepEqual(
    second?.counts?.map((one) => 'uid' in one),
    [true, false],
  );
});

test('a batch is one message', (t) => {
  const b = batches();
  for (let uid = 0; uid <= agentLimits.maxCountsPerBatch; uid++) b.add(1, uid);
  t.is(b.batches.current()?.counts?.length, agentLimits.maxCountsPerBatch);
});

test('an acknowledgement of what was never sent is an error', (t) => {
  const b = batches();
  b.add(1);
  b.batches.current();
  refuses(t, () => b.batches.taken({ runId, number: 2n }), 'protocol', /never sent/);
  refuses(t, () => b.batches.taken({ runId: 'another', number: 1n }), 'protocol', /never sent/);
});
