/** What is the portable driver's own. */
import test from 'ava';
import { canMount, mounted, newDriver, publishKey } from '../../support/mounted.js';

const mounting = canMount ? test.serial : test.serial.skip;

mounting('open descriptors are bounded: ENFILE, and room again after a close', async (t) => {
  const context = await mounted(t, 'fuse-native', { maxOpenHandles: 3 });
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
  const context = await mounted(t, 'fuse-native', {
    boottimeMs: () => {
      if (broken) throw new Error('the lease cannot be told');
      return 0;
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
  let broken = false;
  const context = await mounted(t, 'fuse-native', {
    boottimeMs: () => {
      if (broken) throw new Error('first');
      return 0;
    },
    onError: () => {
      throw new Error('second');
    },
  });
  publishKey(context);
  broken = true;
  t.is(await context.reader().fails('openSync', `${context.mountPoint}/web/key`), 'EIO');
});

test('the driver says what it cannot promise', (t) => {
  const { notes, ...facts } = newDriver('fuse-native').driver.facts();
  t.deepEqual(facts, {
    name: 'fuse-native',
    directIo: true,
    strict: false,
    callerIdentity: false,
    handover: false,
  });
  t.true(notes.length > 0);
});
