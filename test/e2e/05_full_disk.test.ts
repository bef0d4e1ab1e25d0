/** The manager's disk is full: what was acknowledged stays, what was not is not there, and room heals it. */
import type { ExecutionContext } from 'ava';
import { Host, scenario } from '../support/host.js';
import { labScenario } from '../support/lab.js';
import type { Result } from '../support/inro.js';

const state = '/var/lib/inro/manager';
const kib = 1024;

scenario('secrets are created until the disk is full', async (t) => {
  const { host, fill } = await onSmallDisk(t);
  await host.ask(['secret', 'create', 'served', '-'], { stdin: 'from the start' });
  await host.ask(['service', 'create', '--name', 'web', '--secret', 'served']);

  // 1. It fails with words, and everything acknowledged is there.
  const { acknowledged, failure } = await fill(200 * kib);
  t.true(acknowledged.length >= 3, `${acknowledged.length} fit`);
  full(t, failure);
  t.deepEqual(await listed(host), [...acknowledged, 'served']);

  // 2. A new version fails alike: the old one is served on, and counts.
  full(t, await host.inro(['secret', 'update', 'served', '-'], { stdin: Buffer.alloc(200 * kib) }));
  t.is(await host.read('/run/inro/secrets/web/served'), 'from the start');
  t.like((await host.json(['secret', 'inspect', 'served']))[0], { version: 1, sizeBytes: 14 });

  // 3. Reading goes on.
  t.like((await host.json(['service', 'ps', 'web']))[0], { state: 'RUNNING' });
  t.is((await host.inro(['node', 'ls'])).code, 0);

  // 4. What is removed makes room.
  const [first = '', second = ''] = acknowledged;
  await host.ask(['secret', 'rm', first, second]);
  await host.ask(['secret', 'create', 'afterwards', '-'], { stdin: Buffer.alloc(200 * kib, 'x') });
  await host.ask(['service', 'update', '--secret-add', 'afterwards', 'web']);
  t.is(
    (
      await host.sh(
        'tr -d x < /run/inro/secrets/web/afterwards | wc -c; wc -c < /run/inro/secrets/web/afterwards',
      )
    ).stdout,
    `0\n${200 * kib}\n`,
  );
});

labScenario(
  'a large value that does not fit into what is left is called a full disk too; more room heals it',
  async (t) => {
    const { host, manager, fill } = await onSmallDisk(t);
    const { acknowledged, failure } = await fill(900 * kib);
    t.true(acknowledged.length >= 1);
    full(t, failure);
    t.deepEqual(await listed(host), acknowledged);

    await host.sh(`mount -o remount,size=16m ${state}`);
    await host.ask(['secret', 'create', 'afterwards', '-'], { stdin: Buffer.alloc(900 * kib) });
    await host.ask([
      'service',
      'create',
      '--name',
      'web',
      '--secret',
      'afterwards',
      '--secret',
      acknowledged[0] ?? '',
    ]);
    t.is((await host.sh(`wc -c < /run/inro/secrets/web/afterwards`)).stdout, `${900 * kib}\n`);

    // And all of it is there after a restart.
    t.is(await manager.stop(), 0);
    await host.startManager({ state });
    t.deepEqual(await listed(host), ['afterwards', ...acknowledged]);
  },
);

labScenario('a manager that is killed on its full disk starts again', async (t) => {
  const { host, manager, fill } = await onSmallDisk(t);
  const { acknowledged } = await fill(300 * kib);
  await manager.kill9();
  await host.startManager({ state });
  t.deepEqual(await listed(host), acknowledged);
  await host.ask(['secret', 'rm', ...acknowledged]);
  await host.ask(['secret', 'create', 'afterwards', '-'], { stdin: Buffer.alloc(300 * kib) });
  t.deepEqual(await listed(host), ['afterwards']);
});

interface Filled {
  /** In the order of their names. */
  acknowledged: string[];
  failure: Result;
}

async function onSmallDisk(t: ExecutionContext) {
  const host = await Host.of(t);
  await host.sh(`mkdir -p ${state} && mount -t tmpfs -o size=3m,mode=700 tmpfs ${state}`);
  const { manager, agent } = await host.startCluster({ state });
  /** Creates secrets of this size until one is refused. */
  const fill = async (bytes: number): Promise<Filled> => {
    const acknowledged: string[] = [];
    for (let at = 10; at < 90; at++) {
      const failure = await host.inro(['secret', 'create', `s${at}`, '-'], { stdin: Buffer.alloc(bytes) });
      if (failure.code !== 0) return { acknowledged, failure };
      acknowledged.push(`s${at}`);
    }
    throw new Error('it is never full');
  };
  return { host, manager, agent, fill };
}

async function listed(host: Host): Promise<string[]> {
  return (await host.json<{ name: string }[]>(['secret', 'ls'])).map(({ name }) => name);
}

function full(t: ExecutionContext, { code, stdout, stderr }: Result): void {
  t.is(code, 1, stderr);
  t.is(stdout, '');
  t.is(
    stderr,
    `inro: the disk that holds ${state}/store is full; nothing was changed\n      free some space there and try again\n`,
  );
}

labScenario(
  'a disk that fails, as ext4 does after an error: changes fail in words, what is served is served, a restart goes on',
  async (t) => {
    const host = await Host.of(t);
    const disk = `truncate -s 64M /run/disk && mkfs.ext4 -q /run/disk && mkdir -p -m 700 ${state}`;
    t.is((await host.sh(`${disk} && mount -o loop /run/disk ${state} && rmdir ${state}/lost+found`)).code, 0);
    const { manager, nodeId } = await host.startCluster({ state });
    await host.ask(['secret', 'create', 'served', '-'], { stdin: 'from the start' });
    await host.ask(['service', 'create', '--name', 'web', '--secret', 'served']);
    await host.sh(`mount -o remount,abort ${state}`);
    for (const args of [
      ['secret', 'create', 'another', '-'],
      ['secret', 'update', 'served', '-'],
    ]) {
      const { code, stderr } = await host.inro(args, { stdin: 'x' });
      t.is(code, 1);
      t.regex(stderr, /could not be written: .*; nothing was changed\n +check that disk/, args.join(' '));
    }
    const rotated = await host.inro(['manager', 'data-key', '--rotate']);
    t.regex(rotated.stderr, /data-next\.key cannot be written: /);
    t.is(await host.read('/run/inro/secrets/web/served'), 'from the start');
    t.deepEqual(await listed(host), ['served']);
    const backup = 'inro manager unlock-key --new > /run/key; inro manager backup /run/backup --key /run/key';
    t.is((await host.sh(backup)).code, 0);
    await manager.kill9();
    // The disk is read-only until somebody has mended it.
    const early = await host.inro(['manager', 'run', '--state', state, '--listen', manager.address]);
    t.is(early.code, 1);
    t.regex(early.stderr, /cannot be locked: EROFS\n +check that it can be written: .*read-only/);
    await host.sh(`umount ${state} && fsck.ext4 -p /run/disk; mount -o loop /run/disk ${state}`);
    await host.startManager({ state, listen: manager.address });
    await host.ask(['secret', 'update', 'served', '-'], { stdin: 'after it' });
    t.is(await host.read('/run/inro/secrets/web/served'), 'after it');
    t.true((await host.ask(['node', 'ls', '-q'])).includes(nodeId));
    t.regex(await host.ask(['audit', '--verify']), /./);
    await host.sh(`umount -l ${state}`);
  },
);
