/** Join tokens made to measure, and hosts that enrol again, with real managers and agents that are killed in between. */
import { Host, scenario, type Manager } from '../support/host.js';
import { labScenario } from '../support/lab.js';
import { eventually, refused, type Result } from '../support/inro.js';

const listen = '127.0.0.1:4747';

const join = (
  host: Host,
  manager: Manager,
  state: string,
  token: string,
  ...more: string[]
): Promise<Result> =>
  host.inro(['agent', 'join', '--token', '-', '--manager', manager.address, '--state', state, ...more], {
    stdin: token,
  });

scenario('hosts that race for the last use of a token: exactly one wins', async (t) => {
  const host = await Host.of(t);
  const manager = await host.startManager();
  const token = await host.ask(['token', 'create', 'worker', '--uses', '2']);
  const results = await Promise.all(
    Array.from({ length: 6 }, (_, n) => join(host, manager, `/var/lib/n${n}`, token)),
  );
  t.is(results.filter(({ code }) => code === 0).length, 2);
  for (const lost of results.filter(({ code }) => code !== 0))
    refused(t, lost, 1, /^inro: the join token is used up: it was good for 2 uses/);
  t.is((await host.json(['node', 'ls'])).length, 2);
  t.like(await host.json<{ tokens: unknown[] }>(['token', 'ls']), { tokens: [{ uses: 2, usesLeft: 0 }] });
});

labScenario(
  'a manager that is killed while hosts join gives no use twice, and takes no node twice',
  async (t) => {
    const host = await Host.of(t, { ownNetwork: true });
    let manager = await host.startManager({ listen });
    for (let round = 0; round < 4; round++) {
      const token = await host.ask(['token', 'create', 'worker']);
      const before = (await host.json(['node', 'ls'])).length;
      const joined = (manager.daemon.stderr.match(/a host joined/g) ?? []).length;
      const joining = [0, 1].map((n) => join(host, manager, `/var/lib/r${round}-${n}`, token));
      // As soon as one of them is written down, or a little before: its answer may be lost.
      if (round % 2 === 0) await manager.daemon.printed(new RegExp(`(?:a host joined[^]*){${joined + 1}}`));
      await manager.kill9();
      const first = await Promise.all(joining);
      manager = await host.startManager({ listen });
      // Both try again. Who had it, has it; who had not, gets it only where nobody has.
      const again = await Promise.all(
        first.map(async (result, n) =>
          result.code === 0 ? result : join(host, manager, `/var/lib/r${round}-${n}`, token),
        ),
      );
      t.is(again.filter((result) => result.code === 0).length, 1, JSON.stringify([first, again]));
      t.is((await host.json(['node', 'ls'])).length, before + 1);
    }
  },
);

labScenario(
  'an end of the host while it waits for approval costs nothing: it goes on where it was',
  async (t) => {
    const host = await Host.of(t);
    const manager = await host.startManager();
    const token = await host.ask([
      'token',
      'create',
      'worker',
      '--require-approval',
      '--node-label',
      'zone=a',
    ]);
    const args = ['agent', 'join', '--token', '-', '--manager', manager.address];
    const start = () => {
      const daemon = host.start(args, { talks: true });
      daemon.say(token);
      void daemon.hangUp();
      return daemon;
    };
    const first = start();
    const [, nodeId = ''] = await first.printed(
      /waiting for approval until [-0-9TZ:.]+: inro node approve (\S+)/,
    );
    await first.kill9();
    t.like(await host.json(['node', 'ls']), [{ id: nodeId, status: 'pending', labels: { zone: 'a' } }]);
    // It has no certificate: nothing but a key that nobody has signed.
    t.is((await host.sh('ls /var/lib/inro/agent')).stdout, 'joining.key\nlock\n');
    await host.ask(['node', 'approve', 'host-a']);
    const second = start();
    await second.printed(new RegExp(`as node ${nodeId}`));
    await host.startAgent();
    t.is((await host.sh('ls /var/lib/inro/agent/joining.key')).code, 2);
    t.like(await host.json(['node', 'ls']), [{ id: nodeId, status: 'ready', labels: { zone: 'a' } }]);
  },
);

labScenario(
  'tokens that are rotated, revoked and expired are refused at once; many wrong ones are not looked at',
  async (t) => {
    const host = await Host.of(t);
    const manager = await host.startManager();
    const tries = (token: string): Promise<Result> => join(host, manager, '/var/lib/x', token);
    const standing = await host.ask(['token', 'show', 'worker']);
    await host.ask(['token', 'rotate', 'worker']);
    refused(t, await tries(standing), 1, /not valid any more, or never was/);

    const short = await host.ask(['token', 'create', 'worker', '--ttl', '1s']);
    await eventually('it has expired', async () => {
      const { tokens } = await host.json<{ tokens: { expiresAt: string }[] }>(['token', 'ls']);
      return Date.parse(tokens[0]?.expiresAt ?? '') < Date.now();
    });
    refused(t, await tries(short), 1, /the join token expired at/);

    const made = await host.ask(['token', 'create', 'worker']);
    const ids = (await host.ask(['token', 'ls', '-q'])).split('\n');
    await host.ask(['token', 'revoke', ids.at(-1) as string]);
    for (let n = 0; n < 9; n++) refused(t, await tries(made), 1, /not valid any more, or never was/);
    refused(t, await tries(made), 1, /too many wrong join tokens came from 127\.0\.0\.1/);
    const { refused: count } = await host.json<{ refused: number }>(['token', 'ls']);
    t.is(count, 10);
    for (const token of [standing, short, made]) t.false(manager.daemon.stderr.includes(token.slice(-25)));
  },
);

labScenario(
  'enrolled again with its former key, a node keeps its id, its tasks and its labels; a copy of the old key is refused',
  async (t) => {
    const host = await Host.of(t);
    const { manager, agent, nodeId } = await host.startCluster();
    await host.ask(['secret', 'create', 'key', '-'], { stdin: 'first' });
    await host.ask(['service', 'create', '--name', 'web', '--secret', 'key']);
    const token = await host.ask(['token', 'show', 'worker']);
    const again = (...more: string[]): Promise<Result> =>
      join(host, manager, '/var/lib/inro/agent', token, '--json', ...more);
    refused(t, await again('--again'), 1, /another agent uses the state folder/);
    await agent.stop();
    refused(t, await again(), 1, /this host has joined a cluster already/);
    await host.sh('cp -a /var/lib/inro/agent /var/lib/copy');
    const { code, stdout, stderr } = await again('--again');
    t.is(code, 0, stderr);
    t.is((JSON.parse(stdout) as { nodeId: string }).nodeId, nodeId);
    await host.startAgent();
    await eventually('its file', async () => (await host.read('/run/inro/secrets/web/key')) === 'first');
    t.is((await host.json(['node', 'ls'])).length, 1);

    const copy = await host.startAgent({
      state: '/var/lib/copy',
      mount: '/run/copy',
      socket: '/run/copy.sock',
      connected: false,
    });
    await copy.printed(/this certificate of node [0-9a-z]{25} is refused: the node enrolled again at/);
    t.is(await host.read('/run/inro/secrets/web/key'), 'first');
    await copy.stop();

    // Without the key there is nothing to prove: another node.
    await host.sh('rm /var/lib/copy/node.key');
    const other = await join(host, manager, '/var/lib/copy', token, '--json', '--again');
    t.is(other.code, 0, other.stderr);
    t.not((JSON.parse(other.stdout) as { nodeId: string }).nodeId, nodeId);
  },
);
