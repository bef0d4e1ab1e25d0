/** Two hosts with one identity: one is served, operators hear of the other, and a host that came back is not locked out. */
import { Host } from '../support/host.js';
import { labScenario } from '../support/lab.js';
import { eventually } from '../support/inro.js';

interface Node {
  id: string;
  status: string;
  alarm: { kind: string; count: number; otherHostname: string } | null;
}

const copy = ['--socket', '/run/copy.sock'];
const file = '/run/inro/secrets/web/key';

labScenario('a copied state folder: the copy is held back until the first is gone', async (t) => {
  const host = await Host.of(t);
  const { agent } = await host.startCluster();
  await host.ask(['secret', 'create', 'key', '-'], { stdin: 'hunter2' });
  await host.ask(['service', 'create', '--name', 'web', '--secret', 'key']);
  t.is(await host.read(file), 'hunter2');
  await host.sh('cp -a /var/lib/inro/agent /var/lib/copy && rm -f /var/lib/copy/lock*');
  const node = async (): Promise<Node> => (await host.json<Node[]>(['node', 'ls']))[0] as Node;
  const start = () =>
    host.start(['agent', 'run', '--state', '/var/lib/copy', '--mount', '/run/copy', ...copy]);

  const second = start();
  await second.printed(/two hosts use one identity/);
  t.like(await node(), { status: 'ready', alarm: { kind: 'two hosts', count: 1 } });
  t.regex(await host.ask(['node', 'ls']), /ready, used twice/);
  t.regex(
    await host.ask(['node', 'inspect', (await node()).id]),
    /Alarm: +its identity is used by two hosts/,
  );
  t.regex(await host.ask(['agent', 'status', ...copy]), /two hosts use one identity/);
  t.is((await host.sh('ls /run/copy')).stdout, '', 'it has been given nothing');
  await host.ask(['secret', 'update', 'key', '-'], { stdin: 'hunter3' });
  t.is(await host.read(file), 'hunter3');

  // The first dies; what comes next is let in, whichever it is.
  await agent.kill9();
  await eventually('the copy is the node', async () => (await host.read('/run/copy/web/key')) === 'hunter3');
  await host.start(['agent', 'run']).printed(/two hosts use one identity/);
  t.like(await node(), { status: 'ready', alarm: { kind: 'two hosts' } });
  await second.stop();
  await eventually('the first is the node again', async () => (await host.read(file)) === 'hunter3');

  // The operator decides: the copy joins as a node of its own.
  await host.ask(['node', 'clear-alarm', (await node()).id]);
  await host.sh('rm -rf /var/lib/copy');
  const { managers } = JSON.parse((await host.sh('cat /var/lib/inro/agent/agent.json')).stdout) as {
    managers: string[];
  };
  const token = await host.ask(['token', 'show', 'worker']);
  await host.ask(
    ['agent', 'join', '--state', '/var/lib/copy', '--manager', managers[0] ?? '', '--token', '-'],
    {
      stdin: token,
    },
  );
  const third = start();
  await third.printed(/session with the manager/);
  const nodes = await host.json<Node[]>(['node', 'ls']);
  t.deepEqual(
    nodes.map(({ status, alarm }) => [status, alarm]),
    [
      ['ready', null],
      ['ready', null],
    ],
  );
});
