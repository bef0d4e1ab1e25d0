/** Several managers on one etcd: one leads, the others take over; nothing acknowledged is lost, and no reader sees anything wrong. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { etcdCluster } from '../support/etcd.js';
import { Host } from '../support/host.js';
import { eventually, pause, type Daemon } from '../support/inro.js';
import { labScenario } from '../support/lab.js';
import { managersOnEtcd, type OneManager } from '../support/managers.js';

const file = '/run/inro/secrets/web/key';

/** Reads a file that holds a growing number, without a pause, until it is told to end. */
const reader = `
const { readFileSync, existsSync } = require('node:fs');
const [file, until] = process.argv.slice(1);
let reads = 0, last = 0;
const wrong = [];
console.log('reading');
const round = () => {
  for (let n = 0; n < 20; n++) {
    try {
      const seen = Number(readFileSync(file, 'utf8'));
      if (!(seen >= last)) wrong.push(last + ' then ' + seen);
      last = seen;
    } catch (error) { wrong.push(error.code); }
    reads++;
  }
  if (existsSync(until)) console.log(JSON.stringify({ reads, last, wrong: wrong.slice(0, 5) }));
  else setTimeout(round, 2);
};
round();
`;

labScenario(
  '1: managers and etcd members are killed while a secret rotates: no reader and no operator sees a wrong answer',
  async (t) => {
    const cluster = await managersOnEtcd(t, { count: 3 });
    const { host, etcd, managers, ask, inro } = cluster;
    const [first, second] = managers as [OneManager, OneManager];
    // A host joins, and an operator asks, at whichever manager.
    await host.join(await ask(second, ['token', 'show', 'worker']), second.address);
    await host.startAgent();
    await ask(second, ['secret', 'create', 'key', '-'], { stdin: '1' });
    await ask(first, ['service', 'create', '--name', 'web', '--secret', 'key']);
    t.is(await host.read(file), '1');
    const until = join(host.folder, 'until');
    const reading = host.spawn([host.node, '-e', reader, file, until]);
    await reading.printed(/reading/);
    const over = new AbortController();
    let value = 1;
    const unknown: string[] = [];
    const rotating = (async () => {
      while (!over.signal.aborted) {
        const asked = managers[value % managers.length] as OneManager;
        if (!asked.daemon().running) {
          await pause(100);
          continue;
        }
        value++;
        const { code, stderr } = await inro(asked, ['secret', 'update', 'key', '-', '--detach'], {
          stdin: String(value),
        });
        // What fails is told as what it is: nobody answered, or nobody knows; never something else.
        if (code !== 0) unknown.push(stderr);
        await pause(50);
      }
    })();
    for (let round = 0; round < 3; round++) {
      await pause(1_500);
      const running = managers.filter((one) => one.daemon().running);
      const leader = await cluster.leader(running[0] as OneManager);
      await leader.daemon().kill9();
      await pause(1_000);
      const member = etcd.leader();
      await member.kill();
      // One that waited answers all the while, also in the moment in which it becomes the one that leads.
      const other = managers.find((one) => one !== leader) as OneManager;
      await eventually(
        'another one leads',
        async () => {
          const { code, stdout, stderr } = await inro(other, ['manager', 'ls', '--json']);
          if (code !== 0) t.regex(stderr, /no manager leads|which leads, does not answer/);
          const list = code === 0 ? (JSON.parse(stdout) as { address: string; state: string }[]) : [];
          return list.some(({ address, state }) => state === 'leader' && address !== leader.address);
        },
        60_000,
      );
      await pause(1_500);
      await member.start();
      await leader.start();
    }
    await pause(1_500);
    over.abort();
    await rotating;
    for (const words of unknown)
      t.regex(
        words,
        /nothing answers|whether .* is not known|no manager leads|does not lead|does not answer\n/,
      );
    for (const words of unknown) t.log(words.split('\n')[0]);
    t.log(`${value} updates, of which ${unknown.length} were told to have failed`);
    t.true(unknown.length < value / 2);
    // The last one is made when all is well again.
    await ask(second, ['secret', 'update', 'key', '-'], { stdin: String(++value) });
    t.is(await host.read(file), String(value));
    writeFileSync(until, '');
    const [, said = ''] = await reading.printed(/(\{.*\})/);
    const { reads, wrong } = JSON.parse(said) as { reads: number; wrong: string[] };
    t.deepEqual(wrong, []);
    t.true(reads > 1_000);
    // Each that was acknowledged has made a version; of the others some may have.
    const [newest] = JSON.parse(await ask(first, ['secret', 'ls', '--json'])) as { version: number }[];
    const made = newest?.version ?? 0;
    t.true(made >= value - unknown.length && made <= value, `${made} of ${value}`);
    t.regex(await ask(first, ['audit', '--verify']), /whole/);
  },
  { timeoutMs: 300_000 },
);

