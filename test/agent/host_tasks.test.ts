import { Attachments } from '../../src/agent/workloads/attachments.js';
import { create } from '@bufbuild/protobuf';
import test from 'ava';
import { pino } from 'pino';
import { HostTasks, type TaskReport } from '../../src/agent/host_tasks.js';
import { agentLimits } from '../../src/agent/limits.js';
import { heldKey, Vault, type Wiped } from '../../src/agent/vault.js';
import { openArena } from '../../src/crypto/arena.js';
import { drawKey } from '../../src/crypto/exchange.js';
import { ContainerSpecSchema } from '../../src/proto/gen/inro/v1/common_pb.js';
import type { AssignedTask, DeliveredVersion } from '../../src/proto/gen/inro/v1/dispatcher_pb.js';
import { delivery, task, tasks } from '../support/deliveries.js';
import { FakeClock } from '../support/fake_clock.js';
import { FakeDriver } from '../support/fake_driver.js';

const clusterId = 'c1';

function host(arenaBytes = 1 << 20) {
  const clock = new FakeClock();
  const driver = new FakeDriver();
  const arena = openArena(arenaBytes);
  const sealing = openArena(4 << 20);
  const key = drawKey(sealing);
  const wiped: Wiped[] = [];
  const vault = new Vault(arena, clock, (one) => wiped.push(one));
  const hostTasks = new HostTasks({
    vault,
    driver,
    attachments: new Attachments(),
    clock,
    log: pino({ level: 'silent' }),
    clusterId,
  });
  return {
    clock,
    driver,
    arena,
    vault,
    hostTasks,
    wiped,
    /** `secret@version reason`, since the last look. */
    wipes: (): string[] => wiped.splice(0).map((w) => `${heldKey(w.secretId, w.version)} ${w.reason}`),
    sealed: (secretId: string, text = `value of ${secretId}`, version = 1) =>
      delivery({ clusterId, arena: sealing, key }, secretId, text, version),
    apply(wanted: AssignedTask[], delivered: DeliveredVersion[] = [], atOnce = false): TaskReport[] {
      const versions = new Map(delivered.map((one) => [heldKey(one.secretId, one.version), one]));
      return hostTasks.apply(tasks(...wanted), versions, key, atOnce);
    },
  };
}

const states = (reports: TaskReport[]): string[] => reports.map(({ taskId, state }) => `${taskId} ${state}`);

test('a task’s files are published together, and it runs', (t) => {
  const h = host();
  const reports = h.apply(
    [task('t1', 'web', 'a', { secretId: 'b', target: 'B', mode: 0o400, uid: '7' })],
    [h.sealed('a'), h.sealed('b')],
  );
  t.deepEqual(reports, [{ taskId: 't1', state: 'RUNNING', error: '', atMs: h.clock.now() }]);
  t.deepEqual(h.driver.calls, ['open web', 'publish t1 1']);
  t.deepEqual(h.driver.shown('t1'), { a: 'value of a', B: 'value of b' });
  t.like(h.driver.generation('t1')?.files[1], {
    target: 'B',
    mode: 0o400,
    uid: 7,
    gid: 0,
    modifiedMs: 1_000,
  });
});

test('a task without secrets runs, too', (t) => {
  const h = host();
  t.deepEqual(states(h.apply([task('t1', 'web')])), ['t1 RUNNING']);
  t.deepEqual(h.driver.shown('t1'), {});
});

/** A host where the container of t1 runs. */
function hostWithContainer(stopGraceMs = 0) {
  const h = host();
  h.hostTasks.runsContainers = true;
  const container = create(ContainerSpecSchema, { image: 'bb', stopGraceMs });
  const wanted = { ...task('t1', 'web', 'a'), container };
  h.apply([wanted, task('t2', 'other', 'b')], [h.sealed('a'), h.sealed('b')]);
  h.hostTasks.report('t1', 'RUNNING', '');
  return { ...h, wanted };
}

