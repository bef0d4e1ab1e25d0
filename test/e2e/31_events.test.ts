/** Following what happens, and who did it, from a terminal: over a restart of the manager. */
import { Host, scenario } from '../support/host.js';
import { eventually, refused } from '../support/inro.js';

scenario('1: events and audit go on over a restart of the manager, and the audit is whole', async (t) => {
  const host = await Host.of(t, { ownNetwork: true });
  const { manager, agent } = await host.startCluster();
  const events = host.start(['events', '--json', '--filter', 'type=secret']);
  const audit = host.start(['audit', '--follow', '--json']);
  const actions = (text: string): string[] =>
    text
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as { action: string; name?: string; object?: string })
      .map(({ action, name, object }) => `${action} ${name ?? object ?? ''}`);
  // The first call tells from where on.
  await eventually('both follow', async () => /"join"/.test(audit.stdout));
  await new Promise((resolve) => setTimeout(resolve, 500));
  await host.ask(['secret', 'create', 'one', '-'], { stdin: 'x' });
  await eventually('it is told', async () => actions(events.stdout).includes('create one'));
  await eventually('it is audited', async () => actions(audit.stdout).includes('createSecret one'));

  const noted = await host.json<{ last: number; digest: string }>(['audit', '--verify']);
  await manager.kill9();
  await host.startManager({ listen: manager.address });
  await host.ask(['secret', 'create', 'two', '-'], { stdin: 'x' });
  await eventually('it is told, too', async () => actions(events.stdout).includes('create two'));
  t.deepEqual(actions(events.stdout), ['create one', 'create two']);
  t.deepEqual(
    (await host.json<{ action: string }[]>(['audit'])).map(({ action }) => action),
    ['getJoinToken', 'join', 'createSecret', 'createSecret'],
  );
  const known = `${noted.last}:${noted.digest}`;
  t.regex(await host.ask(['audit', '--verify', '--known', known]), /^lines 1 to 4 are whole\nnote the end/);
  const other = `${noted.last}:${'0'.repeat(64)}`;
  refused(t, await host.inro(['audit', '--verify', '--known', other]), 1, /not the one that was noted/);
  await agent.stop();
});
