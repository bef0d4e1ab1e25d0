/** What stays of a file in the kernel's page cache: nothing, or for a reference that may be mapped nothing after its wipe. */
import test, { type ExecutionContext } from 'ava';
import { KernelCalls } from '../../support/kernel_calls.js';
import { canMount, mounted, publishKey, type Mounted } from '../../support/mounted.js';

const mounting = canMount ? test.serial : test.serial.skip;
const text = 'plaintext '.repeat(2_000);
const pages = Math.ceil(text.length / 4096);

async function opened(t: ExecutionContext, context: Mounted): Promise<KernelCalls> {
  const kernel = KernelCalls.of(t);
  await kernel.call(`path = '${context.mountPoint}/web/key'\nfd = os.open(path, os.O_RDONLY)`);
  await kernel.call(`
for name, kind in (('private', mmap.MAP_PRIVATE), ('shared', mmap.MAP_SHARED)):
  globals()[name] = Mapping(fd, ${text.length}, kind)`);
  return kernel;
}

mounting(
  'strict: read in every way, by many programs: no page is resident, no mapping is filled',
  async (t) => {
    const context = await mounted(t, 'kernel');
    publishKey(context, text);
    const kernel = await opened(t, context);
    t.is(await kernel.call('os.pread(fd, 9, 0)'), 'plaintext');
    for (const call of ['splice(fd)', 'sendfile(fd)']) t.is(await kernel.fails(call), 'EINVAL', call);
    for (const map of ['private', 'shared']) t.is(await kernel.fails(`${map}.read()`), 'EFAULT', map);
    await kernel.call(`os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_WILLNEED)`);
    const reads = `cat $F; cp $F copy; dd if=$F bs=100; head -c 5000 $F; tail -n 1 $F; grep -c plain $F; sha256sum < $F; cat < $F | cat`;
    const script = `cd '${context.scratch}'; F='${context.mountPoint}/web/key'; (${reads}) > /dev/null 2>&1; cmp copy $F && echo same`;
    t.is(await kernel.call(`os.popen("""${script}""").read()`), 'same\n');
    for (const map of ['private', 'shared']) t.is(await kernel.call(`${map}.resident()`), 0, map);
  },
);

mounting(
  'mmap: private and shared, locked, spliced, sent; after the wipe SIGBUS, zeros, no page',
  async (t) => {
    const context = await mounted(t, 'kernel');
    const value = publishKey(context, text, { mmap: true });
    const kernel = await opened(t, context);
    await kernel.call(`locked = Mapping(fd, ${text.length}, mmap.MAP_PRIVATE)\nlocked.lock()`);
    const mappings = ['private', 'shared', 'locked'];
    for (const map of mappings) {
      t.is(await kernel.call(`${map}.read(10, 9)`), 'plaintext', map);
      t.is(await kernel.call(`${map}.read(${text.length - 10}, 9)`), 'plaintext', map);
      t.is(await kernel.call(`${map}.resident()`), pages, map);
    }
    await kernel.call('spliced = splice(fd)\nsent = sendfile(fd)\nemptied = splice(fd)');
    t.is(await kernel.call('os.read(emptied, 65536)'), text);

    t.true(value.wipe());
    for (const map of mappings) {
      t.is(await kernel.fails(`${map}.read()`), 'EFAULT', map);
      t.is(await kernel.fails(`${map}.read(${text.length - 10})`), 'EFAULT', map);
      t.is(await kernel.call(`${map}.resident()`), 0, map);
    }
    for (const pipe of ['spliced', 'sent'])
      t.is(await kernel.call(`os.read(${pipe}, 65536)`), '\0'.repeat(text.length), pipe);
    t.is(await kernel.fails('os.pread(fd, 1, 0)'), 'ESTALE');
    t.is(await kernel.fails('splice(fd)'), 'ESTALE');
    t.is(await kernel.fails(`Mapping(fd, ${text.length}, mmap.MAP_PRIVATE).read()`), 'EFAULT');
  },
);

mounting(
  'mmap: a withdrawal and a lost reference take the pages too, a rotation only with the wipe',
  async (t) => {
    const context = await mounted(t, 'kernel');
    const first = publishKey(context, text, { mmap: true });
    const before = await opened(t, context);
    t.is(await before.call('private.read(0, 9)'), 'plaintext');
    publishKey(context, text, { mmap: true, number: 2 });
    const after = await opened(t, context);
    t.is(await before.call('private.read(0, 9)'), 'plaintext', 'in its grace');
    first.wipe();
    t.is(await before.fails('private.read()'), 'EFAULT');
    t.is(await after.call('private.read(0, 9)'), 'plaintext');
    t.true((await after.call<number>('shared.resident()')) > 0);
    context.driver.withdraw('t1');
    for (const map of ['private', 'shared']) {
      t.is(await after.fails(`${map}.read()`), 'EFAULT', map);
      t.is(await after.call(`${map}.resident()`), 0, map);
    }

    publishKey(context, text, { mmap: true });
    const last = await opened(t, context);
    t.is(await last.call('shared.read(0, 9)'), 'plaintext');
    context.driver.publish({
      taskId: 't1',
      serviceId: 's',
      serviceName: 'web',
      number: 2,
      graceMs: 10_000,
      files: [],
    });
    t.is(await last.fails('shared.read()'), 'EFAULT');
    t.is(await last.call('shared.resident()'), 0);
  },
);