labScenario(
  '2: etcd sees neither values nor names; keys follow their rotation to all managers; who is removed or comes uninvited stays out',
  async (t) => {
    const cluster = await managersOnEtcd(t, { count: 2, members: 1 });
    const { host, etcd, managers, ask, inro, store } = cluster;
    const [first, second] = managers as [OneManager, OneManager];
    await host.join(await ask(first, ['token', 'show', 'worker']), first.address);
    await host.startAgent();
    await ask(second, ['secret', 'create', 'marked_name', '-', '--label', 'k=marked_label'], {
      stdin: 'marked_value',
    });
    await ask(first, ['service', 'create', '--name', 'web', '--secret', 'source=marked_name,target=key']);
    t.is(await host.read(file), 'marked_value');
    etcd.ctl('compact', String(1));
    for (const text of ['marked_name', 'marked_label', 'marked_value', 'PRIVATE KEY', 'CERTIFICATE'])
      t.is(
        (await host.run(['grep', '-raoc', text, `${etcd.folder}/m0`])).stdout.replace(/.*:0\n/g, ''),
        '',
        text,
      );

    // The uninvited: a folder of its own, a worker's token, a manager's token at an agent, one that is used up, no token.
    const stranger = await cluster.another();
    const run = (at: OneManager) =>
      host.inro([
        'manager',
        'run',
        '--state',
        at.state,
        '--listen',
        at.address,
        '--socket',
        '/run/x.sock',
        ...store,
      ]);
    const uninvited = await run(stranger);
    t.is(uninvited.code, 1, uninvited.stderr);
    t.regex(uninvited.stderr, /there is a cluster in the etcd at .*\n +to have this host be another manager/);
    const join = (token: string, ...more: string[]) =>
      host.inro(
        ['manager', 'join', '--token', '-', '--manager', second.address, '--state', '/run/new', ...more],
        {
          stdin: token,
        },
      );
    const worker = await join(await ask(first, ['token', 'create', 'worker']));
    t.regex(worker.stderr, /the join token is for a worker, not for a manager/);
    const standing = await join(await ask(first, ['token', 'show', 'worker']));
    t.regex(
      standing.stderr,
      /not valid any more, or never was\n +have one made: 'inro token create manager'/,
    );
    const token = await ask(first, ['token', 'create', 'manager']);
    const agent = await host.inro(
      ['agent', 'join', '--token', '-', '--manager', first.address, '--state', '/run/agent2'],
      { stdin: token },
    );
    t.regex(agent.stderr, /the join token is for a manager, not for a worker/);
    t.is((await join(token)).code, 0);
    t.regex((await join(token)).stderr, /is that of a manager already/);
    await host.sh('rm -r /run/new');
    t.regex((await join(token)).stderr, /is used up/);
    t.regex((await inro(first, ['token', 'show', 'manager'])).stderr, /no standing join token for managers/);
    t.regex(
      (
        await host.inro([
          'manager',
          'run',
          '--state',
          first.state,
          '--listen',
          '127.0.0.1:0',
          '--socket',
          '/run/x.sock',
        ])
      ).stderr,
      /another manager uses the state folder/,
    );

    // One that waits has an autolock of its own; who asked for its key is in the audit of all.
    await second.daemon().stop();
    await second.start('--autolock');
    const unlockKey = ['manager', 'unlock-key', '-q', '--socket', second.socket.slice('unix:'.length)];
    const shown = await host.ask(unlockKey);
    t.is(await host.ask(unlockKey), shown);
    const lines = JSON.parse(await ask(first, ['audit', '--json'])) as { action: string; address: string }[];
    const from = `socket of manager ${await second.id()}`;
    const ofIts = lines.filter(({ address }) => address.startsWith(from));
    t.deepEqual(
      ofIts.map(({ action }) => action).filter((action) => action.endsWith('UnlockKey')),
      ['setUnlockKey', 'getUnlockKey'],
    );
    await host.sh(`printf %s '${shown}' > /run/unlock`);
    await second.daemon().stop();
    await second.start('--no-autolock', '--unlock-key', '/run/unlock');

    // Another data key and another CA, and then another manager: it has them.
    await ask(first, ['manager', 'data-key', '--rotate', '--wait']);
    await ask(first, ['ca', 'rotate']);
    const digest = (at: OneManager, name: string) => host.sh(`sha256sum < ${at.state}/${name}`);
    await first.daemon().kill9();
    await eventually(
      'the other one leads',
      async () => (await cluster.leader(second).catch(() => undefined)) === second,
      60_000,
    );
    for (const name of ['data.key', 'ca.key', 'sealing.key'])
      t.is((await digest(second, name)).stdout, (await digest(first, name)).stdout, name);
    await ask(second, ['secret', 'update', 'marked_name', '-'], { stdin: 'second value' });
    t.is(await host.read(file), 'second value');
    await first.start();
    await eventually('both are seen', async () =>
      /waiting[^]*leader|leader[^]*waiting/.test(await ask(first, ['manager', 'ls'])),
    );

    // Removed: it gets no keys, and nothing of what it asks for.
    t.regex((await inro(second, ['manager', 'rm', await second.id()])).stderr, /leads just now/);
    const removed = await first.id();
    await ask(second, ['manager', 'rm', removed]);
    t.is(await first.daemon().exited, 1);
    t.regex(first.daemon().stderr, /was removed from the cluster/);
    t.regex((await run(first)).stderr, /was removed from the cluster/);
    t.false((await ask(second, ['manager', 'ls'])).includes(removed));
    await ask(second, ['secret', 'update', 'marked_name', '-'], { stdin: 'third value' });
    t.is(await host.read(file), 'third value');
  },
  { timeoutMs: 240_000 },
);

