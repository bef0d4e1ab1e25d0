/** An operator on a host of his own, with nothing but his identity: what he can do from there, and what is out of his reach. */
import { readFile } from 'node:fs/promises';
import type { ExecutionContext } from 'ava';
import { Host } from '../support/host.js';
import { labScenario } from '../support/lab.js';
import { eventually, refused } from '../support/inro.js';

interface Scene {
  manager: Host;
  /** Has a network of its own, and neither socket nor state of a manager. */
  desk: Host;
  files: { admin: string; deployer: string; auditor: string };
}

labScenario('operators work from another host, each as far as his role and grants go', async (t) => {
  const { manager, desk, files } = await scene(t);
  const as = (who: keyof Scene['files']) => ({ env: { INRO_IDENTITY: files[who] } });

  // 1. The admin sets values from there: they are encrypted in his terminal.
  await desk.ask(['secret', 'create', 'web_key', '-'], { stdin: 'marker-one', ...as('admin') });
  await desk.ask(['secret', 'create', 'db', '-'], { stdin: 'marker-db', ...as('admin') });
  // 2. The deployer gives a granted one to a service, and the node serves it.
  await desk.ask(['service', 'create', '--name', 'web', '--secret', 'web_key'], as('deployer'));
  t.is(await manager.read('/run/inro/secrets/web/web_key'), 'marker-one');
  await desk.ask(['secret', 'update', 'web_key', '-'], { stdin: 'marker-two', ...as('admin') });
  t.is(await manager.read('/run/inro/secrets/web/web_key'), 'marker-two');
  // 3. He gets no other one, and sets none.
  const add = await desk.inro(['service', 'update', '--secret-add', 'db', 'web'], as('deployer'));
  refused(t, add, 1, /operator "deployer" has no grant for secret "db"\n.*ask an admin/);
  for (const args of [
    ['secret', 'create', 'web_x', '-'],
    ['secret', 'update', 'web_key', '-'],
    ['secret', 'rm', 'web_key'],
    ['secret', 'revoke', 'web_key'],
    ['token', 'show', 'worker'],
    ['node', 'ls'],
    ['ca', 'inspect'],
    ['operator', 'ls'],
  ]) {
    const result = await desk.inro(args, { stdin: 'x', ...as('deployer') });
    // What is refused again and again is refused in fewer words.
    refused(t, result, 1, /deployer, who may not call/);
  }
  // 4. The auditor looks, and that is all.
  t.is((await desk.json(['secret', 'ls'], as('auditor'))).length, 2);
  t.is((await desk.json(['node', 'ls'], as('auditor'))).length, 1);
  refused(t, await desk.inro(['service', 'rm', 'web'], as('auditor')), 1, /is an auditor/);
  refused(t, await desk.inro(['token', 'show', 'worker'], as('auditor')), 1, /is an auditor/);
  // 5. No call gives a value: nothing that any of them can print has one.
  for (const who of ['admin', 'deployer', 'auditor'] as const) {
    for (const args of [
      ['secret', 'ls'],
      ['secret', 'inspect', 'web_key'],
      ['service', 'ls'],
      ['service', 'inspect', 'web'],
      ['service', 'ps', 'web'],
    ])
      t.notRegex(await desk.ask([...args, '--json'], as(who)), /marker/);
  }

  // 6. He renews himself; the file is as closed as before.
  const before = await readFile(desk.outside('/run/deployer.pem'), 'utf8');
  await desk.ask(['operator', 'renew'], as('deployer'));
  const after = await readFile(desk.outside('/run/deployer.pem'), 'utf8');
  t.not(after, before);
  t.is((await desk.sh('stat -c %a /run/deployer.pem')).stdout, '600\n');
  await desk.ask(['service', 'ls'], as('deployer'));

  // 7. Revoked while he waits: the wait ends, and nothing is answered from then on. The service goes on.
  await desk.ask(
    ['service', 'create', '--detach', '--name', 'stuck', '--constraint', 'node.labels.no==where'],
    as('admin'),
  );
  const waiting = desk.inro(['service', 'update', '--label-add', 'a=b', 'stuck'], as('deployer'));
  await eventually('the change is stored', async () => {
    const [service] = await manager.json<{ labels: object }[]>(['service', 'inspect', 'stuck']);
    return Object.keys(service?.labels ?? {}).length === 1;
  });
  await manager.ask(['operator', 'revoke', 'deployer']);
  refused(t, await waiting, 1, /operator "deployer" is revoked since/);
  refused(t, await desk.inro(['service', 'ls'], as('deployer')), 1, /is revoked since/);
  t.is(await manager.read('/run/inro/secrets/web/web_key'), 'marker-two');
});