test('a removed task whose container has not ended keeps its files until it has', async (t) => {
  const h = hostWithContainer();
  t.deepEqual(states(h.apply([])), ['t2 SHUTDOWN'], 'what runs no container ends at once');
  t.deepEqual(h.hostTasks.ending, [{ taskId: 't1', serviceId: 'id-web' }]);
  t.deepEqual(h.driver.shown('t1'), { a: 'value of a' });
  t.deepEqual(h.wipes(), ['b@1 removed']);
  t.deepEqual(h.apply([]), [], 'told again');
  await h.hostTasks.reports(AbortSignal.timeout(1));

  h.hostTasks.containerGone('t1');
  t.deepEqual(states(await h.hostTasks.reports(AbortSignal.timeout(1_000))), ['t1 SHUTDOWN']);
  t.is(h.driver.shown('t1'), undefined);
  t.deepEqual(h.wipes(), ['a@1 removed']);
  t.deepEqual(h.hostTasks.ending, []);
  t.is(h.clock.pending, 0);
  h.hostTasks.containerGone('t1');
});

test('one that ends by itself meanwhile is told of, too', async (t) => {
  const h = hostWithContainer();
  h.apply([]);
  h.hostTasks.report('t1', 'FAILED', 'exit code 3', 3);
  t.is(h.driver.shown('t1'), undefined);
  h.hostTasks.containerGone('t1');
  const told = await h.hostTasks.reports(AbortSignal.timeout(1_000));
  t.like(told.at(-1), { taskId: 't1', state: 'FAILED', exitCode: 3 });
  t.deepEqual(h.hostTasks.ending, []);
});

test('an engine that does not answer holds no files back for longer than the stop grace, and something', async (t) => {
  const h = hostWithContainer(60_000);
  h.apply([]);
  await h.clock.advance(60_000 + agentLimits.containerEndMs - 1);
  t.deepEqual(h.driver.shown('t1'), { a: 'value of a' });
  await h.clock.advance(1);
  t.is(h.driver.shown('t1'), undefined);
  t.deepEqual(h.wipes().sort(), ['a@1 removed', 'b@1 removed']);
});

test('what is ending ends at once when the node is removed, a version is revoked, the lease ends or the agent stops', (t) => {
  const atOnce = hostWithContainer();
  atOnce.apply([]);
  t.deepEqual(states(atOnce.apply([], [], true)), ['t1 SHUTDOWN']);
  t.deepEqual(atOnce.wipes(), ['b@1 removed', 'a@1 removed']);
  const revoked = hostWithContainer();
  revoked.apply([]);
  revoked.hostTasks.revoke('a', 1);
  t.deepEqual(revoked.wipes(), ['b@1 removed', 'a@1 revoked']);
  for (const reason of ['lease', 'stopped', 'removed'] as const) {
    const h = hostWithContainer();
    h.apply([]);
    wipeFor(h.hostTasks, reason);
    t.is(h.driver.shown('t1'), undefined);
    t.deepEqual(h.wipes(), ['b@1 removed', `a@1 ${reason}`]);
    h.hostTasks.containerGone('t1');
  }
});

test('a newer version for others does not change what an ending container has', (t) => {
  const h = hostWithContainer();
  h.apply([task('t2', 'other', { secretId: 'a', version: 2 })], [h.sealed('a', 'the next', 2)]);
  t.deepEqual(h.driver.shown('t1'), { a: 'value of a' });
  t.deepEqual(h.driver.shown('t2'), { a: 'the next' });
  h.hostTasks.containerGone('t1');
  t.deepEqual(
    h.vault.keys().filter((key) => key === 'a@2'),
    ['a@2'],
  );
});

test('removals come first, then new values, then generations', (t) => {
  // Each value takes most of the arena: the second fits only where the first was.
  const h = host(8_192);
  h.apply([task('t1', 'old', 'a')], [h.sealed('a', 'x'.repeat(5_000))]);
  h.driver.calls.length = 0;
  const reports = h.apply([task('t2', 'new', 'b')], [h.sealed('b', 'y'.repeat(5_000))]);
  t.deepEqual(states(reports), ['t1 SHUTDOWN', 't2 RUNNING']);
  t.deepEqual(h.driver.calls, ['withdraw t1', 'open new', 'publish t2 1']);
  t.deepEqual(h.wipes(), ['a@1 removed']);
});

