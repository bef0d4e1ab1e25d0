/** The fuse-native driver on the real /dev/fuse. */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { promisify } from 'node:util';
import test, { type ExecutionContext } from 'ava';
import { createFuseNativeDriver, type FuseNativeOptions } from '../../../src/agent/mount/fuse_native.js';
import { InroError } from '../../../src/model/error.js';
import { openArena } from '../../../src/crypto/arena.js';
import { guardMounts } from '../../support/mount_guard.js';
import { MountReader } from '../../support/mount_reader.js';
import { checks, type ConformanceContext } from '../../support/posix_conformance.js';

/** What the portable driver cannot do; docs say so. A check here that begins to pass fails. */
const gaps = new Set([
  'fstat of an open descriptor tells its own version',
  'a service made anew under an old name stays out of an old bind mount',
]);

const canMount = existsSync('/dev/fuse') && process.getuid?.() === 0;
const mounting = canMount ? test.serial : test.serial.skip;
const failing = canMount ? test.serial.failing : test.serial.skip;

interface Mounted extends ConformanceContext {
  mountPoint: string;
  errors: unknown[];
  reader: () => MountReader;
}

async function mounted(
  t: ExecutionContext,
  options: Partial<FuseNativeOptions> & { mayServe?: () => boolean } = {},
): Promise<Mounted> {
  const { mountPoint, scratch, cleanUp } = await guardMounts();
  t.teardown(cleanUp);
  const lease = { over: false };
  const errors: unknown[] = [];
  const arena = openArena(8 << 20, 'auto');
  const driver = createFuseNativeDriver({
    onError: (error) => errors.push(error),
    now: () => Date.now(),
    ...options,
  });
  await driver.mount({ path: mountPoint, mayServe: options.mayServe ?? (() => !lease.over) });
  t.teardown(() => driver.unmount());
  const reader = (): MountReader => {
    const one = new MountReader();
    t.teardown(() => one.close());
    return one;
  };
  return { driver, take: (bytes) => arena.take(bytes), lease, scratch, mountPoint, errors, reader };
}

for (const [name, check] of Object.entries(checks)) {
  (gaps.has(name) ? failing : mounting)(name, async (t) => {
    const context = await mounted(t);
    await check(context.mountPoint, context);
    t.deepEqual(context.errors, []);
  });
}

function publishKey({ driver, take }: ConformanceContext, text = 'value'): void {
  const value = take(text.length);
  value.expose().set(Buffer.from(text));
  const files = [{ target: 'key', source: 'key', uid: 0, gid: 0, mode: 0o444, modifiedMs: 0, value }];
  driver.publish({ taskId: 't1', serviceId: 's', serviceName: 'web', number: 1, files });
}

mounting('open descriptors are bounded: ENFILE, and room again after a close', async (t) => {
  const context = await mounted(t, { maxOpenHandles: 3 });
  publishKey(context);
  const reader = context.reader();
  const path = `${context.mountPoint}/web/key`;
  const fds = [
    await reader.call('openSync', path),
    await reader.call('openSync', path),
    await reader.call('openSync', path),
  ];
  t.is(await reader.fails('openSync', path), 'ENFILE');
  t.is(await reader.pread(fds[2] as number, 10, 0), 'value');
  await reader.call('closeSync', fds[1]);
  // RELEASE is sent after close has returned.
  let outcome = '';
  for (let attempt = 0; attempt < 100 && outcome !== 'ok'; attempt++)
    outcome = await reader.fails('openSync', path);
  t.is(outcome, 'ok');
});

mounting('an exception in a handler is the reader’s EIO and is reported; the mount lives on', async (t) => {
  let broken = false;
  const context = await mounted(t, {
    mayServe: () => {
      if (broken) throw new Error('the lease cannot be told');
      return true;
    },
  });
  publishKey(context);
  const reader = context.reader();
  const fd = await reader.call<number>('openSync', `${context.mountPoint}/web/key`);
  broken = true;
  t.is(await reader.fails('pread', fd, 10, 0), 'EIO');
  t.is(await reader.fails('openSync', `${context.mountPoint}/web/key`), 'EIO');
  broken = false;
  t.is(await reader.pread(fd, 10, 0), 'value');
  t.is(context.errors.length, 2);
});