labScenario(
  '3: a manager’s store moves to etcd with all that is in it, and its nodes go on',
  async (t) => {
    const etcd = await etcdCluster(t, { members: 1 });
    const host = await Host.of(t);
    const { manager } = await host.startCluster();
    const { address } = manager;
    await host.ask(['secret', 'create', 'key', '-'], { stdin: 'before' });
    await host.ask(['service', 'create', '--name', 'web', '--secret', 'key']);
    const { ca, cert, key } = etcd.files;
    const url = `etcd://${etcd.endpoints.join(',')}/moved/here`;
    const tls = ['--store-ca', ca, '--store-cert', cert, '--store-key', key];
    const state = '/var/lib/inro/manager';
    const migrate = (...more: string[]) =>
      host.inro(['manager', 'migrate', '--state', state, '--store', url, ...more]);
    t.regex((await migrate(...tls)).stderr, /another manager uses the state folder/);
    await manager.stop();
    t.regex((await migrate()).stderr, /does not answer.*certificate/);
    t.is((await host.sh(`ls ${state}/store >/dev/null && echo there`)).stdout, 'there\n');
    const { code, stdout, stderr } = await migrate(...tls);
    t.is(code, 0, stderr);
    t.regex(stdout, /^moved \d+ records to etcd:/);
    t.regex((await migrate(...tls)).stderr, /it was moved before: start the manager with --store/);
    const run = ['manager', 'run', '--state', state, '--listen', address];
    t.regex((await host.inro(run)).stderr, /keeps its store in etcd\n +say where that is: --store/);
    const again = host.start([...run, '--store', url, ...tls]);
    await again.printed(/"manager is ready"/);
    await host.ask(['secret', 'update', 'key', '-'], { stdin: 'after' });
    t.is(await host.read(file), 'after');
    t.regex(await host.ask(['audit', '--verify']), /./);
    // A quick restart after a kill does not wait for its own lease.
    await again.kill9();
    const third = host.start([...run, '--store', url, ...tls]);
    await third.printed(/"manager is ready"/);
    t.is(JSON.parse(await host.ask(['manager', 'ls', '--json']))[0].state, 'leader');
  },
  { timeoutMs: 120_000 },
);