labScenario('an identity that is not fit is refused before, or by, the other side', async (t) => {
  const { manager, desk, files } = await scene(t);
  const ls = (env: Record<string, string>, args: string[] = []) =>
    desk.inro(['secret', 'ls', ...args], { env });

  refused(
    t,
    await ls({ INRO_MANAGER: '10.78.0.1:4747' }),
    1,
    /there is no identity file \/etc\/inro\/operator\.pem/,
  );
  await desk.sh(`cp ${files.admin} /run/open.pem; chmod 644 /run/open.pem`);
  refused(t, await ls({ INRO_IDENTITY: '/run/open.pem' }), 1, /is open to other users[^]*chmod 600/);
  refused(
    t,
    await ls({}, ['--identity', files.admin, '--manager', 'unix:/run/x']),
    2,
    /asks for no identity/,
  );
  refused(t, await ls({ INRO_IDENTITY: files.admin }, ['--manager', 'nowhere']), 2, /is not understood/);
  refused(t, await ls({ INRO_IDENTITY: files.admin }, ['--manager', '10.78.0.1:1']), 1, /does not answer/);
  refused(t, await ls({ INRO_MANAGER: 'unix:/run/none.sock' }), 1, /no manager at/);

  // A node's own certificate is none of an operator.
  const mixed = await manager.sh(
    `cat /var/lib/inro/agent/node.key /var/lib/inro/agent/node.crt /var/lib/inro/agent/ca.crt`,
  );
  await desk.sh('umask 077; cat > /run/node.pem', { stdin: mixed.stdout });
  refused(t, await ls({ INRO_IDENTITY: '/run/node.pem', INRO_MANAGER: '10.78.0.1:4747' }), 1, /for a worker/);

  // A manager of another cluster at that address: he is not told who asks, nor given a value.
  await desk.startManager({ listen: '127.0.0.1:4748' });
  const foreign = ['--identity', files.admin, '--manager', '127.0.0.1:4748'];
  const told = await desk.inro(['secret', 'create', ...foreign, 'x', '-'], { stdin: 'v' });
  refused(t, told, 1, /127\.0\.0\.1:4748 does not prove that it is a manager of cluster [0-9a-z]{25}/);

  // Of several managers the first that answers is asked; one that does not, keeps nobody waiting.
  await desk.sh(
    `umask 077; sed 's/^manager: .*/manager: 10.78.0.1:1\\n&\\nmanager: 127.0.0.1:4748/' ${files.admin} > /run/more.pem`,
  );
  const more = await ls({ INRO_IDENTITY: '/run/more.pem' });
  t.is(more.code, 0, more.stderr);

  // The key stays on the desk, if one likes.
  const made = await desk.sh(
    'inro operator request --out /run/own.key > /run/own.csr && stat -c %a /run/own.key',
  );
  t.is(made.stdout, '600\n');
  const { stdout: csr } = await desk.sh('cat /run/own.csr');
  const create = [
    'operator',
    'create',
    'own',
    '--role',
    'auditor',
    '--csr',
    '-',
    '--address',
    '10.78.0.1:4747',
  ];
  await manager.ask([...create, '--out', '/run/own.pem'], { stdin: csr });
  const { stdout: pem } = await manager.sh('cat /run/own.pem');
  t.notRegex(pem, /PRIVATE/);
  await desk.sh('umask 077; cat - /run/own.key > /run/own.pem', { stdin: pem });
  t.is((await ls({ INRO_IDENTITY: '/run/own.pem' })).code, 0);
});

async function scene(t: ExecutionContext): Promise<Scene> {
  const manager = await Host.of(t, { hostname: 'manager', ownNetwork: true });
  const desk = await Host.of(t, { hostname: 'desk', ownNetwork: true });
  await must(manager, `ip link add to-desk type veth peer name eth0 netns ${desk.pid}`);
  await must(manager, 'ip address add 10.78.0.1/24 dev to-desk && ip link set to-desk up');
  await must(desk, 'ip address add 10.78.0.2/24 dev eth0 && ip link set eth0 up');
  await manager.startCluster({ listen: '0.0.0.0:4747' });
  const bring = async (name: string, args: string[]): Promise<string> => {
    const path = `/run/${name}.pem`;
    const create = ['operator', 'create', name, '--role', name, '--address', '10.78.0.1:4747', '--out', path];
    await manager.ask([...create, ...args]);
    const { stdout } = await manager.sh(`stat -c %a ${path} >&2; cat ${path}`);
    await desk.sh(`umask 077; cat > ${path}`, { stdin: stdout });
    return path;
  };
  const files = {
    admin: await bring('admin', []),
    deployer: await bring('deployer', ['--grant', 'web_*']),
    auditor: await bring('auditor', ['--ttl', '1d']),
  };
  return { manager, desk, files };
}

async function must(host: Host, line: string): Promise<void> {
  const { code, stderr } = await host.sh(line);
  if (code !== 0) throw new Error(`${line}: ${stderr}`);
}
