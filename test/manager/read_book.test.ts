import { create } from '@bufbuild/protobuf';
import { pino } from 'pino';
import test from 'ava';
import { Ledger } from '../../src/manager/ledger.js';
import { managerLimits } from '../../src/manager/limits.js';
import { ReadBook } from '../../src/manager/read_book.js';
import { checkBatch } from '../../src/manager/read_check.js';
import { deleteReads } from '../../src/manager/read_records.js';
import { ClusterView } from '../../src/manager/view.js';
import { InroError } from '../../src/model/error.js';
import { hasControl } from '../../src/model/name.js';
import { AccessBatchSchema, ReceiptSchema } from '../../src/proto/gen/inro/v1/dispatcher_pb.js';
import {
  TaskRecordSchema,
  VersionRecordSchema,
  type ReadRecord,
  type Reader,
} from '../../src/proto/gen/inro/v1/records_pb.js';
import { decodeRecord, tables, versionKey } from '../../src/store/tables.js';
import { transact } from '../../src/store/transaction.js';
import { FakeClock, settle } from '../support/fake_clock.js';
import { anyReceipt } from '../support/fake_node.js';
import { FakeDisk, fakeStore } from '../support/fake_store.js';
import { refuses } from '../support/refuses.js';

const id = (letter: string): string => letter.repeat(25);
const [runId, key, other, task, foreignTask] = [id('r'), id('k'), id('o'), id('t'), id('f')];
const version = (secretId: string, number = 1) => ({ secretId, version: number });

/** Node n1 was sent version 1 of `key` for its task; n2 has another task and `other`. */
async function bookOn(disk = new FakeDisk()) {
  const store = fakeStore({ disk });
  const view = await ClusterView.follow(store);
  const clock = new FakeClock();
  const logged: { level: number; msg: string; why?: string }[] = [];
  const log = pino(
    { level: 'debug' },
    { write: (line: string) => void logged.push(JSON.parse(line) as never) },
  );
  const ledger = await Ledger.open({ store, view, clock });
  const book = new ReadBook({ store, view, clock, log });
  const b = {
    disk,
    store,
    view,
    clock,
    ledger,
    book,
    logged,
    async putVersion(secretId: string, number: number): Promise<void> {
      const record = create(VersionRecordSchema, {
        secretId,
        version: number,
        createdMs: BigInt(clock.now()),
      });
      await transact(store, async (tx) => tx.put(tables.versions, versionKey(secretId, number), record));
    },
    async putTask(taskId: string, nodeId: string): Promise<void> {
      const record = create(TaskRecordSchema, { id: taskId, nodeId, serviceId: id('s'), serviceName: 'web' });
      await transact(store, async (tx) => tx.put(tables.tasks, taskId, record));
    },
    /** What becomes of a batch, once all that is gathered with it is written. */
    async take(says: Said[], { nodeId = 'n1', number = 1, run = runId } = {}): Promise<boolean> {
      const taken = book.take(nodeId, batch(says, number, run));
      taken.catch(() => undefined);
      await clock.advance(managerLimits.gatherCountsMs);
      return taken;
    },
    async records(): Promise<ReadRecord[]> {
      const entries = await store.list(tables.reads.prefix);
      return entries.map((entry) => decodeRecord(tables.reads, entry.key, entry.value));
    },
    /** As `NODE VERSION: WORKLOAD OPENED/REFUSED, ...`. */
    async told(): Promise<string[]> {
      return (await b.records()).map(({ nodeId, version: number, readers, others }) => {
        const all: Partial<Reader>[] = [...readers, ...(others === undefined ? [] : [{ accesses: others }])];
        const shown = all.map(
          ({ workload = 'others', accesses }) => `${workload} ${accesses?.opened}/${accesses?.refused}`,
        );
        return `${nodeId} ${number}: ${shown.join(', ')}`.trim();
      });
    },
  };
  if (disk.revision === 0) {
    for (const secretId of [key, other]) await b.putVersion(secretId, 1);
    await b.putTask(task, 'n1');
    await b.putTask(foreignTask, 'n2');
    await ledger.hand('n1', [version(key)]);
    await ledger.hand('n2', [version(other)]);
  }
  return b;
}

