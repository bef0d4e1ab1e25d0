/** A manager whose keys are wrapped by an unlock key: locked after each start, until somebody brings it. */
import { Host } from '../support/host.js';
import { eventually } from '../support/inro.js';
import { labScenario } from '../support/lab.js';

const state = '/var/lib/inro/manager';
const file = '/run/inro/secrets/web/key';
const beginnings = ['PRIVATE KEY', 'MIGHAgEAMBMGByqGSM49', '308187020100301306072a8648ce3d'];

/** Files of the manager's folder that hold a private key which anybody could use, or a key file in clear. */
async function inClear(host: Host): Promise<string[]> {
  const { stdout } = await host.sh(
    `cd ${state}; for f in $(find . -type f -not -name lock -not -name locked.key -not -path './store/*'); do if { cat $f; echo; xxd -p $f | tr -d '\\n'; } | grep -qa ${beginnings.map((text) => `-e '${text}'`).join(' ')} || { [ $(stat -c %s $f) = 33 ]; }; then basename $f; fi; done | sort`,
  );
  return stdout.split('\n').filter((line) => line !== '');
}

interface Status {
  locked: boolean;
  autolock: string;
  nodes: number;
  expiries: { kind: string; name: string }[];
}
const status = (host: Host) => host.json<Status>(['status']);

labScenario('1: locked after each start; agents serve meanwhile; the right key alone opens it', async (t) => {
  const host = await Host.of(t);
  const first = await host.startManager();
  await host.join(await host.ask(['token', 'show', 'worker']), first.address);
  const agent = host.start(['agent', 'run']);
  await agent.printed(/"session with the manager"/);
  await host.ask(['secret', 'create', 'key', '-'], { stdin: 'hunter2' });
  await host.ask(['service', 'create', '--name', 'web', '--secret', 'key']);
  t.like(await status(host), { locked: false, autolock: 'off', nodes: 1 });
  const refused = await host.inro(['manager', 'unlock-key']);
  t.is(refused.code, 1);
  t.regex(refused.stderr, /autolock is off\n +start it with --autolock/);
  await first.stop();
  t.deepEqual(await inClear(host), ['ca.key', 'data.key', 'manager.key', 'sealing.key']);

  const run = (...more: string[]) =>
    host.start(['manager', 'run', '--state', state, '--listen', first.address, ...more]);
  const wanting = run('--autolock');
  await wanting.printed(/autolock is not in force yet: type 'inro manager unlock-key'/);
  await wanting.printed(/"manager is ready"/);
  t.like(await status(host), { locked: false, autolock: 'wanted' });
  t.is((await inClear(host)).length, 4, 'nobody has the key yet');
  const shown = await host.inro(['manager', 'unlock-key']);
  t.regex(shown.stdout, /^INRO-UNLOCK-1-[a-z2-7]{56}\n$/);
  t.regex(shown.stderr, /from now on the keys on disk are wrapped/);
  const key = shown.stdout.trim();
  t.deepEqual(await inClear(host), []);
  t.is(await host.ask(['manager', 'unlock-key', '-q']), key);
  t.like(await status(host), { locked: false, autolock: 'on' });
  await wanting.kill9();

  const locked = run();
  await locked.printed(/locked: on this host, type 'inro manager unlock'/);
  const found = await status(host);
  t.like(found, { locked: true, autolock: 'on', nodes: 1 });
  t.true(found.expiries.some(({ kind }) => kind === 'lease'));
  t.regex(await host.ask(['status']), /LOCKED: it serves nothing until 'inro manager unlock'/);
  for (const command of [
    ['secret', 'ls'],
    ['node', 'ls'],
    ['token', 'show', 'worker'],
    ['manager', 'unlock-key'],
    ['audit'],
  ]) {
    const { code, stderr } = await host.inro(command);
    t.is(code, 1);
    t.is(
      stderr,
      'inro: the manager is locked: its keys are wrapped by its unlock key\n      on its host: inro manager unlock\n',
      command.join(' '),
    );
  }
  t.is(await host.read(file), 'hunter2');
  const heard = /the manager at \S+ is locked: it waits for its unlock key/;
  await eventually('the agent has heard it', async () => heard.test(await host.ask(['agent', 'status'])));
  const lease = async (): Promise<{ state: string; leaseLeftMs: number }> =>
    (await host.json<{ session: { state: string; leaseLeftMs: number } }>(['agent', 'status'])).session;
  const before = await lease();
  t.true(before.leaseLeftMs > 0);
  const other = await host.ask(['manager', 'unlock-key', '--new']);
  for (const [typed, words] of [
    [other, /that unlock key does not open this manager/],
    [key.slice(0, -1), /that is no unlock key: it has 69 characters/],
    ['', /that is no unlock key: there is nothing/],
  ] as const) {
    const wrong = await host.inro(['manager', 'unlock', '-'], { stdin: typed });
    t.not(wrong.code, 0);
    t.regex(wrong.stderr, words);
  }
  const onLine = await host.inro(['manager', 'unlock', key]);
  t.regex(onLine.stderr, /stands in the process list/);
  t.is((await status(host)).locked, true);
  const after = await lease();
  t.true(after.leaseLeftMs < before.leaseLeftMs, 'no lease is prolonged');
  t.is(await host.read(file), 'hunter2');
  t.is(await host.ask(['manager', 'unlock', '-'], { stdin: `${key}\n` }), 'unlocked');
  t.like(await status(host), { locked: false, autolock: 'on' });
  t.is(await host.ask(['manager', 'unlock', '-'], { stdin: key }), 'the manager is not locked');
  await eventually('the agent is back', async () => (await host.ask(['node', 'ls'])).includes('ready'));
  await host.ask(['secret', 'update', 'key', '-'], { stdin: 'hunter3' });
  t.is(await host.read(file), 'hunter3');

  // Another key takes its place.
  const next = await host.ask(['manager', 'unlock-key', '--rotate', '-q']);
  t.not(next, key);
  t.deepEqual(await inClear(host), []);
  t.regex(await host.ask(['audit']), /setUnlockKey/);
  for (const log of [wanting, locked])
    for (const one of [key, next]) t.false(log.stderr.includes(one) || log.stdout.includes(one));
  t.is(await locked.stop(), 0);
  await host.sh(`printf %s '${key}' > /run/former; printf '%s\\n' '${next}' > /run/next`);
  const former = await host.inro([
    'manager',
    'run',
    '--state',
    state,
    '--listen',
    first.address,
    '--unlock-key',
    '/run/former',
  ]);
  t.is(former.code, 2);
  t.regex(former.stderr, /that unlock key does not open this manager/);

  // Brought at the start, and no more wanted after that.
  const clear = run('--unlock-key', '/run/next', '--no-autolock');
  await clear.printed(/"manager is ready"/);
  t.like(await status(host), { locked: false, autolock: 'off' });
  t.is((await inClear(host)).length, 4);
  await clear.stop();
  const needless = await host.inro([
    'manager',
    'run',
    '--state',
    state,
    '--listen',
    first.address,
    '--unlock-key',
    '/run/next',
  ]);
  t.is(needless.code, 2);
  t.regex(needless.stderr, /an unlock key is given for a manager that is not locked/);
  t.is(await host.read(file), 'hunter3');
});

