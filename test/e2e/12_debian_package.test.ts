/** The Debian package on a machine with systemd: installed, used, upgraded, removed, purged. Nothing there reaches a network. */
import { buildPackage, version } from '../support/debian_package.js';
import { eventually } from '../support/inro.js';
import { labScenario } from '../support/lab.js';
import { Machine } from '../support/nspawn.js';

const newer = '99.0.0';
const file = '/run/inro/secrets/web/db_password';
const units = ['inro-manager', 'inro-agent'];
const mounts = `grep -c ' - fuse[.]inro ' /proc/1/mountinfo || true`;

labScenario(
  'the Debian package: install, use, upgrade, remove, purge',
  async (t) => {
    const machine = await Machine.boot(t);
    await buildPackage(machine.folder);
    const states = async (): Promise<string[]> =>
      Promise.all(units.map((unit) => machine.property(unit, 'ActiveState')));

    // Installed, it does nothing by itself.
    const installed = await machine.run(['dpkg', '-i', `/mnt/inro_${version}_amd64.deb`]);
    t.is(installed.code, 0, installed.stderr);
    t.regex(installed.stdout, /\ninro: for a manager, .*\ninro: for a node, .*\n$/);
    t.is(await machine.ask('inro --version'), version);
    t.is(await machine.ask('dpkg --verify inro'), '');
    t.deepEqual(await states(), ['inactive', 'inactive']);
    for (const unit of units) t.is((await machine.systemctl('is-enabled', unit)).stdout, 'disabled\n', unit);
    const verified = await machine.run([
      'systemd-analyze',
      'verify',
      ...units.map((unit) => `${unit}.service`),
    ]);
    t.deepEqual(verified, { code: 0, stdout: '', stderr: '' });

    // A manager, which is not root, and this host as its node.
    await machine.ask('systemctl enable --now inro-manager');
    await eventually('the manager is ready', async () =>
      (await machine.journal('inro-manager')).includes('manager is ready'),
    );
    t.notRegex(await machine.journal('inro-manager'), /swapped out/);
    const warnings = await machine.ask(
      'journalctl --no-pager --output=cat --unit=inro-manager --priority=warning',
    );
    t.is(warnings, '');
    const owner = `stat -c '%U %a' /var/lib/inro/manager /run/inro/manager.sock`;
    t.is(await machine.ask(owner), 'inro-manager 700\ninro-manager 600');
    const manager = Number(await machine.property('inro-manager', 'MainPID'));
    const status = await machine.ask(`cat /proc/${manager}/status`);
    t.regex(status, /^NoNewPrivs:\s1$/m);
    t.regex(status, /^CapBnd:\s0+$/m);
    t.regex(status, /^Seccomp:\s2$/m);
    await machine.ask('inro token show worker | inro agent join --token - --manager 127.0.0.1:4747');
    await machine.ask('systemctl enable --now inro-agent');
    await eventually('the agent has a session', async () =>
      (await machine.journal('inro-agent')).includes('session with the manager'),
    );

    await machine.ask('inro secret create db_password -', { stdin: 'hunter2' });
    await machine.ask('inro service create --name web --secret db_password');
    t.is(await machine.ask(`cat ${file}`), 'hunter2');
    t.is(await machine.ask(mounts), '1');
    const foreign = await machine.run(
      ['setpriv', '--reuid=inro-manager', '--regid=inro-manager'].concat(['--clear-groups', 'cat', file]),
    );
    t.regex(foreign.stderr, /Permission denied/, 'the mount is closed to the manager');
    const { protections } = JSON.parse(await machine.ask('inro agent status --json')) as {
      protections: { name: string; inForce: boolean; detail: string }[];
    };
    t.like(
      protections.find(({ name }) => name === 'locked arena'),
      { inForce: true },
    );

    // An upgrade: what ran runs again, as the new one.
    await buildPackage(machine.folder, newer);
    const pids = () => Promise.all(units.map((unit) => machine.property(unit, 'MainPID')));
    const before = await pids();
    const upgraded = await machine.run(['dpkg', '-i', `/mnt/inro_${newer}_amd64.deb`]);
    t.is(upgraded.code, 0, upgraded.stderr);
    t.notRegex(upgraded.stdout, /^inro: /m, 'who has it needs no introduction');
    t.is(await machine.ask('inro --version'), newer);
    t.deepEqual(await states(), ['active', 'active']);
    for (const [at, pid] of (await pids()).entries()) t.not(pid, before[at], units[at]);
    await eventually(
      'the secret is served again',
      async () => (await machine.sh(`cat ${file}`)).stdout === 'hunter2',
    );
    t.like(JSON.parse(await machine.ask('inro agent status --json')), { version: newer });
    await machine.ask('echo -n changed | inro secret update db_password -');
    t.is(await machine.ask(`cat ${file}`), 'changed');

    // Stopped, nothing is mounted, anywhere.
    await machine.ask('systemctl stop inro-agent');
    t.is(await machine.ask(mounts), '0');
    const managers = Number(await machine.property('inro-manager', 'MainPID'));
    t.is(await machine.ask(`grep -c fuse.inro /proc/${managers}/mountinfo || true`), '0');
    await machine.ask('systemctl start inro-agent');
    await eventually('the agent serves', async () => (await machine.ask(mounts)) === '1');

    // Removed, its state stays; purged, nothing does.
    const processes = `readlink /proc/[0-9]*/exe | grep -c /inro/ || true`;
    await eventually('nothing but the two runs', async () => (await machine.ask(processes)) === '2');
    const removed = await machine.run(['dpkg', '-r', 'inro']);
    t.is(removed.code, 0, removed.stderr);
    t.is(await machine.ask(mounts), '0');
    t.is(await machine.ask(processes), '0');
    t.is(await machine.ask('ls /var/lib/inro'), 'agent\nmanager');
    t.false((await machine.ask('ls /run')).split('\n').includes('inro'));
    t.is(await machine.ask('ls /etc/inro'), 'agent.yaml\nmanager.yaml');

    const purged = await machine.run(['dpkg', '--purge', 'inro']);
    t.is(purged.code, 0, purged.stderr);
    t.is(`${removed.stderr}${purged.stderr}`, '');
    const left = await machine.ask(
      `find / -name '*inro*' -not -path '/proc/*' -not -path '/sys/*' -not -path '/mnt/*'`,
    );
    t.is(left, '');

    // Where systemd does not run, as in an image that is being made.
    const comeAndGo = `mount -t tmpfs tmpfs /run && dpkg -i /mnt/inro_${newer}_amd64.deb && inro --version && dpkg --purge inro`;
    const without = await machine.run(['unshare', '--mount', 'sh', '-c', comeAndGo]);
    t.is(without.code, 0, without.stderr);
    t.true(without.stdout.includes(`\n${newer}\n`));
    t.is((await machine.systemctl('--failed', '--plain', '--no-legend')).stdout, '');
  },
  { timeoutMs: 20 * 60_000 },
);
