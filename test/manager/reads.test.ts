/** Counts of accesses on their way from a node's beats to what an operator sees. */
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import test, { type ExecutionContext } from 'ava';
import { managerLimits } from '../../src/manager/limits.js';
import { shownReads } from '../../src/manager/shown_reads.js';
import { InroError } from '../../src/model/error.js';
import type { SecretReads } from '../../src/proto/gen/inro/v1/control_pb.js';
import type { AccessCountSchema } from '../../src/proto/gen/inro/v1/dispatcher_pb.js';
import { ReadRecordSchema } from '../../src/proto/gen/inro/v1/records_pb.js';
import { tables } from '../../src/store/tables.js';
import { settle } from '../support/fake_clock.js';
import { fakeManager, type FakeManager } from '../support/fake_manager.js';
import type { Assignment } from '../support/fake_node.js';
import { FakeDisk, fakeStore } from '../support/fake_store.js';
import { refusesAsync } from '../support/refuses.js';

type Count = MessageInitShape<typeof AccessCountSchema>;

const runId = 'r'.repeat(25);

/** A service with a secret, and one task on each of two nodes. */
async function scene(t: ExecutionContext, disk = new FakeDisk()) {
  const m = await fakeManager({ store: fakeStore({ disk }) });
  t.teardown(() => m.stop());
  const secretId = await m.createSecret('db', 'hunter2');
  const nodes = [await nodeOf(m, 'a'), await nodeOf(m, 'b')] as const;
  await m.createService('web', { secrets: ['db'], replicas: 2 });
  const [a, b] = await Promise.all(nodes.map(async (one) => ({ ...one, ...(await assigned(one)) })));
  if (a === undefined || b === undefined) throw new Error('no nodes');
  const count = ({ taskId }: { taskId: string }, says: Count = {}): Count => ({
    secretId,
    version: 1,
    taskId,
    uid: 0,
    workload: 'exec sh',
    opened: 1n,
    openedMs: BigInt(m.clock.now()),
    ...says,
  });
  /** By version: `HOSTNAME WORKLOAD OPENED/REFUSED`, and `behind`. */
  const told = async (): Promise<Record<number, string[]>> => {
    const { versions } = (await m.operate('getSecretReads', { name: 'db' })) as SecretReads;
    return Object.fromEntries(
      versions.map(({ version, readers }) => [
        version,
        readers
          .map((one) =>
            `${one.nodeHostname} ${one.workload} ${one.opened}/${one.refused} ${one.behind ? 'behind' : ''}`.trim(),
          )
          .sort(),
      ]),
    );
  };
  const written = () => m.clock.advance(managerLimits.gatherCountsMs);
  return { m, disk, secretId, a, b, count, told, written };
}

async function nodeOf(m: FakeManager, hostname: string) {
  const identity = await m.joined();
  const attached = m.attach(identity);
  await attached.node.begin({ hostname });
  return { ...attached, identity };
}

async function assigned({ node }: Pick<Awaited<ReturnType<typeof nodeOf>>, 'node'>) {
  const assignment: Assignment = await node.assignment();
  await node.applied(assignment);
  return { taskId: assignment.tasks[0]?.id ?? '' };
}

test('a beat is answered at once; its counts are acknowledged when they are kept', async (t) => {
  const { m, a, b, count, told, written } = await scene(t);
  await a.node.beat(7, { runId, number: 1n, counts: [count(a)] });
  t.is((await a.node.hears('heartbeatAck')).value.sequence, 7);
  t.deepEqual(await told(), {});
  // Sent again before that, as an agent does it: nothing is kept twice.
  await a.node.beat(8, { runId, number: 1n, counts: [count(a)] });
  t.is((await a.node.hears('heartbeatAck')).value.sequence, 8);
  await b.node.beat(1, { runId, number: 1n, counts: [count(b, { refused: 2n, opened: 0n })] });
  await b.node.hears('heartbeatAck');
  await written();
  t.like((await a.node.hears('accessesTaken')).value, { runId, number: 1n });
  t.like((await b.node.hears('accessesTaken')).value, { runId, number: 1n });
  t.deepEqual(await told(), { 1: ['a exec sh 1/0', 'b exec sh 0/2'] });
  const { versions } = (await m.operate('getSecretReads', { name: 'db' })) as SecretReads;
  t.is(versions[0]?.lastReadMs, BigInt(m.clock.now() - managerLimits.gatherCountsMs));
});