labScenario(
  '2: wrapped from the first start on, by a key that a credential brings; stopped while it is locked',
  async (t) => {
    const host = await Host.of(t);
    const made = `mkdir -m 700 /run/creds && inro manager unlock-key --new > /run/creds/inro.unlock-key`;
    t.is((await host.sh(made)).code, 0);
    const env = { CREDENTIALS_DIRECTORY: '/run/creds' };
    const command = ['manager', 'run', '--state', state, '--listen', '127.0.0.1:0'];
    const bring = ['--unlock-key', '@inro.unlock-key'];
    const manager = host.start([...command, '--autolock', ...bring], { env });
    await manager.printed(/"manager is ready"/);
    t.deepEqual(await inClear(host), []);
    t.is(
      await host.ask(['manager', 'unlock-key']),
      (await host.sh('cat /run/creds/inro.unlock-key')).stdout.trim(),
    );
    await host.ask(['secret', 'create', 'key', '-'], { stdin: 'hunter2' });
    await manager.stop();

    const locked = host.start(command);
    await locked.printed(/locked: on this host/);
    const second = await host.inro(command);
    t.is(second.code, 1);
    t.regex(second.stderr, /another manager uses the state folder/);
    t.is(await locked.stop(), 0);

    // From a terminal, where it is not shown; from a descriptor; from a credential.
    const key = (await host.sh('cat /run/creds/inro.unlock-key')).stdout.trim();
    const ways = [
      async () => {
        const typing = host.spawn(['script', '-qec', 'inro manager unlock', '/dev/null'], { talks: true });
        await typing.printed(/Unlock key: /);
        typing.say(key);
        t.is(await typing.exited, 0, typing.stdout);
        t.regex(typing.stdout, /unlocked/);
        t.false(typing.stdout.includes(key));
      },
      async () => {
        const { code, stdout } = await host.sh('inro manager unlock /dev/fd/3 3< /run/creds/inro.unlock-key');
        t.deepEqual([code, stdout], [0, 'unlocked\n']);
      },
      async () => t.is(await host.ask(['manager', 'unlock', '@inro.unlock-key'], { env }), 'unlocked'),
    ];
    for (const unlock of ways) {
      const waits = host.start(command);
      await waits.printed(/locked: on this host/);
      await unlock();
      t.like(await status(host), { locked: false });
      await waits.stop();
    }
    const again = host.start([...command, ...bring], { env });
    await again.printed(/"manager is ready"/);
    t.regex(await host.ask(['secret', 'ls']), /key/);
    await again.stop();
    const both = await host.inro([...command, ...bring, '--key-credential', 'inro.unlock-key'], { env });
    t.is(both.code, 2);
    t.regex(both.stderr, /by the unlock key or by a credential, not by both/);
  },
);
