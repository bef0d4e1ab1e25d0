/** One suite, both drivers, the real /dev/fuse. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import test from 'ava';
import { InroError } from '../../../src/model/error.js';
import { type MountReader } from '../../support/mount_reader.js';
import { canMount, driverNames, mounted, newDriver, publishKey } from '../../support/mounted.js';
import { checks } from '../../support/posix_conformance.js';

/** What the portable driver cannot do; docs say so. A check here that begins to pass fails. */
const gaps = {
  kernel: new Set<string>(),
  'fuse-native': new Set([
    'fstat of an open descriptor tells its own version',
    'a service made anew under an old name stays out of an old bind mount',
  ]),
};

const mounting = canMount ? test.serial : test.serial.skip;
const failing = canMount ? test.serial.failing : test.serial.skip;

for (const name of driverNames) {
  for (const [title, check] of Object.entries(checks)) {
    (gaps[name].has(title) ? failing : mounting)(`${name}: ${title}`, async (t) => {
      const context = await mounted(t, name);
      await check(context.mountPoint, context);
      t.deepEqual(context.errors, []);
    });
  }

  mounting(`${name}: if root remounts it writable, the driver itself refuses to write`, async (t) => {
    const context = await mounted(t, name);
    publishKey(context);
    const reader = context.reader();
    const web = `${context.mountPoint}/web`;
    await reader.call('execFileSync', 'mount', ['-i', '-o', 'remount,rw', context.mountPoint]);
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

  mounting(`${name}: the mount of a driver that lives is not taken over by another`, async (t) => {
    const context = await mounted(t, name);
    publishKey(context);
    const other = newDriver(name).driver;
    const refused = await t.throwsAsync<InroError>(other.mount({ path: context.mountPoint }), {
      instanceOf: InroError,
    });
    t.is(refused?.code, 'already_running');
    const content = await context.reader().call<Uint8Array>('readWhole', `${context.mountPoint}/web/key`);
    t.is(Buffer.from(content).toString(), 'value');
  });

  mounting(`${name}: one driver mounts once, and again after an unmount`, async (t) => {
    const context = await mounted(t, name);
    publishKey(context);
    const again = { path: context.mountPoint };
    await t.throwsAsync(context.driver.mount(again), { message: /already mounted/ });
    await context.driver.unmount();
    await context.driver.unmount();
    await context.driver.mount(again);
    const content = await context.reader().call<Uint8Array>('readWhole', `${context.mountPoint}/web/key`);
    t.is(Buffer.from(content).toString(), 'value');
  });

  // A child that had it would keep readers hanging after a SIGKILL of this process.
  mounting(`${name}: no child process gets the FUSE device`, async (t) => {
    await mounted(t, name);
    const { stdout } = await promisify(execFile)('sh', ['-c', 'ls -l /proc/self/fd/'], { cwd: '/' });
    t.regex(stdout, / 0 -> /);
    t.notRegex(stdout, /fuse/);
  });
}