test('removals are done even when nothing new fits', (t) => {
  const h = host(8_192);
  h.apply([task('t1', 'old', 'a')], [h.sealed('a')]);
  const reports = h.apply([task('t2', 'new', 'huge')], [h.sealed('huge', 'y'.repeat(20_000))]);
  t.deepEqual(states(reports), ['t1 SHUTDOWN', 't2 REJECTED']);
  t.deepEqual(h.wipes(), ['a@1 removed']);
  t.is(h.driver.shown('t1'), undefined);
  t.is(h.arena.facts().pieces, 0);
});

test('a task whose values do not fit fails alone, and says so', (t) => {
  const h = host(8_192);
  const wanted = [task('t1', 'small', 'a'), task('t2', 'big', 'b', 'huge'), task('t3', 'other', 'a', 'c')];
  const reports = h.apply(wanted, [
    h.sealed('a'),
    h.sealed('b'),
    h.sealed('huge', 'y'.repeat(20_000)),
    h.sealed('c'),
  ]);
  t.deepEqual(states(reports), ['t1 RUNNING', 't2 REJECTED', 't3 RUNNING']);
  t.regex(reports[1]?.error ?? '', /no room for 20000 bytes/);
  t.deepEqual(h.driver.calls, ['open small', 'publish t1 1', 'open other', 'publish t3 1']);
  t.deepEqual(h.wipes(), ['b@1 removed'], 'what only the failed task wanted is not kept');
  t.deepEqual(h.vault.keys().sort(), ['a@1', 'c@1']);
});

test('a running task that cannot take its new version fails, loses its files, and nothing of it is kept', (t) => {
  const h = host(8_192);
  h.apply([task('t1', 'web', 'a')], [h.sealed('a')]);
  const v2 = { secretId: 'a', version: 2 };
  const reports = h.apply([task('t1', 'web', v2)], [h.sealed('a', 'y'.repeat(20_000), 2)]);
  t.deepEqual(states(reports), ['t1 FAILED']);
  t.is(h.driver.shown('t1'), undefined);
  t.deepEqual(h.vault.keys(), []);
  t.deepEqual(h.wipes(), ['a@1 removed']);
  t.is(h.clock.pending, 0, 'no grace is left running');
});

test('a failed task stays as it is until the manager takes it away', (t) => {
  const h = host();
  const wanted = task('t1', 'web', 'a');
  t.deepEqual(states(h.apply([wanted])), ['t1 REJECTED']);
  t.deepEqual(states(h.apply([wanted], [h.sealed('a')])), ['t1 REJECTED']);
  t.is(h.driver.shown('t1'), undefined);
  t.deepEqual(h.vault.keys(), [], 'and what is delivered for it meanwhile is not kept');
  t.deepEqual(h.apply([]), [], 'it has ended already: no SHUTDOWN is reported');
  t.deepEqual(states(h.apply([task('t2', 'web', 'a')], [h.sealed('a')])), ['t2 RUNNING']);
});

test('a generation is published only when something of it has changed', (t) => {
  const h = host();
  const [one, two] = [task('t1', 'web', 'a', 'b'), task('t2', 'api', 'a')];
  h.apply([one, two], [h.sealed('a'), h.sealed('b')]);
  h.driver.calls.length = 0;
  h.apply([one, two]);
  t.deepEqual(h.driver.calls, [], 'the same again');
  h.apply([task('t1', 'web', 'a', { secretId: 'b', mode: 0o400 }), two]);
  t.deepEqual(h.driver.calls.splice(0), ['publish t1 2'], 'another mode, of one task');
  h.apply([task('t1', 'web', 'a'), two]);
  t.deepEqual(h.driver.calls.splice(0), ['publish t1 3'], 'one reference less');
  t.deepEqual(h.wipes(), ['b@1 removed']);
  h.apply(
    [task('t1', 'web', { secretId: 'a', version: 2 }), task('t2', 'api', { secretId: 'a', version: 2 })],
    [h.sealed('a', 'new', 2)],
  );
  t.deepEqual(h.driver.calls.splice(0), ['publish t1 4', 'publish t2 2'], 'a new version, of both');
});