interface Said {
  secretId?: string;
  version?: number;
  taskId?: string;
  uid?: number;
  workload?: string;
  opened?: bigint | number;
  refused?: bigint | number;
  openedMs?: number;
  refusedMs?: number;
}

function batch(says: Said[], number: number | bigint = 1, run = runId) {
  const counts = says.map(({ opened = 1, refused = 0, openedMs = 0, refusedMs = 0, ...of }) => ({
    secretId: key,
    version: 1,
    taskId: task,
    uid: 7,
    workload: 'exec sh',
    ...of,
    opened: BigInt(opened),
    refused: BigInt(refused),
    openedMs: BigInt(openedMs),
    refusedMs: BigInt(refusedMs),
  }));
  return create(AccessBatchSchema, { runId: run, number: BigInt(number), counts });
}

test('what a node tells is kept with all that it says, and added up', async (t) => {
  const b = await bookOn();
  const now = b.clock.now();
  t.true(await b.take([{ opened: 3, openedMs: now + 10, refused: 1, refusedMs: now + 20 }]));
  t.true(
    await b.take(
      [
        { opened: 2, openedMs: now + 900 },
        { uid: 8, refused: 1, opened: 0 },
      ],
      { number: 2 },
    ),
  );
  const [record, ...more] = await b.records();
  t.is(more.length, 0);
  t.like(record, { secretId: key, version: 1, nodeId: 'n1', others: undefined });
  t.like(record?.readers[0], { taskId: task, serviceName: 'web', uid: 7, workload: 'exec sh' });
  t.like(record?.readers[0]?.accesses, {
    opened: 5n,
    refused: 1n,
    openedMs: BigInt(now + 900),
    refusedMs: BigInt(now + 20),
  });
  t.like(record?.readers[1]?.accesses, { opened: 0n, refused: 1n, openedMs: 0n });
});

test('each batch counts once: sent again, to another stream, after a restart, and twice at once', async (t) => {
  const b = await bookOn();
  const both = Promise.all([b.book.take('n1', batch([{}])), b.book.take('n1', batch([{}]))]);
  await b.clock.advance(managerLimits.gatherCountsMs);
  t.deepEqual(await both, [true, true], 'both are told that it is kept');
  t.true(await b.take([{}]));
  const again = await bookOn(b.disk);
  t.true(await again.take([{}]));
  t.deepEqual(await again.told(), ['n1 1: exec sh 1/0']);
  t.true(await again.take([{}], { number: 2 }));
  t.true(await again.take([{}], { run: id('q') }));
  t.deepEqual(await again.told(), ['n1 1: exec sh 3/0']);
});

test('it is durable before it is taken, and written once a moment for all nodes', async (t) => {
  const b = await bookOn();
  const nodes = Array.from({ length: 100 }, (_, n) => `node${n}`);
  for (const nodeId of nodes) await b.ledger.hand(nodeId, [version(key)]);
  const { revision } = b.disk;
  let taken = 0;
  for (const nodeId of nodes) void b.book.take(nodeId, batch([{ taskId: id('g') }])).then(() => (taken += 1));
  await b.clock.advance(managerLimits.gatherCountsMs - 1);
  t.deepEqual([taken, b.disk.revision], [0, revision]);
  await b.clock.advance(1);
  t.deepEqual([taken, b.disk.revision], [100, revision + 1]);
  t.is((await b.records()).length, 100);
});

