/** A value's own lease: what is over is gone, with nobody there to say so; the rest is served on. */
import { Host, scenario } from '../support/host.js';
import { eventually } from '../support/inro.js';

const folder = '/run/inro/secrets/web';
const listen = '127.0.0.1:4747';

interface Receipt {
  secret: string;
  reason: string;
  signatureChecked: boolean;
}

scenario(
  'without a manager a value is served for its lease, and no longer; it comes back with the manager',
  async (t) => {
    const host = await Host.of(t);
    const { manager } = await host.startCluster({ listen });
    await host.ask(['secret', 'create', '--lease', '10s', 'short', '-'], { stdin: 'short' });
    await host.ask(['secret', 'create', 'usual', '-'], { stdin: 'usual' });
    await host.ask(['secret', 'create', '--lease', 'never', 'lasting', '-'], { stdin: 'lasting' });
    const names = ['short', 'usual', 'lasting'];
    await host.ask(['service', 'create', '--name', 'web', ...names.flatMap((name) => ['--secret', name])]);
    for (const name of names) t.is(await host.read(`${folder}/${name}`), name);
    t.regex(await host.ask(['secret', 'inspect', 'short']), /LEASE[^]*10 s[^]*UNTIL, IF IT IS NOT HEARD/);
    t.regex(await host.ask(['secret', 'inspect', 'lasting']), /host-a +1 +.* never$/m);
    const bad = await host.inro(['secret', 'create', '--lease', '9s', 'x', '-'], { stdin: 'x' });
    t.regex(bad.stderr, /a lease of 9 s is not possible\n +write 10s to 365d, or never/);

    const held = host.spawn([
      'sh',
      '-c',
      `exec 3< ${folder}/short; echo opened; until [ -e read-on ]; do sleep 0.02; done; dd bs=100 count=1 <&3`,
    ]);
    await held.printed(/opened/);
    await manager.kill9();
    await eventually(
      'its lease is over',
      async () => (await host.read(`${folder}/short`)) !== 'short',
      30_000,
    );
    await host.sh('touch read-on');
    await held.exited;
    t.regex(held.stderr, /Stale file handle/);
    t.is(await host.read(`${folder}/usual`), 'usual');
    t.is(await host.read(`${folder}/lasting`), 'lasting');

    await host.startManager({ listen });
    await eventually('it is back', async () => (await host.read(`${folder}/short`)) === 'short', 60_000);
    const receipts = await host.json<Receipt[]>(['receipts', '--secret', 'short']);
    t.deepEqual(
      receipts.map(({ reason, signatureChecked }) => [reason, signatureChecked]),
      [['lease', true]],
    );
    t.regex(await host.ask(['receipts']), /host-a +[a-z0-9]{25} +short@1 +lease +[0-9.]+ ms +checked/);
  },
  { timeoutMs: 180_000 },
);
