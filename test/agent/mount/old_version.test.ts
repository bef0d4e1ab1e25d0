/** What still leads to a version that was replaced, and to none that was taken away; with each version of the protocol. */
import test, { type ExecutionContext } from 'ava';
import { KernelCalls } from '../../support/kernel_calls.js';
import { canMount, mounted, publishKey, type Mounted } from '../../support/mounted.js';

const mounting = canMount ? test.serial : test.serial.skip;

async function reader(t: ExecutionContext, { mountPoint }: Mounted): Promise<KernelCalls> {
  const kernel = KernelCalls.of(t);
  await kernel.call('import system_calls as calls');
  await kernel.call(`web = '${mountPoint}/web'\nkey = web + '/key'\ndata = web + '/..data'`);
  return kernel;
}

mounting('a name, a handle, an O_PATH and a directory of an old version open nothing', async (t) => {
  const context = await mounted(t, 'kernel');
  const first = publishKey(context, 'first');
  const kernel = await reader(t, context);
  await kernel.call(`
calls.place(root='${context.mountPoint}')
fd, named, folder = os.open(key, 0), os.open(key, O_PATH), os.open(data, os.O_DIRECTORY)
handle, place = calls.handle_of(key), calls.handle_of(data + '/.')
os.chdir(data)`);
  publishKey(context, 'second', { number: 2 });
  const opensNothing = async (): Promise<void> => {
    for (const [call, errno] of [
      ['calls.opens("/proc/self/fd/%d" % named)', 'ESTALE'],
      ['calls.opens("/proc/self/fd/%d" % fd)', 'ESTALE'],
      ['calls.open_handle(handle)', 'ESTALE'],
      ['calls.open_handle(place, os.O_DIRECTORY)', 'ESTALE'],
      ['calls.opens("key", 0, folder)', 'ENOENT'],
      ['calls.entries_of(folder)', 'ENOENT'],
      ['os.stat("key")', 'ENOENT'],
      ['os.getcwd()', 'ENOENT'],
    ] as const)
      t.is(await kernel.fails(call), errno, call);
    t.is(await kernel.call('os.fstat(fd).st_size'), 5);
    t.is(await kernel.call('os.fstat(folder).st_nlink'), 0);
  };
  await opensNothing();
  t.is(await kernel.call('calls.content(calls.open_handle(calls.handle_of(key)))'), 'second');
  t.is(await kernel.call('os.pread(fd, 9, 0)'), 'first');
  t.is(await kernel.call('calls.aio_read(fd)'), 'first');
  const reads = ['os.pread(fd, 9, 0)', 'os.pread(fd, 9, 100)', 'calls.aio_read(fd)'];
  if ((await kernel.fails('calls.Uring() and None')) === 'ok') {
    t.is(await kernel.call('calls.Uring().read(fd)'), 'first');
    reads.push('calls.Uring().read(fd)');
  }
  first.wipe();
  for (const read of reads) t.is(await kernel.fails(read), 'ESTALE', read);
  await opensNothing();
  context.driver.withdraw('t1');
  await opensNothing();
  t.is(await kernel.fails('calls.handle_of(key)'), 'ENOENT');
});

// What the kernel of this host would not show: with older versions names are taken back one by one, and later.
for (const newestMinor of [23, 31, 39, 40, 43, 44, 45]) {
  mounting(`with FUSE 7.${newestMinor}: reads, rotation, poll, inotify, withdrawal`, async (t) => {
    const context = await mounted(t, 'kernel', { newestMinor });
    const first = publishKey(context, 'first');
    const kernel = await reader(t, context);
    await kernel.call(`
fd = os.open(key, 0)
size = lambda: os.stat(key).st_size
waiting, watch = calls.Epoll(fd, POLLPRI), calls.Watches(data=data)`);
    t.is(await kernel.call('os.pread(fd, 9, 0)'), 'first');
    t.is(await kernel.fails('splice(fd)'), 'EINVAL');
    t.is(await kernel.call('size()'), 5);
    publishKey(context, 'second', { number: 2 });
    t.is(await kernel.call('calls.opens(key)'), 'second');
    t.deepEqual(await kernel.call('watch.until("data IGNORED")'), ['data DELETE_SELF', 'data IGNORED']);
    t.true(await kernel.call('calls.becomes(lambda: size() == 6)'));
    t.true(await kernel.call('calls.becomes(lambda: os.readlink(data) == "..2")'));
    t.true(await kernel.call('waiting.waited() == POLLPRI'));
    t.is(await kernel.call('os.pread(fd, 9, 0)'), 'first');
    t.deepEqual(await kernel.call('calls.names(web)'), ['.', '..', '..2', '..data', 'key']);
    first.wipe();
    t.is(await kernel.fails('os.pread(fd, 9, 0)'), 'ESTALE');
    context.driver.withdraw('t1');
    t.is(await kernel.fails('calls.opens(key)'), 'ENOENT');
    t.true(await kernel.call('calls.becomes(lambda: not os.path.lexists(data))'));
    t.deepEqual(await kernel.call('calls.names(web)'), ['.', '..']);
    publishKey(context, 'third', { number: 3 });
    t.is(await kernel.call('calls.opens(key)'), 'third');
  });
}
