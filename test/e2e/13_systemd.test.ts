/** Life as a service of systemd, from the Debian package: what readers notice of it (nothing), and where it ends. */
import { copyFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { buildPackage } from '../support/debian_package.js';
import { eventually } from '../support/inro.js';
import { labScenario } from '../support/lab.js';
import { Machine } from '../support/nspawn.js';
import { allRead, readSteadily } from '../support/steady_reader.js';

const unit = 'inro-agent';
const file = '/run/inro/secrets/web/key';
const mounts = `grep -c ' - fuse[.]inro ' /proc/1/mountinfo || true`;

async function serving(t: ExecutionContext): Promise<Machine> {
  const machine = await Machine.boot(t);
  await machine.ask(`dpkg -i /mnt/${await buildPackage(machine.folder)}`);
  await machine.ask('systemctl enable --now inro-manager');
  // The token comes to the agent as a credential of its unit.
  await machine.ask('umask 077 && inro token show worker > /etc/inro/join-token');
  await machine.ask(`printf 'managers:\\n  - 127.0.0.1:4747\\n' >> /etc/inro/agent.yaml`);
  await machine.ask(`systemctl enable --now ${unit}`);
  t.regex(await machine.journal(unit), /joined by the credential inro.join-token/);
  await connected(machine);
  await machine.ask('inro secret create key -', { stdin: 'hunter2' });
  await machine.ask('inro service create --name web --secret key');
  t.is(await machine.ask(`cat ${file}`), 'hunter2');
  const published = 'journalctl --no-pager --output=cat INRO_SERVICE=web INRO_PART=agent';
  t.regex(await machine.ask(published), /^generation published \(files=1\)$/);
  return machine;
}

async function connected(machine: Machine): Promise<void> {
  await eventually('the agent has a session', async () => {
    const { stdout } = await machine.run(['inro', 'agent', 'status', '--json']);
    return stdout.includes('"state": "connected"');
  });
}

/** Of the process that runs now, once it says that it is ready. */
async function readyOtherThan(machine: Machine, before: string): Promise<string> {
  return eventually('the next process is ready', async () => {
    const pid = await machine.property(unit, 'MainPID');
    return pid !== '0' && pid !== before && (await machine.property(unit, 'ActiveState')) === 'active' && pid;
  });
}

/** As a container sees it: the service's directory in mounts and processes of its own. */
async function container(machine: Machine): Promise<string[]> {
  const line =
    'mkdir -p /run/bound && mount --bind /run/inro/secrets/web /run/bound && echo bound && exec sleep infinity';
  const holder = machine.spawn([
    'unshare',
    '--mount',
    '--pid',
    '--fork',
    '--propagation',
    'private',
    'sh',
    '-c',
    line,
  ]);
  await holder.printed(/bound/);
  const pid = await machine.ask(
    `pgrep -x sleep 2>/dev/null || grep -l '^sleep' /proc/[0-9]*/comm | tail -1 | cut -d/ -f3`,
  );
  return ['nsenter', '--target', pid, '--mount'];
}

labScenario(
  'systemd: kills, a hanging agent, restarts and an upgrade under readers, of whom none notices',
  async (t) => {
    const machine = await serving(t);
    const main = () => machine.property(unit, 'MainPID');
    t.is(await machine.property(unit, 'NFileDescriptorStore'), '3');
    const status = await machine.ask(`cat /proc/${await main()}/status`);
    t.regex(status, /^Cap(Eff|Bnd):\s0+$/m);
    t.regex(status, /^NoNewPrivs:\s1$/m);
    t.regex(status, /^Seccomp:\s2$/m);
    const { protections } = JSON.parse(await machine.ask('inro agent status --json')) as {
      protections: { name: string; inForce: boolean; detail: string }[];
    };
    t.deepEqual(
      protections.filter(({ inForce }) => !inForce).map(({ name }) => name),
      [],
    );
    await eventually('its status says how it is', async () =>
      /^1 tasks, 1 values, connected to 127\.0\.0\.1:4747$/.test(await machine.property(unit, 'StatusText')),
    );

    const inside = await container(machine);
    const readers = await readSteadily(machine, file, ['hunter2']);
    const bound = await readSteadily(machine, '/run/bound/key', ['hunter2'], inside);
    const under = async (what: string, act: () => Promise<unknown>): Promise<void> => {
      const before = await main();
      await act();
      await readyOtherThan(machine, before);
      t.log(`${what}: ${before} -> ${await main()}`);
    };
    for (let n = 0; n < 5; n++)
      await under('killed', () => machine.ask(`systemctl kill --kill-who=main --signal=KILL ${unit}`));
    await under('restarted', () => machine.ask(`systemctl restart ${unit}`));
    await machine.ask('systemctl stop inro-manager');
    await under('killed, with no manager', () =>
      machine.ask(`systemctl kill --kill-who=main --signal=KILL ${unit}`),
    );
    await machine.ask('systemctl start inro-manager');

    // It hangs as a whole: neither its event loop nor its threads turn.
    await machine.ask(`mkdir -p /run/systemd/system/${unit}.service.d`);
    await machine.ask(
      `printf '[Service]\\nWatchdogSec=2s\\n' > /run/systemd/system/${unit}.service.d/test.conf && systemctl daemon-reload`,
    );
    await machine.ask(`systemctl reset-failed ${unit}`);
    await under('restarted', () => machine.ask(`systemctl restart ${unit}`));
    await under('hung', async () => machine.ask(`kill -STOP ${await main()}`));
    t.regex(await machine.journal(unit), /[Ww]atchdog timeout/);
    await machine.ask(`rm /run/systemd/system/${unit}.service.d/test.conf && systemctl daemon-reload`);

    await machine.ask(`systemctl reset-failed ${unit}`);
    const newer = await buildPackage(machine.folder, '99.0.0');
    await under('upgraded', () => machine.ask(`dpkg -i /mnt/${newer}`));
    t.is(await machine.ask('inro --version'), '99.0.0');
    allRead(t, await readers(), 'the mount');
    allRead(t, await bound(), 'a bind mount elsewhere');
    t.like(JSON.parse(await machine.ask('inro agent status --json')), { version: '99.0.0' });

    await connected(machine);
    await machine.ask('inro secret update key -', { stdin: 'hunter3' });
    t.is(await machine.ask(`cat ${file}`), 'hunter3');
    t.is((await machine.run([...inside, 'cat', '/run/bound/key'])).stdout, 'hunter3');

    // Settings are read again.
    await machine.ask(`echo 'logLevel: debug' >> /etc/inro/agent.yaml && systemctl reload ${unit}`);
    await eventually('it says what it has changed', async () =>
      (await machine.journal(unit)).includes('logLevel'),
    );
  },
  { timeoutMs: 20 * 60_000 },
);

labScenario(
  'systemd: where it ends: the start limit, a stop, a boot',
  async (t) => {
    const machine = await serving(t);
    // Killed again and again, faster than it may be started.
    const held = machine.spawn(['sh', '-c', `exec 3< ${file}; echo open; sleep 30; cat <&3; echo code $?`]);
    await held.printed(/open/);
    await eventually('systemd gives up', async () => {
      await machine.sh(`systemctl kill --kill-who=main --signal=KILL ${unit}`);
      return (await machine.property(unit, 'ActiveState')) === 'failed';
    });
    t.regex(await machine.property(unit, 'Result'), /signal|start-limit-hit/);
    const reader = await machine.run(['cat', file], { timeoutMs: 20_000 });
    t.regex(reader.stderr, /not connected/);
    t.is(await machine.property(unit, 'NFileDescriptorStore'), '0');

    // The administrator starts it, as the message says.
    await machine.ask(`systemctl reset-failed ${unit} && systemctl start ${unit}`);
    await connected(machine);
    await eventually(
      'it is served again',
      async () => (await machine.sh(`cat ${file}`)).stdout === 'hunter2',
    );
    t.is(await machine.ask(mounts), '1');

    await machine.ask(`systemctl stop ${unit}`);
    t.is(await machine.ask(mounts), '0');
    t.is(await machine.property(unit, 'NFileDescriptorStore'), '0');
    t.is(await machine.property(unit, 'Result'), 'success');
    t.regex(await machine.journal(unit), /stopped: wiped and unmounted/);
    t.deepEqual((await machine.ask('ls /run/inro')).split('\n'), ['manager.sock', 'secrets']);
    t.is(await machine.ask('ls -A /run/inro/secrets'), '');

    // One that hangs (here: stopped, and deaf to what systemd sends) is killed. Its mount is not left behind, and readers get an end.
    const dropIn = `/run/systemd/system/${unit}.service.d`;
    const hanging = '[Service]\\nTimeoutStopSec=3s\\nKillSignal=SIGWINCH\\n';
    await machine.ask(
      `mkdir -p ${dropIn} && printf '${hanging}' > ${dropIn}/test.conf && systemctl daemon-reload`,
    );
    await machine.ask(`systemctl start ${unit}`);
    await connected(machine);
    const last = machine.spawn(['sh', '-c', `while cat ${file}; do sleep 0.1; done; echo ended`]);
    await last.printed(/hunter2/);
    await machine.ask(`kill -STOP ${await machine.property(unit, 'MainPID')}`);
    await machine.ask(`systemctl stop ${unit}`);
    t.is(await machine.property(unit, 'Result'), 'timeout');
    t.regex(await machine.journal(unit), /code=killed, status=9\/KILL/);
    t.is(await machine.ask(mounts), '0');
    t.is(await machine.property(unit, 'NFileDescriptorStore'), '0');
    await last.printed(/ended/);
    await machine.ask(`rm ${dropIn}/test.conf && systemctl daemon-reload && systemctl reset-failed ${unit}`);

    // The doctor, in the host that the package made.
    await machine.ask(`systemctl start ${unit}`);
    await connected(machine);
    const checks = JSON.parse(await machine.ask('inro doctor --json')) as Record<string, string>[];
    for (const { name, state, detail } of checks) t.log(`${name}: ${state}, ${detail}`);
    t.deepEqual(
      checks.filter(({ state }) => state === 'fail'),
      [],
    );

    // Another boot: the identity is there, nothing else is.
    await machine.ask(`systemctl start ${unit}`);
    await machine.ask('tar -C / -cf /mnt/state.tar var/lib/inro etc/inro');
    const next = await Machine.boot(t);
    copyFileSync(join(machine.folder, 'state.tar'), join(next.folder, 'state.tar'));
    await machine.stop();
    await buildPackage(next.folder);
    await next.ask(
      'dpkg -i /mnt/inro_*.deb && tar -C / -xf /mnt/state.tar && chown -R inro-manager: /var/lib/inro/manager',
    );
    await next.ask('rm /etc/inro/join-token && systemctl start inro-manager inro-agent');
    await connected(next);
    await eventually('it is served', async () => (await next.sh(`cat ${file}`)).stdout === 'hunter2');
  },
  { timeoutMs: 20 * 60_000 },
);
