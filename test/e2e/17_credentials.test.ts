/** LoadCredential= of units in a booted systemd, from the Debian package: who starts, with what, and who does not. */
import type { ExecutionContext } from 'ava';
import { buildPackage } from '../support/debian_package.js';
import { eventually } from '../support/inro.js';
import { labScenario } from '../support/lab.js';
import { Machine } from '../support/nspawn.js';

const socket = '/run/inro/credentials.sock';

interface Access {
  outcome: string;
  secret: string;
  version: number;
  workload: string;
  processName: string;
  cgroup: string;
}

interface Status {
  session: { state: string };
  tasks: { service: string; attached: { kind: string; name: string; cgroup: string }[] }[];
}

async function machineWithAgent(t: ExecutionContext): Promise<Machine> {
  const machine = await Machine.boot(t);
  await machine.ask(`dpkg -i /mnt/${await buildPackage(machine.folder)}`);
  await machine.ask('systemctl enable --now inro-manager');
  await machine.ask('umask 077 && inro token show worker > /etc/inro/join-token');
  await machine.ask(`printf 'managers:\\n  - 127.0.0.1:4747\\n' >> /etc/inro/agent.yaml`);
  await machine.ask('systemctl enable --now inro-agent');
  await eventually(
    'the agent has a session',
    async () => (await status(machine)).session.state === 'connected',
  );
  return machine;
}

const json = async <T>(machine: Machine, args: string) =>
  JSON.parse(await machine.ask(`inro ${args} --json`)) as T;
const status = (machine: Machine) => json<Status>(machine, 'agent status');

async function attached(machine: Machine): Promise<string[]> {
  const { tasks } = await status(machine);
  return tasks.flatMap((task) => task.attached.map(({ kind, name, cgroup }) => `${kind} ${name} ${cgroup}`));
}

/** A unit that copies what it was given to /run/got/UNIT, and runs on. */
async function makeUnit(
  machine: Machine,
  name: string,
  credentials: readonly string[],
  more = '',
): Promise<void> {
  const load = credentials.map((id) => `LoadCredential=${id}:${socket}`).join('\n');
  const copy = 'mkdir -p /run/got/%n && cp "$CREDENTIALS_DIRECTORY"/* /run/got/%n/ && exec sleep infinity';
  const text = `[Service]\n${load}\nExecStart=/bin/sh -c '${copy}'\n${more}\n`;
  await machine.ask(`cat > /etc/systemd/system/${name} && systemctl daemon-reload`, { stdin: text });
}

async function got(machine: Machine, unit: string, id: string): Promise<string> {
  await eventually(
    `${unit} has copied ${id}`,
    async () => (await machine.sh(`test -s /run/got/${unit}/${id}`)).code === 0,
  );
  return machine.ask(`cat /run/got/${unit}/${id}`);
}

/** How a unit ended that does not get what it asks for. */
async function failsToStart(t: ExecutionContext, machine: Machine, unit: string): Promise<void> {
  await machine.ask('rm -rf /run/got');
  await machine.systemctl('reset-failed', unit);
  await machine.systemctl('start', unit);
  await eventually(
    `${unit} has failed`,
    async () => (await machine.property(unit, 'ActiveState')) === 'failed',
  );
  t.is(await machine.property(unit, 'ExecMainStatus'), '243', unit);
  t.regex((await machine.systemctl('status', unit)).stdout, /243\/CREDENTIALS/);
  t.is((await machine.sh('ls /run/got')).code, 2, 'its program has not run');
}