test('a node is believed about what it was sent, and about its own tasks', async (t) => {
  const b = await bookOn();
  await b.ledger.hand('n1', [version(other)], 'node'); // by its Hello, as of two nodes that know each other
  t.true(
    await b.take([
      { secretId: other },
      { taskId: foreignTask },
      { secretId: id('x') },
      { secretId: '../secret/x' },
      { version: 2 },
      { opened: 2n ** 63n },
      { opened: 0, refused: 0 },
      {},
    ]),
    'it does not send them again',
  );
  t.deepEqual(await b.told(), ['n1 1: exec sh 1/0']);
  const told = () => b.logged.filter(({ msg }) => /none of its business/.test(msg)).map(({ level }) => level);
  t.deepEqual(told(), [40]);
  t.true(await b.take([{ secretId: other }], { number: 2 }));
  t.deepEqual(told(), [40, 20], 'it may go on for as long as it likes');
  t.regex(b.logged.at(-1)?.why ?? '', /version 1 of secret o+ was never sent there/);
});

test('what was wiped meanwhile still counts; what was only claimed never does', async (t) => {
  const b = await bookOn();
  await b.ledger.hand('n1', [version(other)], 'node');
  const receipt = (number: number, secretId: string) =>
    create(ReceiptSchema, { ...anyReceipt, number: BigInt(number), secretId, wipedMs: 1n, durationUs: 1n });
  await b.ledger.take('n1', [receipt(1, key), receipt(2, other)], () => false);
  t.deepEqual(b.view.holders.ofNode('n1'), []);
  t.deepEqual(await b.told(), ['n1 1:'], 'its place is kept');
  t.true(await b.take([{}, { secretId: other }]));
  t.deepEqual(await b.told(), ['n1 1: exec sh 1/0']);

  await b.ledger.hand('n1', [version(other)], 'node');
  await b.ledger.hand('n1', [version(other)]);
  await b.ledger.clear('n1', () => true);
  t.true(await b.take([{ secretId: other }], { number: 2 }));
  t.deepEqual(await b.told(), ['n1 1: exec sh 1/0', 'n1 1: exec sh 1/0'], 'now it was sent it');
});

test('of a task that is gone it is kept how often, not who', async (t) => {
  const b = await bookOn();
  t.true(await b.take([{ taskId: id('g') }, { taskId: '\0', uid: 8 }, {}]));
  t.deepEqual(await b.told(), ['n1 1: exec sh 1/0, others 2/0']);
});

test('texts, times and numbers are cut to what can be', async (t) => {
  const b = await bookOn();
  const created = b.clock.now();
  await b.clock.advance(5_000);
  const workload = `evil\u001b[2J\u009b\n${'x'.repeat(10_000)}`;
  const now = b.clock.now() + managerLimits.gatherCountsMs;
  const far = 2 ** 52;
  t.true(await b.take([{ workload, openedMs: far, refused: 1, refusedMs: -far }]));
  const [reader] = (await b.records())[0]?.readers ?? [];
  t.false(hasControl(reader?.workload ?? '\0'));
  t.is(reader?.workload.length, managerLimits.maxWorkloadChars);
  t.like(reader?.accesses, { openedMs: BigInt(now), refusedMs: BigInt(created) });
  const most = BigInt(managerLimits.maxAccessesPerCount);
  for (let n = 0; n < 10; n++)
    t.true(
      await b.take(
        Array.from({ length: 1_000 }, () => ({ opened: most })),
        { number: n + 2 },
      ),
    );
  const [, sum] = (await b.records())[0]?.readers ?? [];
  t.is(sum?.accesses?.opened, BigInt(Number.MAX_SAFE_INTEGER));
});

test('what no agent sends is an error', (t) => {
  const tooMany = Array.from({ length: managerLimits.maxCountsPerBatch + 1 }, () => ({}));
  refuses(t, () => checkBatch(batch(tooMany)), 'too_large', /counts/);
  for (const number of [0n, 2n ** 63n]) refuses(t, () => checkBatch(batch([{}], number)), 'protocol');
  for (const run of ['', '../read/x']) refuses(t, () => checkBatch(batch([{}], 1, run)), 'protocol');
  t.notThrows(() => checkBatch(batch([{}])));
});