labScenario(
  '4: a leader that is cut off from etcd, or stopped for a while, answers nobody any more; nothing is done twice',
  async (t) => {
    // One network of four hosts: etcd, two managers, a node.
    const hub = await Host.of(t, { hostname: 'hub', ownNetwork: true });
    await hub.sh('ip link add br0 type bridge && ip addr add 10.213.0.1/24 dev br0 && ip link set br0 up');
    const [a, b, node] = await Promise.all(
      [2, 3, 4].map(async (n) => {
        const host = await Host.of(t, { hostname: `host-${n}`, ownNetwork: true });
        await hub.sh(
          `ip link add v${n} type veth peer name eth0 netns ${host.pid} && ip link set v${n} master br0 up`,
        );
        const { code, stderr } = await host.sh(
          `ip addr add 10.213.0.${n}/24 dev eth0 && ip link set eth0 up`,
        );
        if (code !== 0) throw new Error(stderr);
        return host;
      }),
    );
    if (a === undefined || b === undefined || node === undefined) throw new Error('three hosts were made');
    const etcd = await etcdCluster(t, {
      members: 3,
      within: () => ['nsenter', '-t', String(hub.pid), '-n'],
      address: () => '10.213.0.1',
    });
    const { ca, cert, key } = etcd.files;
    const url = `etcd://${etcd.endpoints.join(',')}/inro`;
    const state = '/var/lib/inro/manager';
    const run = (host: Host, n: number): Daemon => {
      const tls = ['--store-ca', ca, '--store-cert', cert, '--store-key', key];
      return host.start([
        'manager',
        'run',
        '--state',
        state,
        '--listen',
        `10.213.0.${n}:4747`,
        '--store',
        url,
        ...tls,
      ]);
    };
    const first = run(a, 2);
    await first.printed(/"manager is ready"/);
    const token = await a.ask(['token', 'create', 'manager']);
    await b.ask(['manager', 'join', '--token', '-', '--manager', '10.213.0.2:4747', '--state', state], {
      stdin: token,
    });
    const second = run(b, 3);
    await second.printed(/"manager waits"/);
    await node.join(await b.ask(['token', 'show', 'worker']), '10.213.0.3:4747');
    await node.startAgent();
    await a.ask(['secret', 'create', 'key', '-'], { stdin: '1' });
    await b.ask(['service', 'create', '--name', 'web', '--secret', 'key']);
    t.is(await node.read(file), '1');
    const version = async (host: Host): Promise<string> => {
      const { code, stdout, stderr } = await host.inro(['secret', 'ls', '--json'], { timeoutMs: 60_000 });
      return code === 0 ? String((JSON.parse(stdout) as { version: number }[])[0]?.version) : stderr;
    };
    const leads = (host: Host, address: string) => async (): Promise<boolean> => {
      const { stdout } = await host.inro(['manager', 'ls'], { timeoutMs: 60_000 });
      return stdout.split('\n').some((line) => line.includes(address) && line.includes('leader'));
    };

    // Cut off from etcd alone: the node and the other manager still reach it.
    await a.sh('ip route add blackhole 10.213.0.1');
    // It does not lead any more before the other one does: until then it may answer, and what it says is still so.
    await second.printed(/"manager is ready"/);
    await b.ask(['secret', 'update', 'key', '-'], { stdin: '2', timeoutMs: 60_000 });
    t.is(await node.read(file), '2');
    t.regex(await version(a), /^inro: (no manager leads|this manager|no manager at)/);
    t.regex(
      (await a.inro(['secret', 'update', 'key', '-'], { stdin: 'x', timeoutMs: 60_000 })).stderr,
      /^inro: /,
    );
    t.is(await node.read(file), '2');
    await a.sh('ip route del blackhole 10.213.0.1');
    await eventually('it hands on', async () => (await version(a)) === '2', 60_000);
    t.true(await leads(a, '10.213.0.3')());

    // Stopped for longer than its lease, and going on in the belief that it leads.
    await b.run(['kill', '-STOP', String(second.pid)]);
    await eventually('the other one leads', leads(a, '10.213.0.2'), 60_000);
    await a.ask(['secret', 'update', 'key', '-'], { stdin: '3', timeoutMs: 60_000 });
    const asked = Promise.all([version(b), version(b), version(b)]);
    await pause(500);
    await b.run(['kill', '-CONT', String(second.pid)]);
    for (const said of await asked) t.regex(said, /^3$|^inro: /);
    await eventually('it hands on', async () => (await version(b)) === '3', 60_000);
    t.is(await node.read(file), '3');

    // The whole of etcd without a majority: nobody leads, readers go on; then one does.
    for (const member of etcd.members.slice(0, 2)) await member.kill();
    await eventually(
      'it says why it does not serve',
      async () =>
        /this manager serves nothing just now: the etcd at .* does not answer/.test(
          (await a.inro(['secret', 'ls'], { timeoutMs: 60_000 })).stderr,
        ),
      90_000,
    );
    t.is(await node.read(file), '3');
    for (const member of etcd.members.slice(0, 2)) await member.start();
    await eventually('one leads again', async () => (await version(a)) === '3', 90_000);
    await a.ask(['secret', 'update', 'key', '-'], { stdin: '4', timeoutMs: 60_000 });
    t.is(await node.read(file), '4');
    t.regex(await a.ask(['audit', '--verify']), /./);
  },
  { timeoutMs: 300_000 },
);