test('what is wiped is said to have been for the tasks that showed it, the latest of them', (t) => {
  const h = host();
  const many = Array.from({ length: agentLimits.maxTasksPerReceipt + 2 }, (_, n) =>
    task(`t${n}`, 'web', 'a'),
  );
  h.apply([...many, task('other', 'api', 'b')], [h.sealed('a'), h.sealed('b')]);
  h.apply([task('other', 'api', 'b')]);
  h.apply([]);
  t.deepEqual(
    h.wiped.map(({ secretId, taskIds }) => [secretId, taskIds]),
    [
      ['a', many.slice(2).map(({ id }) => id)],
      ['b', ['other']],
    ],
  );
});

test('a superseded version has the grace: who opened it reads on, then it is wiped', async (t) => {
  const h = host();
  h.apply([task('t1', 'web', 'a')], [h.sealed('a', 'before')]);
  const read = h.driver.open('t1', 'a');
  h.apply([task('t1', 'web', { secretId: 'a', version: 2 })], [h.sealed('a', 'after', 2)]);
  t.deepEqual(h.driver.shown('t1'), { a: 'after' });
  t.is(read(), 'before');
  t.deepEqual(h.wipes(), []);
  await h.clock.advance(agentLimits.graceMs - 1);
  t.is(read(), 'before');
  await h.clock.advance(1);
  t.is(read(), 'ESTALE');
  t.deepEqual(h.wipes(), ['a@1 superseded']);
  t.deepEqual(h.driver.shown('t1'), { a: 'after' });
});

test('two rotations within the grace: each version has its own', async (t) => {
  const h = host();
  h.apply([task('t1', 'web', 'a')], [h.sealed('a', 'one')]);
  h.apply([task('t1', 'web', { secretId: 'a', version: 2 })], [h.sealed('a', 'two', 2)]);
  await h.clock.advance(agentLimits.graceMs / 2);
  h.apply([task('t1', 'web', { secretId: 'a', version: 3 })], [h.sealed('a', 'three', 3)]);
  await h.clock.advance(agentLimits.graceMs / 2);
  t.deepEqual(h.wipes(), ['a@1 superseded']);
  await h.clock.advance(agentLimits.graceMs / 2);
  t.deepEqual(h.wipes(), ['a@2 superseded']);
  t.deepEqual(h.vault.keys(), ['a@3']);
});

test('what is removed has no grace, not even what is in one', async (t) => {
  const h = host();
  h.apply([task('t1', 'web', 'a')], [h.sealed('a', 'one')]);
  const [first] = [h.driver.open('t1', 'a')];
  h.apply([task('t1', 'web', { secretId: 'a', version: 2 })], [h.sealed('a', 'two', 2)]);
  const second = h.driver.open('t1', 'a');
  h.apply([task('t1', 'web')]);
  t.deepEqual([first(), second()], ['ESTALE', 'ESTALE']);
  t.deepEqual(h.wipes(), ['a@1 removed', 'a@2 removed']);
  t.is(h.clock.pending, 0);
});

test('a version that is wanted again during its grace is kept', async (t) => {
  const h = host();
  h.apply([task('t1', 'web', 'a')], [h.sealed('a', 'one')]);
  h.apply([task('t1', 'web', { secretId: 'a', version: 2 })], [h.sealed('a', 'two', 2)]);
  h.apply([task('t1', 'web', 'a')]); // as a store that was restored from a backup has it
  await h.clock.advance(2 * agentLimits.graceMs);
  t.deepEqual(h.driver.shown('t1'), { a: 'one' });
  t.deepEqual(h.wipes(), ['a@2 superseded']);
});

