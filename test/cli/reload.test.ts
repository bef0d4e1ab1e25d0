/** SIGHUP at a running agent and manager: what is logged, what changes, and that they run on. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Host, scenario } from '../support/host.js';
import { eventually, type Daemon } from '../support/inro.js';

const hangup = (daemon: Daemon): boolean => process.kill(daemon.pid, 'SIGHUP');

scenario('an agent goes to other managers, and keeps what it has when its file is broken', async (t) => {
  const host = await Host.of(t);
  const { manager, agent: first } = await host.startCluster();
  await first.stop();
  const file = join(host.folder, 'agent.yaml');
  const away = '127.0.0.1:9';
  await writeFile(file, `managers: ["${away}"]\n`);
  const agent = host.start(['agent', 'run', '--config', file]);
  await agent.printed(/"manager":"127\.0\.0\.1:9".*no session with the manager/);

  await writeFile(file, `managers: ["${manager.address}"]\nmount: /run/elsewhere\n`);
  hangup(agent);
  await agent.printed(/"changed":\{"managers":\["127[^"]*"\]\},"msg":"the settings have changed"/);
  await agent.printed(/"keys":\["mount"\],"msg":"these settings have changed, and need a restart"/);
  await agent.printed(/"session with the manager"/);

  await writeFile(file, 'managers: [nowhere]\n');
  hangup(agent);
  await agent.printed(/"code":"bad_config".*"the settings stay as they are: the new ones cannot be used"/);
  t.is((await host.inro(['agent', 'health'])).stdout, 'healthy\n');

  await writeFile(file, `managers: ["${away}"]\nlogLevel: debug\n`);
  hangup(agent);
  await agent.printed(/"logLevel":"debug"/);
  await eventually('it has left the manager', async () => {
    const { session } = await host.json<{ session: { manager: string } }>(['agent', 'status']);
    return session.manager === away;
  });
  const health = await host.inro(['agent', 'health']);
  t.like(health, { code: 0, stdout: 'degraded\n' });
  t.regex(health.stderr, /^inro: no session with a manager, the lease holds for 14[0-9]+ min more: /);
  t.is(await agent.stop(), 0);
});

scenario('a manager takes its settings from its file, and another log level at once', async (t) => {
  const host = await Host.of(t);
  const file = join(host.folder, 'manager.yaml');
  await writeFile(file, 'state: /var/lib/inro/manager\nlisten: 127.0.0.1:0\nlogLevel: error\n');
  const manager = host.start(['manager', 'run', '--config', file]);
  await eventually('it answers', async () => (await host.inro(['node', 'ls'])).code === 0);
  t.is(manager.stderr, '');
  await writeFile(file, 'state: /var/lib/inro/other\nlisten: 127.0.0.1:0\nlogLevel: info\n');
  hangup(manager);
  await manager.printed(/"changed":\{"logLevel":"info"\}/);
  await manager.printed(/"keys":\["state"\]/);
  t.is((await host.inro(['node', 'ls'])).code, 0);
  t.is(await manager.stop(), 0);
});