test('an acknowledgement that is lost with its stream comes again in the next, and nothing counts twice', async (t) => {
  const { m, a, count, told, written } = await scene(t);
  const accesses = { runId, number: 1n, counts: [count(a)] };
  await a.node.beat(1, accesses);
  await settle();
  a.breakOff();
  await written();
  const { node } = m.attach(a.identity);
  await node.begin({ hostname: 'a' });
  await node.beat(1, accesses);
  await node.hears('heartbeatAck');
  await written();
  t.is((await node.hears('accessesTaken')).value.number, 1n);
  t.deepEqual(await told(), { 1: ['a exec sh 1/0'] });
});

test('a full disk keeps no beat from its answer, and no stream from going on', async (t) => {
  const { m, a, count, told, written } = await scene(t);
  await settle();
  const { commit } = m.store;
  m.store.commit = () => Promise.reject(new InroError('store_full', 'no room'));
  const accesses = { runId, number: 1n, counts: [count(a)] };
  for (let sequence = 1; sequence <= 3; sequence++) {
    await a.node.beat(sequence, accesses);
    t.is((await a.node.hears('heartbeatAck')).value.sequence, sequence);
    await written();
  }
  m.store.commit = commit;
  await a.node.beat(4, accesses);
  await a.node.hears('heartbeatAck');
  await written();
  t.is((await a.node.hears('accessesTaken')).value.number, 1n);
  t.deepEqual(await told(), { 1: ['a exec sh 1/0'] });
});

test('a node that was conquered makes no entries but its own', async (t) => {
  const { m, a, b, secretId, count, told, written } = await scene(t);
  const other = await m.createSecret('other', 'not for a');
  await m.createService('elsewhere', { secrets: ['other'], constraints: [`node.id==${b.identity.nodeId}`] });
  const holdings = [{ secretId: other, version: 1, ciphertextDigest: new Uint8Array(32) }];
  a.node.channel.close();
  const { node } = m.attach(a.identity);
  await node.begin({ hostname: 'a', holdings });
  const counts = [
    count(b),
    count(a, { secretId: other }),
    count({ taskId: '../task/x' }),
    count(a, { version: 9 }),
  ];
  await node.beat(1, { runId, number: 1n, counts });
  await written();
  t.is((await node.hears('accessesTaken')).value.number, 1n, 'an honest one would not send them again');
  t.deepEqual(await told(), { 1: ['a  1/0'] }, 'how often, of a task that may have been its own');
  t.deepEqual(await m.operate('getSecretReads', { name: 'other' }), { versions: [] });
  t.is(m.logged.filter(({ msg }) => /none of its business/.test(String(msg))).length, 1);
  t.is((await m.operate('getSecret', { name: secretId })).id, secretId);
});

for (const [name, batch, code] of [
  [
    'more counts than the bound',
    { runId, number: 1n, counts: Array.from({ length: 2_001 }, () => ({})) },
    'too_large',
  ],
  ['a run of its own invention', { runId: '../read/x', number: 1n }, 'protocol'],
  ['the number 0', { runId, number: 0n }, 'protocol'],
] as const) {
  test(`a beat with ${name} ends its stream, and no other`, async (t) => {
    const { a, b, count, written } = await scene(t);
    await a.node.beat(1, { ...batch, ...('counts' in batch ? { counts: [...batch.counts] } : {}) });
    await a.node.hears('heartbeatAck');
    await refusesAsync(t, a.node.rest(), code);
    await b.node.beat(1, { runId, number: 1n, counts: [count(b)] });
    await b.node.hears('heartbeatAck');
    await written();
    t.is((await b.node.hears('accessesTaken')).value.number, 1n);
  });
}