test('one copy of a value serves all tasks, and goes with the last', (t) => {
  const h = host();
  h.apply([task('t1', 'web', 'a'), task('t2', 'api', 'a')], [h.sealed('a')]);
  t.is(h.arena.facts().pieces, 1);
  h.apply([task('t2', 'api', 'a')]);
  t.deepEqual(h.wipes(), []);
  t.deepEqual(h.driver.shown('t2'), { a: 'value of a' });
  h.apply([]);
  t.deepEqual(h.wipes(), ['a@1 removed']);
  t.is(h.arena.facts().pieces, 0);
});

test('another ciphertext under the name of what is held takes its place, in all tasks', (t) => {
  const h = host();
  h.apply([task('t1', 'web', 'a')], [h.sealed('a', 'first')]);
  // As after a restored store: the same version number, another value.
  h.apply([task('t1', 'web', 'a'), task('t2', 'api', 'a')], [h.sealed('a', 'other')]);
  t.deepEqual(h.driver.shown('t1'), { a: 'other' });
  t.deepEqual(h.driver.shown('t2'), { a: 'other' });
  t.is(h.arena.facts().pieces, 1);
});

test('what is delivered and no task wants is not kept', (t) => {
  const h = host();
  h.apply([task('t1', 'web', 'a')], [h.sealed('a'), h.sealed('stray')]);
  t.deepEqual(h.vault.keys(), ['a@1']);
});

test('a value that was not delivered, altered or moved fails its task in words', (t) => {
  const h = host();
  const good = h.sealed('a');
  const flipped = Uint8Array.from(good.ciphertext);
  flipped[45] = (flipped[45] as number) ^ 1;
  const table: [string, DeliveredVersion[], RegExp][] = [
    ['nothing', [], /could not deliver a@1/],
    ['no ciphertext', [{ ...good, ciphertext: new Uint8Array() }], /could not deliver a@1/],
    [
      'the manager’s words',
      [{ ...good, ciphertext: new Uint8Array(), error: 'the record was altered' }],
      /could not deliver a@1: the record was altered/,
    ],
    [
      'another ciphertext',
      [{ ...good, ciphertext: h.sealed('b').ciphertext }],
      /not the one that was announced/,
    ],
    ['a flipped bit', [{ ...good, ciphertext: flipped }], /not the one that was announced/],
    ['another secret’s', [{ ...h.sealed('b'), secretId: 'a' }], /does not belong to version 1 of secret a/],
    ['another version’s', [{ ...h.sealed('a', 'x', 2), version: 1 }], /does not belong to version 1/],
    ['another session’s', [host().sealed('a')], /does not open/],
    ['no key', [{ ...good, sealedKey: new Uint8Array() }], /tag/],
  ];
  for (const [index, [name, delivered, words]] of table.entries()) {
    const id = `t${index}`;
    const [report] = h.apply([task(id, 'web', 'a')], delivered).filter(({ taskId }) => taskId === id);
    t.is(report?.state, 'REJECTED', name);
    t.regex(report?.error ?? '', words, name);
    t.is(h.driver.shown(id), undefined, name);
    t.is(h.arena.facts().pieces, 0, name);
  }
});

test('a reference that this node cannot show fails its task in words', (t) => {
  const h = host();
  const table: [Parameters<typeof task>[2], RegExp][] = [
    [{ secretId: 'a', uid: 'no-such-user' }, /no user named "no-such-user"/],
    [{ secretId: 'a', gid: 'no-such-group' }, /no group named "no-such-group"/],
    [{ secretId: 'a', target: '../../etc/passwd' }, /not a file name/],
    [{ secretId: 'a', target: 'a\0b' }, /not a file name/],
    [{ secretId: 'a', mode: 0o4755 }, /mode 4755/],
  ];
  for (const [index, [used, words]] of table.entries()) {
    const id = `t${index}`;
    const reports = h.apply([task(id, 'web', used ?? 'a'), task('good', 'other', 'a')], [h.sealed('a')]);
    t.like(
      reports.find(({ taskId }) => taskId === id),
      { state: 'REJECTED' },
    );
    t.regex(reports.find(({ taskId }) => taskId === id)?.error ?? '', words);
    t.like(
      reports.find(({ taskId }) => taskId === 'good'),
      { state: 'RUNNING' },
    );
  }
});