mounting('an observer of errors that throws itself harms nobody', async (t) => {
  const context = await mounted(t, {
    mayServe: () => {
      throw new Error('first');
    },
    onError: () => {
      throw new Error('second');
    },
  });
  publishKey(context);
  t.is(await context.reader().fails('openSync', `${context.mountPoint}/web/key`), 'EIO');
});

mounting('if root remounts it writable, the driver itself refuses to write', async (t) => {
  const context = await mounted(t);
  publishKey(context);
  const reader = context.reader();
  const web = `${context.mountPoint}/web`;
  await reader.call('execFileSync', 'mount', ['-o', 'remount,rw', context.mountPoint]);
  const attempts: [Parameters<MountReader['fails']>[0], ...unknown[]][] = [
    ['openSync', `${web}/key`, 'w'],
    ['openSync', `${web}/key`, 'r+'],
    ['openSync', `${web}/key`, 'a'],
    ['openSync', `${web}/new`, 'wx'],
    ['unlinkSync', `${web}/key`],
    ['renameSync', `${web}/key`, `${web}/other`],
    ['linkSync', `${web}/key`, `${web}/new`],
    ['symlinkSync', 'key', `${web}/new`],
    ['mkdirSync', `${web}/new`],
    ['rmdirSync', `${web}/..1`],
    ['chmodSync', `${web}/key`, 0o777],
    ['chownSync', `${web}/key`, 1, 1],
    ['utimesSync', `${web}/key`, 1, 1],
    ['truncateSync', `${web}/key`, 0],
  ];
  for (const attempt of attempts) t.is(await reader.fails(...attempt), 'EROFS', attempt.join(' '));
});

mounting('the mount of a driver that lives is not taken over by another', async (t) => {
  const context = await mounted(t);
  publishKey(context);
  const other = createFuseNativeDriver({ onError: (error) => t.fail(String(error)), now: () => 0 });
  const refused = await t.throwsAsync<InroError>(
    other.mount({ path: context.mountPoint, mayServe: () => true }),
    { instanceOf: InroError },
  );
  t.is(refused?.code, 'already_running');
  const content = await context.reader().call<Uint8Array>('readWhole', `${context.mountPoint}/web/key`);
  t.is(Buffer.from(content).toString(), 'value');
});

mounting('one driver mounts once, and again after an unmount', async (t) => {
  const context = await mounted(t);
  publishKey(context);
  const again = { path: context.mountPoint, mayServe: () => true };
  await t.throwsAsync(context.driver.mount(again), { message: /already mounted/ });
  await context.driver.unmount();
  await context.driver.unmount();
  await context.driver.mount(again);
  const content = await context.reader().call<Uint8Array>('readWhole', `${context.mountPoint}/web/key`);
  t.is(Buffer.from(content).toString(), 'value');
});

// A child that had it would keep readers hanging after a SIGKILL of this process.
mounting('no child process gets the FUSE device', async (t) => {
  await mounted(t);
  const { stdout } = await promisify(execFile)('sh', ['-c', 'ls -l /proc/self/fd/'], { cwd: '/' });
  t.regex(stdout, / 0 -> /);
  t.notRegex(stdout, /fuse/);
});

test('the driver says what it cannot promise', (t) => {
  const { notes, ...facts } = createFuseNativeDriver({ onError: () => {}, now: () => 0 }).facts();
  t.deepEqual(facts, {
    name: 'fuse-native',
    directIo: true,
    strict: false,
    callerIdentity: false,
    handover: false,
  });
  t.true(notes.length > 0);
});