test('who has opened the old version last is behind, until he opens the new one or his task ends', async (t) => {
  const { m, a, b, secretId, count, told, written } = await scene(t);
  let number = 0n;
  const tell = async (...counts: [typeof a, Count][]): Promise<void> => {
    number += 1n;
    for (const [of, says] of counts) {
      await of.node.beat(Number(number), { runId, number, counts: [count(of, says)] });
      await of.node.hears('heartbeatAck');
    }
    await written();
    for (const [of] of counts) await of.node.hears('accessesTaken');
  };
  await tell([a, {}], [b, {}]);
  await tell([a, { workload: 'refused', opened: 0n, refused: 1n }]);
  t.deepEqual(await told(), { 1: ['a exec sh 1/0', 'a refused 0/1', 'b exec sh 1/0'] });
  await m.updateSecret(secretId, 'second');
  for (const { node } of [a, b]) await node.applied(await node.assignment());
  await tell([a, { version: 2 }]);
  const one = ['a exec sh 1/0', 'a refused 0/1', 'b exec sh 1/0 behind'];
  t.deepEqual(await told(), { 1: one, 2: ['a exec sh 1/0'] });
  // Another of the same node is on its own.
  await tell([b, { version: 2, workload: 'unit x.service' }]);
  t.deepEqual(await told(), { 1: one, 2: ['a exec sh 1/0', 'b unit x.service 1/0'] });
  // Nothing newer can be read.
  await m.operate('revokeSecret', { name: 'db' });
  t.false(JSON.stringify(await told()).includes('behind'));
  await m.updateSecret(secretId, 'third');
  t.is(JSON.stringify(await told()).match(/behind/g)?.length, 3);
  await m.operate('removeService', { name: 'web' });
  t.false(JSON.stringify(await told()).includes('behind'));
});

test('nobody is said to be behind who may be among those that are only counted together', async (t) => {
  const { m, a, secretId, count, told, written } = await scene(t);
  const readers = Array.from({ length: managerLimits.maxReadersPerRecord + 1 }, (_, uid) =>
    count(a, { uid }),
  );
  await a.node.beat(1, { runId, number: 1n, counts: readers });
  await written();
  await m.updateSecret(secretId, 'second');
  t.is(JSON.stringify(await told()).match(/behind/g)?.length, managerLimits.maxReadersPerRecord);
  await a.node.beat(2, { runId, number: 2n, counts: readers.map((one) => ({ ...one, version: 2 })) });
  await written();
  t.false(JSON.stringify(await told()).includes('behind'));
});

test('what is kept of a secret goes with it, and nobody else hears of any of it', async (t) => {
  const { m, disk, a, b, count, written } = await scene(t);
  await b.node.channel.send({ message: { case: 'heartbeat', value: { sequence: 1 } } });
  await b.node.hears('heartbeatAck');
  await settle();
  let isTold = false;
  b.managerSide.send = async () => void (isTold = true);
  await a.node.beat(1, { runId, number: 1n, counts: [count(a)] });
  await written();
  await a.node.hears('accessesTaken');
  t.false(isTold);
  const kept = () => [...disk.entries.keys()].filter((key) => key.startsWith(tables.reads.prefix));
  t.is(kept().length, 1);
  await m.operate('removeService', { name: 'web' });
  await m.operate('removeSecret', { name: 'db' });
  t.deepEqual(kept(), []);
});

test('an answer is bounded: the latest come first, and how many are left out is said', (t) => {
  const view = {
    nodes: new Map(),
    secrets: new Map(),
    services: new Map(),
    tasks: new Map(),
    isRevoked: () => false,
  };
  const most = managerLimits.maxShownReaders;
  const records = Array.from({ length: most + 2 }, (_, n) =>
    create(ReadRecordSchema, {
      version: 1 + (n % 2),
      nodeId: `node${n}`,
      others: { opened: 1n, openedMs: BigInt(1_000 + n) },
    }),
  );
  const shown = shownReads('s', records, view);
  t.deepEqual(
    shown.map(({ version, readers = [], moreReaders, lastReadMs }) => [
      version,
      readers.length,
      moreReaders,
      Number(lastReadMs) - most,
      readers[0]?.nodeId,
    ]),
    [
      [1, most / 2, 1, 1_000, `node${most}`],
      [2, most / 2, 1, 1_001, `node${most + 1}`],
    ],
  );
});
