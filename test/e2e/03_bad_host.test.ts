/** Hosts that are not as they should be: no FUSE device, paths that are taken, state that is damaged or gone. */
import { Host, scenario } from '../support/host.js';
import { refused } from '../support/inro.js';

const state = '/var/lib/inro/manager';
const runManager = ['manager', 'run', '--state', state, '--listen', '127.0.0.1:0'];

scenario('no FUSE device, or one that is none', async (t) => {
  const host = await Host.of(t);
  const bare = (device: string): readonly string[] => [
    'unshare',
    '-m',
    'sh',
    '-c',
    `mkdir /run/dev && mount -t tmpfs tmpfs /run/dev && for d in null zero random urandom; do mknod /run/dev/$d c $(stat -c '0x%t 0x%T' /dev/$d); done
     ${device}; mount --move /run/dev /dev; rmdir /run/dev; exec "$@"`,
    'bare',
  ];
  refused(
    t,
    await host.inro(['dev'], { through: bare('true') }),
    1,
    /^inro: \/dev\/fuse cannot be opened: ENOENT\n {6}load the kernel module: modprobe fuse/,
  );
  refused(
    t,
    await host.inro(['dev'], { through: bare('mknod /run/dev/fuse c 10 250') }),
    1,
    /^inro: \/dev\/fuse cannot be opened: /,
  );
  const none = bare('touch /run/dev/fuse');
  refused(
    t,
    await host.inro(['dev'], { through: none }),
    1,
    /^inro: cannot mount \/run\/inro\/secrets: \/dev\/fuse is no FUSE device\n/,
  );
  const portable = await host.inro(['dev', '--driver', 'fuse-native'], { through: none });
  t.is(portable.code, 1);
  t.regex(
    portable.stderr,
    /^fuse: mount failed: Invalid argument\ninro: libfuse cannot mount \/run\/inro\/secrets\n/,
  );
  t.is((await host.sh('ls -A /run/inro 2>/dev/null; ls -A tmp')).stdout, '', 'nothing is left behind');
});

scenario('a socket path that is somebody else’s file is refused, and the file stays', async (t) => {
  const host = await Host.of(t);
  const { manager, agent } = await host.startCluster();
  await agent.stop();
  await manager.stop();
  await host.sh('echo precious > notes && mkdir folder');
  for (const path of ['notes', 'folder']) {
    const words = new RegExp(`cannot serve the socket ${path}: something else is there, and stays`);
    refused(t, await host.inro([...runManager, '--socket', path]), 1, words);
    const run = await host.inro(['agent', 'run', '--mount', 'm', '--socket', path]);
    t.is(run.code, 1);
    t.regex(run.stderr, words);
  }
  t.is((await host.sh('cat notes; ls -A folder')).stdout, 'precious\n');
  t.notRegex((await host.sh('cat /proc/self/mountinfo')).stdout, /fuse\.inro/);
});

scenario('a damaged store is said', async (t) => {
  const host = await Host.of(t);
  await (await host.startManager()).stop();
  await host.sh(`cp ${state}/store/data.mdb whole`);
  for (const damaged of [
    'head -c 8192 /dev/zero',
    'head -c 32768 /dev/urandom',
    'head -c 8192 whole',
    'echo x',
  ]) {
    await host.sh(`${damaged} > ${state}/store/data.mdb`);
    refused(t, await host.inro(runManager), 1, /the store in \/var\/lib\/inro\/manager\/store is damaged/);
  }
});

scenario('a store that has gone, or is of another cluster, is said: the keys stay', async (t) => {
  const host = await Host.of(t);
  await (await host.startManager()).stop();
  await (await host.startManager({ state: '/var/lib/other' })).stop();
  const keys = async (): Promise<string> =>
    (await host.sh(`cd ${state} && sha256sum ca.key ca.crt data.key sealing.key`)).stdout;
  const before = await keys();

  await host.sh(`mv ${state}/store /var/lib/store`); // a volume that is not mounted yet
  refused(t, await host.inro(runManager), 1, /store/);
  t.is(await keys(), before, 'without these keys no backup of the store can be read');

  await host.sh(`rm -rf ${state}/store && cp -r /var/lib/other/store ${state}/store`);
  refused(
    t,
    await host.inro(runManager),
    1,
    /ca\.crt is not the CA that signs for cluster [0-9a-z]{25}, by its store/,
  );
  t.is(await keys(), before);

  await host.sh(`rm -rf ${state}/store && mv /var/lib/store ${state}/store`);
  await host.startManager();
});