labScenario(
  'credentials: a unit gets those of its service, others do not start',
  async (t) => {
    const machine = await machineWithAgent(t);
    t.log((await machine.ask('systemctl --version')).split('\n')[0]);
    await machine.ask('inro secret create key -', { stdin: 'hunter2' });
    await machine.ask('inro service create --name web --unit web --secret source=key,target=db --secret key');
    await makeUnit(machine, 'web.service', ['db', 'key']);
    await machine.ask('systemctl start web');
    t.is(await got(machine, 'web.service', 'db'), 'hunter2');
    t.is(await got(machine, 'web.service', 'key'), 'hunter2');
    t.deepEqual(await attached(machine), ['unit web.service /system.slice/web.service'], 'once for both');

    // Nobody else, by no name.
    await makeUnit(machine, 'other.service', ['db']);
    await failsToStart(t, machine, 'other.service');
    await makeUnit(machine, 'alias.service', ['db'], '[Install]\nAlias=web2.service');
    await failsToStart(t, machine, 'alias.service');
    await machine.ask('systemctl stop web');
    await eventually('it is detached', async () => (await attached(machine)).length === 0);
    await makeUnit(machine, 'web.service', ['db', 'nothing']);
    await failsToStart(t, machine, 'web.service');
    await eventually('it is detached', async () => (await attached(machine)).length === 0);
    const journal = await machine.journal('inro-agent');
    t.regex(journal, /credential refused: the unit does not start/);

    // A value as large as can be: names and values of a unit are 1 MiB together for systemd.
    const room = 2 ** 20 - 'large'.length;
    await machine.ask('inro secret create large -', { stdin: Buffer.alloc(room, 'x') });
    await machine.ask('inro service create --name big --unit big --secret large');
    await makeUnit(machine, 'big.service', ['large']);
    await machine.ask('systemctl start big');
    t.is((await got(machine, 'big.service', 'large')).length, room);
    await machine.ask('systemctl stop big');
    await machine.ask('inro secret update large -', { stdin: Buffer.alloc(room + 1, 'x') });
    await failsToStart(t, machine, 'big.service');

    const seen = await json<Access[]>(machine, 'agent audit');
    const lines = new Set(
      seen.map(({ outcome, secret, version, workload }) => `${outcome} ${secret}@${version} ${workload}`),
    );
    for (const line of [
      'opened key@1 unit web.service',
      'not bound @0 unit other.service',
      'no such target @0 unit web.service',
      'opened large@1 unit big.service',
    ])
      t.true(lines.has(line), line);
    t.true(seen.every(({ cgroup }) => cgroup.startsWith('/system.slice/')));

    // What systemd has copied, a rotation does not reach: the unit is started anew, or its main process is told.
    for (const [name, action] of [
      ['anew', 'restart'],
      ['told', 'signal=HUP'],
    ] as const) {
      await machine.ask(
        `inro service create --name ${name} --unit ${name} --secret key --on-change ${action}`,
      );
      await makeUnit(machine, `${name}.service`, ['key']);
      await machine.ask(`systemctl start ${name}`);
      t.is(await got(machine, `${name}.service`, 'key'), 'hunter2');
    }
    await machine.ask('inro secret update key -', { stdin: 'hunter3' });
    const copied = () => machine.ask('cat /run/got/anew.service/key');
    await eventually('one has been started anew', async () => (await copied()) === 'hunter3');
    t.is(await machine.property('anew', 'ActiveState'), 'active');
    await eventually(
      'the other one has been ended by the signal',
      async () => (await machine.property('told', 'ActiveState')) === 'inactive',
    );
    for (const name of ['anew', 'told'])
      await eventually(`${name}: it is said`, async () => {
        const [task] = await json<{ change: { error: string } | null }[]>(machine, `service ps ${name}`);
        return task?.change?.error === '';
      });

    // A command of `inro exec` that has become another user is out of the sandboxed agent's reach, until it is let.
    await machine.ask('inro service create --name cmd --secret key --on-change signal=HUP');
    const command = `trap 'echo told > /run/told/it' HUP; while :; do sleep 0.1; done`;
    await machine.ask('mkdir -m 777 /run/told && cat > /run/told.sh', { stdin: command });
    await machine.ask(
      'systemd-run --unit=cmd inro exec cmd -- setpriv --reuid=65534 --regid=65534 --clear-groups sh /run/told.sh',
    );
    const changeOf = async () =>
      (await json<{ change: { error: string } | null }[]>(machine, 'service ps cmd'))[0]?.change;
    await eventually('it is attached', async () =>
      (await attached(machine)).some((line) => line.startsWith('exec setpriv')),
    );
    await machine.ask('inro secret update key -', { stdin: 'hunter4' });
    await eventually('it is said', async () => /EPERM/.test((await changeOf())?.error ?? ''));
    await machine.ask('mkdir -p /run/systemd/system/inro-agent.service.d');
    await machine.ask('cat > /run/systemd/system/inro-agent.service.d/kill.conf && systemctl daemon-reload', {
      stdin: '[Service]\nCapabilityBoundingSet=CAP_KILL\n',
    });
    await machine.ask('systemctl restart inro-agent');
    await eventually(
      'the agent has a session',
      async () => (await status(machine)).session.state === 'connected',
    );
    await machine.ask('inro secret update key -', { stdin: 'hunter5' });
    await eventually('it has been told', async () => (await machine.ask('ls /run/told')) === 'it');
    await eventually('it is said', async () => (await changeOf())?.error === '');
  },
  { timeoutMs: 10 * 60_000 },
);

