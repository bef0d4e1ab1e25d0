/** A driver that goes on in the arena and the mount of another one, as after a kill or an upgrade. */
import { mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import type { MountDriver, PublishedFile } from '../../../src/agent/mount/driver.js';
import { createKernelDriver } from '../../../src/agent/mount/kernel.js';
import { adoptServedArena, type ServedArena } from '../../../src/crypto/arena.js';
import { addon } from '../../../src/system/addon.js';
import { systemClock } from '../../../src/system/clock.js';
import type { MountReader } from '../../support/mount_reader.js';
import { canMount, mounted, type Mounted } from '../../support/mounted.js';

const mounting = canMount ? test.serial : test.serial.skip;
const owner = { clusterId: 'c1', nodeId: 'n1' };
const bytesOf = (text: string) => new TextEncoder().encode(text);

/** The descriptors under other numbers, as another process would get them. */
async function passedOn(
  t: ExecutionContext,
  driver: MountDriver,
): Promise<{ arena: number; device: number }> {
  const folder = mkdtempSync(join(tmpdir(), 'inro-pass-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const { arena, device } = driver.handover!.descriptors();
  const receiving = addon().receiveDescriptors(join(folder, 's'), 5_000);
  t.is(await addon().passDescriptors(join(folder, 's'), [arena, device], 5_000), '');
  const [first, second] = await receiving;
  return { arena: first as number, device: second as number };
}

async function successor(
  t: ExecutionContext,
  context: Mounted,
): Promise<{ arena: ServedArena; driver: MountDriver }> {
  const { arena: descriptor, device } = await passedOn(t, context.driver);
  context.driver.handover!.letGo();
  const arena = adoptServedArena(descriptor);
  const driver = createKernelDriver({ arena, clock: systemClock, of: owner, isInherited: true });
  await driver.mount({ path: context.mountPoint, device: { fd: device, isNew: false } });
  t.teardown(() => driver.unmount());
  return { arena, driver };
}

function fileOf(
  context: Mounted,
  target: string,
  text: string,
  more: Partial<PublishedFile> = {},
): PublishedFile {
  const value = context.take(text.length);
  value.expose().set(bytesOf(text));
  const facts = { uid: 0, gid: 0, mode: 0o444, modifiedMs: 1_700_000_000_000, mmap: false };
  return { target, source: target, ...facts, value, note: bytesOf(`${target}: ${text}`), ...more };
}

/** Sorted. */
async function namesIn(reader: MountReader, path: string): Promise<string[]> {
  return ((await reader.call('readdirSync', path)) as string[]).sort();
}

const inodeOf = async (reader: MountReader, path: string): Promise<number> =>
  ((await reader.call('statSync', path)) as { ino: number }).ino;

const text = (note: Uint8Array) => Buffer.from(note).toString();

mounting('everything that was shown is found again, with what was noted beside it', async (t) => {
  const context = await mounted(t, 'kernel', { of: owner });
  const { driver, mountPoint } = context;
  const publish = (taskId: string, serviceId: string, number: number, files: PublishedFile[]) =>
    driver.publish({
      taskId,
      serviceId,
      serviceName: serviceId,
      number,
      graceMs: 60_000,
      files,
      note: bytesOf(`${taskId} ${number}`),
    });
  const shared = fileOf(context, 'shared', 'for two tasks', { mode: 0o400, uid: 5, gid: 6 });
  publish('t1', 'web', 1, [
    fileOf(context, 'key', 'old'),
    shared,
    fileOf(context, 'map', 'mapped', { mmap: true }),
  ]);
  publish('t2', 'web', 1, [shared]);
  publish('t3', 'db', 7, []);
  driver.openService('empty', 'empty');
  const reader = context.reader();
  const fd = await reader.call('openSync', `${mountPoint}/.task/t1/key`, 'r');
  publish('t1', 'web', 2, [fileOf(context, 'key', 'new'), shared]);
  const before = {
    all: await reader.call('execFileSync', 'ls', ['-lnAR', '--time-style=+%s', mountPoint], {
      encoding: 'utf8',
    }),
    ids: await reader.call('execFileSync', 'find', [mountPoint, '-printf', '%i %p\\n'], { encoding: 'utf8' }),
  };

  const next = await successor(t, context);
  const after = {
    all: await reader.call('execFileSync', 'ls', ['-lnAR', '--time-style=+%s', mountPoint], {
      encoding: 'utf8',
    }),
    ids: await reader.call('execFileSync', 'find', [mountPoint, '-printf', '%i %p\\n'], { encoding: 'utf8' }),
  };
  t.is(after.ids, before.ids);
  t.is(after.all, before.all);
  const { generations, values } = next.driver.handover!.inheritance;
  t.deepEqual(
    generations.map(({ taskId, number, note }) => [taskId, number, text(note)]),
    [
      ['t1', 2, 't1 2'],
      ['t2', 1, 't2 1'],
      ['t3', 7, 't3 7'],
    ],
  );
  const found = values.map(({ value, note, readableUntilMs, modifiedMs }) => [
    Buffer.from(value.expose()).toString(),
    text(note),
    readableUntilMs === Infinity,
    modifiedMs,
  ]);
  t.deepEqual(
    found.sort(([a], [b]) => String(a).localeCompare(String(b))),
    [
      ['for two tasks', 'shared: for two tasks', true, 1_700_000_000_000],
      ['new', 'key: new', true, 1_700_000_000_000],
      ['old', 'key: old', false, 1_700_000_000_000],
    ],
  );
  t.is(Buffer.from(await reader.call('pread', fd, 99, 0)).toString(), 'old', 'in its grace');

  // Life goes on: a rotation, a lost reference, a wipe, the next task, the end.
  const { driver: now, arena } = next;
  const valueOf = (content: string) =>
    values.find(({ value }) => Buffer.from(value.expose()).toString() === content)?.value;
  const late = { ...context, take: (bytes: number) => arena.take(bytes) };
  valueOf('old')?.wipe();
  await t.throwsAsync(reader.call('pread', fd, 99, 0), { message: /ESTALE/ });
  const kept = await reader.call('openSync', `${mountPoint}/.task/t1/key`, 'r');
  now.publish({
    taskId: 't1',
    serviceId: 'web',
    serviceName: 'web',
    number: 3,
    graceMs: 60_000,
    files: [fileOf(late, 'key', 'newest')],
  });
  t.is(
    Buffer.from(await reader.call('pread', kept, 99, 0)).toString(),
    'new',
    'the same source: it reads on',
  );
  t.is(Buffer.from(await reader.call('readWhole', `${mountPoint}/.task/t1/key`)).toString(), 'newest');
  t.deepEqual(await namesIn(reader, `${mountPoint}/web`), ['..2', '..data', 'shared'], 't2 is the newest');
  now.withdraw('t2');
  t.deepEqual(await namesIn(reader, `${mountPoint}/web`), ['..3', '..data', 'key'].sort(), 't1 is left');
  for (const task of ['t1', 't3']) now.withdraw(task);
  t.deepEqual(await namesIn(reader, `${mountPoint}/.task`), []);
  t.deepEqual(await namesIn(reader, mountPoint), ['.task', 'db', 'empty', 'web']);
});

mounting(
  'a service that a newer one of its name has replaced goes on in old bind mounts alone',
  async (t) => {
    const context = await mounted(t, 'kernel', { of: owner });
    const { driver, mountPoint } = context;
    driver.openService('old', 'web');
    const reader = context.reader();
    const before = await inodeOf(reader, `${mountPoint}/web`);
    driver.openService('new', 'web');
    const next = await successor(t, context);
    next.driver.openService('old', 'web');
    next.driver.openService('new', 'web');
    const after = await inodeOf(reader, `${mountPoint}/web`);
    t.not(after, before);
    t.deepEqual(await namesIn(reader, mountPoint), ['.task', 'web']);
  },
);

mounting('killed in its self-test: the next one takes the probe away', async (t) => {
  const context = await mounted(t, 'kernel', { of: owner });
  const { served } = context.arena;
  const id = served.reserveNode() as number;
  const piece = context.take(4).piece();
  const rootEntries = served
    .nodes()
    .flatMap((node) => (node.kind === 'directory' && node.id === 1 ? node.entries : []));
  const probe = { id, kind: 'file', mode: 0o400, uid: 0, gid: 0, modifiedMs: 0, size: 4 } as const;
  const step = {
    made: [{ ...probe, piece: piece.buffer, skip: piece.skip, probe: true }],
    filled: [{ directory: 1, entries: [...rootEntries, ['.self-test', id] as [string, number]] }],
    removed: [],
    superseded: [],
    gatings: [],
    readableUntilMs: 0,
    gone: [],
    changedMs: 0,
  };
  t.is(served.commit(step), '');
  const reader = context.reader();
  t.deepEqual(await namesIn(reader, context.mountPoint), ['.self-test', '.task']);
  await successor(t, context);
  t.deepEqual(await namesIn(reader, context.mountPoint), ['.task']);
});

mounting('what another node left, or what is no image, is not taken over', async (t) => {
  const context = await mounted(t, 'kernel', { of: owner });
  const { arena: descriptor } = await passedOn(t, context.driver);
  t.is(addon().inspectArena(descriptor), '');
  const arena = adoptServedArena(descriptor);
  t.throws(
    () =>
      createKernelDriver({
        arena,
        clock: systemClock,
        of: { ...owner, nodeId: 'n2' },
        isInherited: true,
      }),
    { message: 'the former agent was node n1 of cluster c1' },
  );
  arena.served.letGo();
  const nothing = openSync('/dev/null', 'r');
  t.throws(() => adoptServedArena(nothing), {
    message: /cannot be taken over: the descriptor of the arena is not one/,
  });
});
