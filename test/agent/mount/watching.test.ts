/** What those hear who wait for news of a secret: poll, select, epoll, io_uring, inotify. */
import test, { type ExecutionContext } from 'ava';
import type { Plaintext } from '../../../src/crypto/plaintext.js';
import { KernelCalls } from '../../support/kernel_calls.js';
import { canMount, mounted, publishKey, type Mounted } from '../../support/mounted.js';

const mounting = canMount ? test.serial : test.serial.skip;

async function reader(t: ExecutionContext, { mountPoint }: Mounted): Promise<KernelCalls> {
  const kernel = KernelCalls.of(t);
  await kernel.call('import system_calls as calls');
  await kernel.call(`web = '${mountPoint}/web'\nkey = web + '/key'\ndata = web + '/..data'`);
  return kernel;
}

mounting(
  'poll and select: readable always, POLLPRI once a newer version is there, POLLERR at the end',
  async (t) => {
    const context = await mounted(t, 'kernel');
    const first = publishKey(context);
    const kernel = await reader(t, context);
    await kernel.call('fd = os.open(key, 0)');
    const asked = 'POLLIN | POLLPRI | select.POLLOUT | select.POLLHUP | select.POLLRDHUP';
    const polled = () => kernel.call<number>(`polled(fd, ${asked})`);
    const selected = () => kernel.call('[bool(one) for one in select.select([fd], [fd], [fd], 0)]');
    const [IN, PRI, ERR] = await kernel.call<number[]>('[POLLIN, POLLPRI, POLLERR]');
    t.is(await polled(), IN!);
    t.deepEqual(await selected(), [true, false, false]);
    publishKey(context, 'second', { number: 2 });
    t.is(await polled(), IN! | PRI!);
    t.deepEqual(await selected(), [true, false, true]);
    t.is(await kernel.call('polled(fd, 0)'), 0);
    t.is(await kernel.call('os.pread(fd, 9, 0)'), 'value');
    first.wipe();
    t.is(await polled(), IN! | PRI! | ERR!);
    t.is(await kernel.call('polled(fd, 0)'), ERR!);
    t.is(await kernel.call('polled(os.open(key, 0))'), IN!);
    t.is(await kernel.call('polled(os.open(web, 0))'), IN!);
    t.is(await kernel.fails('calls.Epoll(os.open(web, 0), POLLIN)'), 'EPERM');
  },
);

mounting(
  'epoll: edge-triggered once for each piece of news, level-triggered again and again, one-shot once',
  async (t) => {
    const context = await mounted(t, 'kernel');
    publishKey(context);
    const kernel = await reader(t, context);
    await kernel.call(`
fd = os.open(key, 0)
edge = calls.Epoll(fd, select.EPOLLIN | select.EPOLLPRI | select.EPOLLET)
level = calls.Epoll(fd, select.EPOLLPRI)
once = calls.Epoll(fd, select.EPOLLPRI | select.EPOLLONESHOT)`);
    const [IN, PRI, ERR] = await kernel.call<number[]>('[POLLIN, POLLPRI, POLLERR]');
    t.deepEqual(await kernel.call('[edge.now(), edge.now(), level.now(), once.now()]'), [IN!, 0, 0, 0]);
    t.is(await kernel.call('os.pread(fd, 9, 0)'), 'value');
    t.is(await kernel.call('edge.now()'), 0, 'a read is no news');
    publishKey(context, 'second', { number: 2 });
    t.deepEqual(await kernel.call('[edge.waited(), edge.now()]'), [IN! | PRI!, 0]);
    t.deepEqual(await kernel.call('[level.waited(), level.waited()]'), [PRI!, PRI!]);
    t.deepEqual(await kernel.call('[once.waited(), once.now()]'), [PRI!, 0]);
    publishKey(context, 'third', { number: 3 });
    t.is(await kernel.call('edge.now()'), 0, 'it was replaced before');
    context.driver.withdraw('t1');
    t.is(await kernel.call('edge.waited()'), IN! | PRI! | ERR!);
    t.is(await kernel.fails('os.pread(fd, 9, 0)'), 'ESTALE');
  },
);

mounting('who waits hears of a wipe, a withdrawal and the unmount', async (t) => {
  const context = await mounted(t, 'kernel');
  const kernel = await reader(t, context);
  const waiting = 'fd = os.open(key, 0)\nwait = calls.Epoll(fd, POLLPRI)';
  const ends: ((value: Plaintext) => unknown)[] = [
    (value) => value.wipe(),
    () => context.driver.withdraw('t1'),
    () => context.driver.unmount(),
  ];
  for (const [index, end] of ends.entries()) {
    const value = publishKey(context, 'value', { number: index + 1 });
    await kernel.call(waiting);
    t.is(await kernel.call('wait.now()'), 0);
    await end(value);
    t.true(await kernel.call('wait.waited() & POLLERR != 0'), `${index}`);
  }
});