labScenario(
  'credentials: rotation, no manager, a killed agent, a revoke, a template, a boot',
  async (t) => {
    const machine = await machineWithAgent(t);
    await machine.ask('inro secret create key -', { stdin: 'hunter2' });
    await machine.ask('inro service create --name app --unit app@ --secret key');
    await makeUnit(machine, 'app@.service', ['key']);
    const restart = async (unit: string) => {
      await machine.ask('rm -rf /run/got');
      await machine.ask(`systemctl restart ${unit}`);
      return got(machine, unit, 'key');
    };
    t.is(await restart('app@1.service'), 'hunter2');
    t.is(await restart('app@2.service'), 'hunter2');
    t.is((await attached(machine)).length, 2);
    await machine.ask('inro secret update key -', { stdin: 'hunter3' });
    t.is(await restart('app@1.service'), 'hunter3', 'a new version with the next start');

    await machine.ask('systemctl stop inro-manager');
    t.is(await restart('app@1.service'), 'hunter3', 'no manager');
    t.is(await machine.property('inro-agent', 'NFileDescriptorStore'), '3');
    // Started while no agent runs: it waits for the next one.
    await machine.ask('mkdir -p /run/systemd/system/inro-agent.service.d');
    await machine.ask(
      `printf '[Service]\\nRestartSec=2s\\n' > /run/systemd/system/inro-agent.service.d/test.conf && systemctl daemon-reload`,
    );
    await machine.ask('systemctl kill --kill-who=main --signal=KILL inro-agent');
    await eventually(
      'the agent is away',
      async () => (await machine.property('inro-agent', 'MainPID')) === '0',
    );
    t.is(await restart('app@1.service'), 'hunter3', 'no agent for a while');
    await machine.ask('rm -r /run/systemd/system/inro-agent.service.d && systemctl daemon-reload');
    t.is(await machine.property('inro-agent', 'NFileDescriptorStore'), '3');

    await machine.ask('systemctl start inro-manager');
    await eventually(
      'the agent has a session',
      async () => (await status(machine)).session.state === 'connected',
    );
    await machine.ask('inro secret revoke key');
    await machine.ask('systemctl stop app@1.service app@2.service');
    await failsToStart(t, machine, 'app@1.service');
    await machine.ask('inro secret update key -', { stdin: 'hunter4' });
    t.is(await restart('app@1.service'), 'hunter4');

    // After the agent's end there is no socket: a unit does not start either.
    await machine.ask('systemctl stop inro-agent app@1.service');
    await failsToStart(t, machine, 'app@1.service');
    // As at a boot: both start at once, the unit after the agent; it waits for what a manager says.
    await makeUnit(
      machine,
      'late.service',
      ['key'],
      '[Unit]\nAfter=inro-agent.service\nWants=inro-agent.service',
    );
    await machine.ask('inro service update --unit late app --detach');
    await machine.ask('systemctl stop inro-manager; rm -rf /run/got; systemctl reset-failed');
    await machine.ask('systemctl start late.service');
    await machine.ask('systemctl start inro-manager');
    t.is(await got(machine, 'late.service', 'key'), 'hunter4');
  },
  { timeoutMs: 10 * 60_000 },
);
