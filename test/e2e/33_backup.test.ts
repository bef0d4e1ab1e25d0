/** A backup of a running manager, sealed, and a manager made from it. */
import { randomBytes } from 'node:crypto';
import { Host } from '../support/host.js';
import { eventually } from '../support/inro.js';
import { labScenario } from '../support/lab.js';

const state = '/var/lib/inro/manager';
const file = '/run/inro/secrets/web/key';

async function clusterWithSecret(host: Host) {
  const manager = await host.startManager();
  await host.join(await host.ask(['token', 'show', 'worker']), manager.address);
  const agent = host.start(['agent', 'run']);
  await agent.printed(/"session with the manager"/);
  await host.ask(['secret', 'create', 'key', '-'], { stdin: 'hunter2' });
  await host.ask(['service', 'create', '--name', 'web', '--secret', 'key']);
  return manager;
}

labScenario(
  '1: a manager restored from a backup goes on with its nodes, and a backup alone opens nothing',
  async (t) => {
    const host = await Host.of(t);
    const manager = await clusterWithSecret(host);
    await host.ask(['secret', 'create', 'quite_a_name', '-'], { stdin: randomBytes(300_000) });
    const without = await host.inro(['manager', 'backup', '/run/b0']);
    t.is(without.code, 2);
    t.regex(without.stderr, /not said under which key the backup is to be sealed\n +make one/);
    await host.sh('inro manager unlock-key --new > /run/key; inro manager unlock-key --new > /run/other');
    t.regex(await host.ask(['manager', 'backup', '/run/b1', '--key', '/run/key']), /^\/run\/b1: /);
    t.is(
      (await host.inro(['manager', 'backup', '/run/b1', '--key', '/run/key'])).stderr.split('\n')[0],
      'inro: /run/b1 is there already',
    );
    t.is((await host.sh('stat -c %a /run/b1; ls /run | grep -c unfinished')).stdout, '600\n0\n');
    // No key, no name, no certificate; and not twice the same.
    for (const text of ['hunter2', 'quite_a_name', 'BEGIN', 'web'])
      t.not((await host.run(['grep', '-qa', text, '/run/b1'])).code, 0, text);
    await host.ask(['secret', 'update', 'key', '-'], { stdin: 'later than the backup' });
    t.is(await host.read(file), 'later than the backup');
    await manager.kill9();
    await host.sh(`mv ${state} /run/lost`);

    const restore = (...more: string[]) => host.inro(['manager', 'restore', '--state', state, ...more]);
    const bad: [string, RegExp][] = [
      ['cp /run/b1 /run/bad', /that key does not open this backup of cluster/],
      ['head -c 100000 /run/b1 > /run/bad', /its end is missing/],
      ['head -c 20 /run/b1 > /run/bad', /its end is missing/],
      ['seq 100 > /run/bad', /that is no backup of an inro manager/],
      [': > /run/bad', /that is no backup of an inro manager/],
      [
        'cp /run/b1 /run/bad; printf x | dd of=/run/bad bs=1 seek=150000 conv=notrunc status=none',
        /the backup is damaged/,
      ],
      ['cp /run/b1 /run/bad; printf xyz >> /run/bad', /the backup is damaged/],
    ];
    for (const [n, [make, words]] of bad.entries()) {
      await host.sh(make);
      const { code, stderr } = await restore('/run/bad', '--key', n === 0 ? '/run/other' : '/run/key');
      t.is(code, 2, make);
      t.regex(stderr, words, make);
      t.is((await host.sh(`ls -d ${state}* 2>/dev/null`)).stdout, '', make);
    }
    await host.sh(`mkdir -p ${state}; touch ${state}/mine`);
    t.regex((await restore('/run/b1', '--key', '/run/key')).stderr, /is not empty/);
    await host.sh(`rm ${state}/mine`);
    const { code, stdout } = await restore('/run/b1', '--key', '/run/key');
    t.is(code, 0);
    t.regex(stdout, /^\/var\/lib\/inro\/manager: cluster [0-9a-z]{25} as it was \S+, \d+ records\n$/);
    t.is(
      (await host.sh(`stat -c '%a %n' ${state} ${state}/data.key ${state}/store/data.mdb`)).stdout,
      `700 ${state}\n600 ${state}/data.key\n600 ${state}/store/data.mdb\n`,
    );
    await host.startManager({ listen: manager.address });
    await eventually(
      'its nodes are back, with what it knows',
      async () => (await host.read(file)) === 'hunter2',
    );
    t.regex(await host.ask(['secret', 'inspect', 'key']), /Version: +1/i);
    await host.ask(['secret', 'update', 'key', '-'], { stdin: 'after it' });
    t.is(await host.read(file), 'after it');
    t.regex(await host.ask(['audit', '--verify']), /./);
  },
);

labScenario(
  '2: under autolock it is sealed by the unlock key, and what is restored is locked by the same',
  async (t) => {
    const host = await Host.of(t);
    await host.sh('inro manager unlock-key --new > /run/key');
    const args = ['manager', 'run', '--state', state, '--listen', '127.0.0.1:0'];
    const manager = host.start([...args, '--autolock', '--unlock-key', '/run/key']);
    await manager.printed(/"manager is ready"/);
    await host.ask(['secret', 'create', 'key', '-'], { stdin: 'hunter2' });
    // Into a pipe, while things change.
    const writing = (async () => {
      for (let n = 0; n < 10; n++)
        await host.ask(['secret', 'create', `s${n}`, '-'], { stdin: randomBytes(500_000) });
    })();
    for (let n = 0; n < 3; n++) t.is((await host.sh(`inro manager backup - > /run/b${n}`)).code, 0);
    await writing;
    t.regex(await host.ask(['audit']), /backup/);
    await manager.stop();
    await host.sh(`rm -r ${state}`);
    for (let n = 2; n >= 0; n--) {
      await host.sh(`rm -rf ${state}`);
      const restored = await host.sh(`inro manager restore - --state ${state} --key /run/key < /run/b${n}`);
      t.regex(restored.stdout, /under the same unlock key/);
      t.is(
        (
          await host.sh(
            `head -qc1 ${state}/ca.key ${state}/data.key ${state}/sealing.key ${state}/manager.key | xxd -p`,
          )
        ).stdout,
        '06060606\n',
      );
      const again = host.start([...args, '--unlock-key', '/run/key']);
      await again.printed(/"manager is ready"/);
      t.regex(await host.ask(['secret', 'ls']), /key/);
      t.is(await again.stop(), 0);
    }
  },
);