mounting(
  'who begins to wait for POLLERR alone, once a newer version is there, hears of the end',
  async (t) => {
    const context = await mounted(t, 'kernel');
    const first = publishKey(context);
    const kernel = await reader(t, context);
    await kernel.call('fd = os.open(key, 0)');
    publishKey(context, 'second', { number: 2 });
    await kernel.call('wait = calls.Epoll(fd, 0)');
    t.is(await kernel.call('wait.now()'), 0);
    first.wipe();
    t.true(await kernel.call('wait.waited() == POLLERR'));
  },
);

mounting('many wait; who closes or is killed meanwhile takes no news from the others', async (t) => {
  const context = await mounted(t, 'kernel');
  publishKey(context);
  const kernel = await reader(t, context);
  const killed = await reader(t, context);
  const open = `many = [os.open(key, 0) for _ in range(500)]\nwaits = [calls.Epoll(fd, POLLPRI) for fd in many]`;
  for (const one of [kernel, killed]) await one.call(open);
  await kernel.call('for fd in many[:100]: os.close(fd)');
  await killed.close();
  publishKey(context, 'second', { number: 2 });
  t.true(await kernel.call('all(wait.waited() == POLLPRI for wait in waits[100:])'));
  t.is(await kernel.call('sum(wait.now() for wait in waits[:100])'), 0);
});

mounting('a wait by io_uring', async (t) => {
  const context = await mounted(t, 'kernel');
  publishKey(context);
  const kernel = await reader(t, context);
  const made = await kernel.fails('calls.Uring() and None');
  if (made !== 'ok') return t.pass(`there is no io_uring here: ${made}`);
  await kernel.call('fd = os.open(key, 0)');
  const waited = kernel.call('calls.Uring().poll(fd, POLLPRI) == POLLPRI');
  publishKey(context, 'second', { number: 2 });
  t.true(await waited);
});

mounting('inotify: a file tells of its readers, and that it was replaced or taken away', async (t) => {
  const context = await mounted(t, 'kernel');
  publishKey(context);
  const kernel = await reader(t, context);
  const watch = `
folder = calls.Watches(web=web)
watches = {name: calls.Watches(**{name: path}) for name, path in (('key', key), ('data', data), ('set', os.path.realpath(data)))}`;
  await kernel.call(watch);
  t.is(await kernel.call('calls.opens(key)'), 'value');
  const readersEvents = ['OPEN', 'ACCESS', 'CLOSE_NOWRITE'];
  t.deepEqual(
    await kernel.call("watches['key'].until('key CLOSE_NOWRITE')"),
    readersEvents.map((event) => `key ${event}`),
  );
  t.deepEqual(
    await kernel.call("folder.until('web/key CLOSE_NOWRITE')"),
    readersEvents.map((event) => `web/key ${event}`),
  );
  const told = `[event for name, watch in watches.items() for event in watch.until(name + ' IGNORED')]`;
  const gone = ['key', 'data', 'set'].flatMap((name) => [`${name} DELETE_SELF`, `${name} IGNORED`]);
  publishKey(context, 'second', { number: 2 });
  t.deepEqual(await kernel.call(told), gone);
  await kernel.call(watch);
  context.driver.withdraw('t1');
  t.deepEqual(await kernel.call(told), gone);
});

mounting('inotify: of a file that is open, when it is closed; of the unmount', async (t) => {
  const context = await mounted(t, 'kernel');
  publishKey(context);
  const kernel = await reader(t, context);
  await kernel.call(`fd = os.open(key, 0)\nwatch, link = calls.Watches(key=key), calls.Watches(data=data)`);
  publishKey(context, 'second', { number: 2 });
  await kernel.call(`link.until('data IGNORED')\nos.close(fd)`);
  t.deepEqual(await kernel.call(`watch.until('key IGNORED')`), [
    'key CLOSE_NOWRITE',
    'key DELETE_SELF',
    'key IGNORED',
  ]);
  await kernel.call(`watch = calls.Watches(key=key)`);
  await context.driver.unmount();
  t.deepEqual(await kernel.call(`watch.until('key IGNORED')`), ['key UNMOUNT', 'key IGNORED']);
});