test('readers of a version on a node are bounded: the latest are told one by one, the others together', async (t) => {
  const b = await bookOn();
  const now = b.clock.now();
  const most = managerLimits.maxReadersPerRecord;
  const says = Array.from({ length: 3 * most }, (_, uid) => ({ uid, openedMs: now + uid }));
  t.true(await b.take(says));
  const [record] = await b.records();
  t.deepEqual(
    record?.readers.map(({ uid }) => uid).sort((x = 0, y = 0) => x - y),
    Array.from({ length: most }, (_, n) => 2 * most + n),
  );
  t.like(record?.others, { opened: BigInt(2 * most), openedMs: BigInt(now + 2 * most - 1) });
});

test('versions of a secret on a node are bounded: the newest stay', async (t) => {
  const b = await bookOn();
  const most = managerLimits.maxReadVersionsPerNode;
  for (let n = 1; n <= most + 3; n++) {
    await b.putVersion(key, n);
    await b.ledger.hand('n1', [version(key, n)]);
    t.true(await b.take([{ version: n }, { version: Math.max(1, n - 1) }], { number: n }));
  }
  const kept = (await b.records()).map((one) => one.version);
  t.deepEqual(
    kept,
    Array.from({ length: most }, (_, n) => n + 4),
  );
});

test('the runs that are remembered for a node are bounded', async (t) => {
  const b = await bookOn();
  const runs = Array.from({ length: managerLimits.maxRunsPerNode + 1 }, (_, n) =>
    String(n).padStart(25, 'r'),
  );
  for (const run of [...runs, ...runs.slice(1)]) t.true(await b.take([{}], { run }));
  t.deepEqual(await b.told(), [`n1 1: exec sh ${runs.length}/0`]);
});

test('what is removed with its secret stays removed, also when a batch comes at the same time', async (t) => {
  const b = await bookOn();
  t.true(await b.take([{}]));
  const late = b.book.take('n1', batch([{}], 2));
  const remove = transact(b.store, async (tx) => {
    await deleteReads(tx, key);
    tx.delete(tables.versions, versionKey(key, 1));
  });
  await b.clock.advance(managerLimits.gatherCountsMs);
  t.true(await late);
  await remove;
  t.true(await b.take([{}], { number: 3 }));
  const receipt = create(ReceiptSchema, {
    ...anyReceipt,
    number: 1n,
    secretId: key,
    wipedMs: 1n,
    durationUs: 1n,
  });
  await b.ledger.take('n1', [receipt], () => false);
  t.deepEqual(await b.records(), []);
  t.false(
    b.logged.some(({ level }) => level >= 40),
    'that is nobody’s fault',
  );
});

test('what cannot be written is not taken, is said once, and counts once when it comes again', async (t) => {
  const b = await bookOn();
  const { commit } = b.store;
  b.store.commit = () => Promise.reject(new InroError('store_full', 'no room'));
  for (let n = 0; n < 3; n++) t.false(await b.take([{}]));
  b.store.commit = commit;
  t.true(await b.take([{}]));
  t.deepEqual(await b.told(), ['n1 1: exec sh 1/0']);
  t.deepEqual(
    b.logged.map(({ level }) => level),
    [40, 30],
  );
});

test('what waits is bounded: the rest comes again', async (t) => {
  const b = await bookOn();
  const large = batch(Array.from({ length: managerLimits.maxCountsPerBatch }, () => ({})));
  const waiting = Array.from(
    { length: managerLimits.maxWaitingCounts / managerLimits.maxCountsPerBatch },
    (_, n) => b.book.take(`node${n}`, large),
  );
  t.false(await b.book.take('n1', batch([{}])));
  await b.clock.advance(managerLimits.gatherCountsMs);
  t.true((await Promise.all(waiting)).every(Boolean));
  t.true(await b.take([{}]));
});

test('stopped, it writes what waits without waiting for more, and takes nothing after it', async (t) => {
  const b = await bookOn();
  const last = b.book.take('n1', batch([{}]));
  await b.book.stop();
  t.true(await last);
  t.deepEqual(await b.told(), ['n1 1: exec sh 1/0']);
  t.is(b.clock.pending, 0);
  t.false(await b.book.take('n1', batch([{}], 2)));
  await settle();
  t.deepEqual(b.logged, []);
});