test('a driver that fails for one task fails that task, and the others are published', (t) => {
  const h = host();
  h.driver.beforePublish = ({ taskId }) => {
    if (taskId === 't1') throw new Error('no more inodes');
  };
  const reports = h.apply([task('t1', 'web', 'a'), task('t2', 'api', 'a')], [h.sealed('a')]);
  t.deepEqual(states(reports), ['t1 REJECTED', 't2 RUNNING']);
  t.is(reports[0]?.error, 'no more inodes');
});

function wipeFor(tasks: HostTasks, reason: 'lease' | 'stopped' | 'removed'): void {
  if (reason === 'lease') tasks.wipeExpired(-Infinity);
  else tasks.wipeAll(reason);
}

for (const reason of ['lease', 'stopped', 'removed'] as const) {
  test(`wiping everything (${reason}) withdraws first and leaves not a byte`, (t) => {
    const h = host();
    h.apply([task('t1', 'web', 'a'), task('t2', 'api', 'b')], [h.sealed('a'), h.sealed('b')]);
    h.apply(
      [task('t1', 'web', { secretId: 'a', version: 2 }), task('t2', 'api', 'b')],
      [h.sealed('a', 'x', 2)],
    );
    const read = h.driver.open('t1', 'a');
    wipeFor(h.hostTasks, reason);
    t.is(read(), 'ESTALE');
    t.deepEqual(h.wipes().sort(), [`a@1 ${reason}`, `a@2 ${reason}`, `b@1 ${reason}`]);
    t.is(h.arena.facts().pieces, 0);
    t.is(h.clock.pending, 0);
    t.deepEqual([h.driver.shown('t1'), h.driver.shown('t2')], [undefined, undefined]);
    wipeFor(h.hostTasks, reason);
    t.deepEqual(h.wipes(), []);
  });
}

test('after a wipe for the lease, the next assignment brings the tasks back, as new generations', (t) => {
  const h = host();
  const wanted = [task('t1', 'web', 'a')];
  h.apply(wanted, [h.sealed('a')]);
  wipeFor(h.hostTasks, 'lease');
  t.deepEqual(h.vault.holdings(), [], 'so that the manager sends it again');
  t.deepEqual(states(h.apply(wanted, [h.sealed('a', 'again')])), ['t1 RUNNING']);
  t.deepEqual(h.driver.shown('t1'), { a: 'again' });
  t.is(h.driver.generation('t1')?.number, 2);
});

test('each value has a lease of its own: what is over goes, the rest is served on', (t) => {
  const h = host();
  const hourMs = 3_600_000;
  const wanted = [task('t1', 'web', 'a', 'b'), task('t2', 'api', 'a')];
  const shorter = { ...h.sealed('a'), leaseShiftMs: BigInt(-hourMs) };
  h.apply(wanted, [shorter, h.sealed('b')]);
  const deadlineMs = h.clock.boottimeMs() + 2 * hourMs;
  t.deepEqual(h.hostTasks.wipeExpired(deadlineMs), []);
  const [ofA, ofB] = [h.driver.open('t1', 'a'), h.driver.open('t1', 'b')];
  t.deepEqual(h.hostTasks.wipeExpired(h.clock.boottimeMs() + hourMs), ['a@1']);
  t.deepEqual([ofA(), ofB()], ['ESTALE', 'value of b']);
  t.is(h.driver.shown('t2'), undefined, 'a task that has nothing left shows nothing');
  t.deepEqual(h.wipes(), ['a@1 lease']);
  t.deepEqual(states(h.apply(wanted, [shorter])), ['t1 RUNNING', 't2 RUNNING']);
  t.deepEqual(Object.keys(h.driver.shown('t1') ?? {}), ['a', 'b']);
  t.deepEqual(Object.keys(h.driver.shown('t2') ?? {}), ['a']);
  t.deepEqual(h.hostTasks.wipeExpired(-Infinity).sort(), ['a@1', 'b@1']);
});
