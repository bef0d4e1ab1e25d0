/**
 * The mount outlives the agent: killed at any moment, upgraded, restarted, under readers who must not notice; and there is
 * always an end where nobody goes on.
 */
import type { ExecutionContext } from 'ava';
import { Host, scenario, type Manager } from '../support/host.js';
import { labScenario } from '../support/lab.js';
import { eventually, pause, refused, run } from '../support/inro.js';
import { KeptAgent } from '../support/kept_agent.js';
import { KernelCalls } from '../support/kernel_calls.js';
import { allRead, readSteadily } from '../support/steady_reader.js';

const kills = process.env['INRO_TEST_LAB'] === '1' ? 100 : 15;
const file = '/run/inro/secrets/web/key';

interface Status {
  pid: number;
  session: { state: string; revision: number };
  arena: { values: number; sizeBytes: number };
  receipts: { pending: number };
  tasks: { id: string; state: string; generation: number; files: { target: string; version: number }[] }[];
  protections: { name: string; inForce: boolean; detail: string }[];
}

async function keptHost(
  t: ExecutionContext,
): Promise<{ host: Host; manager: Manager; agent: KeptAgent; status: () => Promise<Status> }> {
  const host = await Host.of(t);
  const manager = await host.startManager();
  await host.join(await host.ask(['token', 'show', 'worker']), manager.address);
  const agent = await KeptAgent.start(host);
  return { host, manager, agent, status: () => host.json<Status>(['agent', 'status']) };
}

async function give(host: Host, service: string, name: string, value: string): Promise<void> {
  await host.ask(['secret', 'create', name, '-'], { stdin: value });
  await host.ask(['service', 'create', '--name', service, '--secret', name]);
}

const connected = async (status: () => Promise<Status>) =>
  eventually('a session with the manager', async () => (await status()).session.state === 'connected');

/** A container's view: the service's directory bound into mounts of its own. */
async function bound(host: Host): Promise<string[]> {
  const line =
    'mkdir -p /run/bound && mount --bind /run/inro/secrets/web /run/bound && echo bound && exec sleep infinity';
  const holder = host.spawn(['unshare', '-m', '--propagation', 'private', 'sh', '-c', line]);
  await holder.printed(/bound/);
  return ['nsenter', '-t', String(holder.pid), '-m'];
}

scenario(
  `1: ${kills} times SIGKILL under readers, with the manager down: no read fails, in a bind mount neither`,
  async (t) => {
    const { host, manager, agent, status } = await keptHost(t);
    await give(host, 'web', 'key', 'hunter2');
    await give(host, 'db', 'other', 'of another service');
    t.deepEqual(agent.kept, ['inro-arena', 'inro-credentials', 'inro-mount']);
    const before = await status();
    t.like(
      before.protections.find(({ name }) => name === 'mount survives the agent'),
      { inForce: true, detail: "kept by systemd's descriptor store" },
    );
    const ids = (await host.sh(`stat -c %i /run/inro/secrets ${file} /run/inro/secrets/web/..data`)).stdout;
    const container = await bound(host);
    await manager.kill9();

    const readers = await readSteadily(host, file, ['hunter2']);
    const inside = await readSteadily(host, '/run/bound/key', ['hunter2'], container);
    for (let n = 0; n < kills; n++) {
      await agent.killAndWait();
      await pause(Math.random() * 60);
    }
    allRead(t, await readers(), `${kills} kills`);
    allRead(t, await inside(), `${kills} kills, bind mount`);
    t.deepEqual(
      agent.exits,
      Array.from({ length: kills }, () => -9),
    );
    t.is((await host.sh(`stat -c %i /run/inro/secrets ${file} /run/inro/secrets/web/..data`)).stdout, ids);

    const after = await status();
    t.deepEqual(
      after.tasks.map(({ id, state, generation, files }) => ({ id, state, generation, files })),
      before.tasks.map(({ id, state, generation, files }) => ({ id, state, generation, files })),
    );
    t.is(after.arena.values, 2);
    t.is(after.arena.sizeBytes, before.arena.sizeBytes);

    // With a manager again, life goes on: nothing is wiped and made anew, and what changes, changes.
    await host.startManager({ listen: manager.address });
    await connected(status);
    await host.ask(['secret', 'update', 'key', '-'], { stdin: 'hunter3' });
    t.is(await host.read(file), 'hunter3');
    t.is((await host.run([...container, 'cat', '/run/bound/key'])).stdout, 'hunter3');
    await host.ask(['service', 'rm', 'web']);
    await eventually('it is wiped', async () => (await status()).arena.values === 1);
    t.is(await host.read(file), 'No such file or directory');
    t.is((await host.sh('ls /run/inro/secrets/web /run/inro/secrets/.task | wc -w')).stdout, '3\n');
  },
  { timeoutMs: 300_000 },
);

labScenario(
  '2: what was withdrawn while nobody served is wiped first when somebody does again',
  async (t) => {
    const { host, agent, status } = await keptHost(t);
    await give(host, 'web', 'key', 'hunter2');
    await give(host, 'db', 'other', 'of another service');
    await connected(status);
    await agent.order({ restarts: false });
    await agent.kill();
    const [secret] = await host.json<{ id: string }[]>(['secret', 'inspect', 'key']);
    t.truthy(secret);
    await host.ask(['secret', 'revoke', 'key', '-d']);
    await host.ask(['service', 'rm', 'db', '-d']);
    await host.ask(['secret', 'create', 'new', '-'], { stdin: 'made meanwhile' });
    await host.ask(['service', 'create', '--name', 'late', '--secret', 'new', '-d']);
    await agent.order({ restarts: true, start: true });
    await agent.untilReady();
    await connected(status);
    t.is(
      await eventually('the new one', async () => {
        const text = await host.read('/run/inro/secrets/late/new');
        return text === 'made meanwhile' ? text : undefined;
      }),
      'made meanwhile',
    );
    t.not(await host.read(file), 'hunter2');
    t.is(await host.read('/run/inro/secrets/db/other'), 'No such file or directory');
    t.is((await status()).arena.values, 1);
  },
);

labScenario(
  '3: a successor that comes 5 s late: readers wait for it, and get what they asked for',
  async (t) => {
    const { host, agent } = await keptHost(t);
    await give(host, 'web', 'key', 'hunter2');
    const readers = await readSteadily(host, file, ['hunter2']);
    await agent.order({ delayMs: 5_000 });
    await agent.killAndWait();
    const results = await readers();
    allRead(t, results, '5 s late');
    t.true(Math.max(...results.map(({ longestMs }) => longestMs)) > 4_000);
  },
);

labScenario(
  '4: a rotation goes on: descriptors end with its grace, pollers are woken, no earlier and no later',
  async (t) => {
    const { host, agent } = await keptHost(t);
    await give(host, 'web', 'key', 'hunter2');
    const kernel = KernelCalls.of(t, ['nsenter', '-t', String(host.pid), '-m']);
    await kernel.call(`fd = os.open('${file}', os.O_RDONLY)`);
    t.is(await kernel.call('polled(fd)'), 1, 'POLLIN alone');
    await agent.killAndWait();
    t.is(await kernel.call('polled(fd, POLLPRI, 300)'), 0);
    await host.ask(['secret', 'update', 'key', '-'], { stdin: 'hunter3' });
    t.is(await kernel.call('polled(fd, POLLPRI, 5000)'), 2, 'woken by the successor');
    t.is(await kernel.call('os.pread(fd, 99, 0)'), 'hunter2');
    await agent.killAndWait();
    t.is(await kernel.call('os.pread(fd, 99, 0)'), 'hunter2', 'in its grace');
    t.is(await host.read(file), 'hunter3');
    await eventually(
      'the grace is over',
      async () => (await kernel.fails('os.pread(fd, 99, 0)')) === 'ESTALE',
    );
    await eventually('the old value is wiped', async () => {
      const { arena } = await host.json<Status>(['agent', 'status']);
      return arena.values === 1;
    });
    t.is(await host.read(file), 'hunter3');
  },
);

labScenario(
  '5: what is not what a former agent left is refused in words, and nobody waits for it',
  async (t) => {
    const { host, agent, status } = await keptHost(t);
    await give(host, 'web', 'key', 'hunter2');
    const [open] = [host.spawn(['sh', '-c', `exec 3< ${file}; echo open; sleep 3; cat <&3; echo code $?`])];
    await open?.printed(/open/);
    await agent.order({ replace: ['inro-arena', '/dev/zero'] });
    await agent.killAndWait();
    t.regex(agent.log, /what a former agent left is refused/);
    t.regex(agent.log, /not one of inro's/);
    await open?.printed(/code 1/);
    t.regex(open?.stderr ?? '', /not connected|connection abort/);
    await connected(status);
    t.is(
      await eventually('it is served anew', async () => {
        const text = await host.read(file);
        return text === 'hunter2' ? text : undefined;
      }),
      'hunter2',
    );
    t.deepEqual(agent.kept, ['inro-arena', 'inro-credentials', 'inro-mount']);
    await agent.killAndWait();
    t.is(await host.read(file), 'hunter2');
  },
);

labScenario('6: another node’s memory is refused', async (t) => {
  const { host, manager, agent } = await keptHost(t);
  await give(host, 'web', 'key', 'hunter2');
  await agent.order({ restarts: false });
  await agent.kill();
  await host.sh('rm -r /var/lib/inro/agent');
  await host.join(await host.ask(['token', 'show', 'worker']), manager.address);
  await agent.order({ restarts: true, start: true });
  await agent.untilReady();
  t.regex(agent.log, /the former agent was node [0-9a-z]{25} of cluster/);
  t.is(await host.read(file), 'No such file or directory');
});

labScenario('7: nobody goes on: readers get ENOTCONN, and the next start makes a new mount', async (t) => {
  const { host, agent, status } = await keptHost(t);
  await give(host, 'web', 'key', 'hunter2');
  await agent.order({ restarts: false });
  await agent.kill();
  const waiting = host.spawn(['cat', file]);
  await pause(300);
  t.true(waiting.running, 'while it is kept, readers wait');
  await agent.order({ drop: true });
  t.is(await waiting.exited, 1);
  t.regex(waiting.stderr, /not connected|connection abort/);
  t.regex(await host.read(file), /not connected/);
  await agent.order({ restarts: true, start: true });
  await agent.untilReady();
  await connected(status);
  await eventually('it is served anew', async () => (await host.read(file)) === 'hunter2');
});

labScenario('8: a restart leaves everything, a stop takes everything away', async (t) => {
  const { host, agent, status } = await keptHost(t);
  await give(host, 'web', 'key', 'hunter2');
  const readers = await readSteadily(host, file, ['hunter2']);
  await agent.killAndWait('SIGTERM');
  allRead(t, await readers(), 'restart');
  t.deepEqual(agent.exits, [0]);
  t.regex(agent.log, /left to a successor: nothing is wiped/);
  await connected(status);

  await agent.order({ restarts: false });
  t.is(await host.ask(['agent', 'stop']), '');
  await eventually('it has ended', async () => agent.exits.length === 2);
  t.deepEqual(agent.exits, [0, 0]);
  t.deepEqual(agent.kept, []);
  t.is((await host.sh('grep -c inro /proc/self/mountinfo')).stdout, '0\n');
  const [secret] = await host.json<{ versions: { nodes: number }[] }[]>(['secret', 'inspect', 'key']);
  t.deepEqual(
    secret?.versions.map(({ nodes }) => nodes),
    [0],
    'its receipt has arrived',
  );
  refused(t, await host.inro(['agent', 'stop']), 1, /^inro: no agent at unix:/);
});

labScenario('9: --takeover: a new program goes on where the old one is, under readers', async (t) => {
  const host = await Host.of(t);
  const { manager, agent } = await host.startCluster();
  await give(host, 'web', 'key', 'hunter2');
  await manager.kill9();
  const container = await bound(host);
  const readers = await readSteadily(host, file, ['hunter2']);
  let last = agent;
  for (let n = 0; n < 5; n++) {
    const next = host.start(['agent', 'run', '--takeover']);
    await next.printed(/"agent is ready"/);
    t.is(await last.exited, 0, last.stderr);
    t.regex(last.stderr, /left to a successor: nothing is wiped/);
    t.is((await host.json<Status>(['agent', 'status'])).pid > 0, true);
    last = next;
  }
  allRead(t, await readers(), '5 takeovers');
  t.is((await host.run([...container, 'cat', '/run/bound/key'])).stdout, 'hunter2');
  t.is((await host.sh('ls /run/inro')).stdout, 'agent.sock\ncredentials.sock\nmanager.sock\nsecrets\n');
  await host.startManager({ listen: manager.address });
  await last.printed(/"session with the manager"/);
  await host.ask(['secret', 'update', 'key', '-'], { stdin: 'hunter3' });
  t.is(await host.read(file), 'hunter3');
  t.is(await last.stop(), 0);
  t.is((await host.sh('grep -c inro /proc/self/mountinfo')).stdout, '0\n');
});

labScenario('10: --takeover that cannot be is refused, and the agent goes on as before', async (t) => {
  const { host, agent } = await keptHost(t);
  await give(host, 'web', 'key', 'hunter2');
  refused(
    t,
    await host.inro(['agent', 'run', '--takeover']),
    1,
    /this agent cannot be taken over: a service manager runs it/,
  );
  t.is(await host.read(file), 'hunter2');
  t.deepEqual(agent.exits, []);
  refused(
    t,
    await host.inro(['agent', 'run', '--takeover', '--socket', '/run/inro/none.sock']),
    1,
    /^inro: no agent at unix:\/run\/inro\/none\.sock/,
  );
  const elsewhere = await host.inro(['agent', 'run', '--takeover', '--state', '/var/lib/inro/none']);
  refused(t, elsewhere, 1, /has not joined|no node certificate|no identity/);
  t.is((await run(['true'])).code, 0);
});

labScenario(
  '11: nobody keeps it: a crash costs the mount, the next start clears it, and the second belt shows the new one',
  async (t) => {
    const host = await Host.of(t);
    const { agent } = await host.startCluster();
    await agent.stop();
    await host.sh('mkdir -p /run/p && mount --bind /run/p /run/p && mount --make-rshared /run/p');
    const first = await host.startAgent({ mount: '/run/p/m' });
    await give(host, 'web', 'key', 'hunter2');
    const { protections } = await host.json<Status>(['agent', 'status']);
    const survives = protections.find(({ name }) => name === 'mount survives the agent');
    t.false(survives?.inForce);
    t.regex(survives?.detail ?? '', /^nobody keeps its descriptors: after a crash readers get ENOTCONN/);

    // As a container has it: the folder above, and whatever is mounted below it later.
    const belt =
      'mkdir -p /run/c && mount --rbind /run/p /run/c && mount --make-rslave /run/c && echo bound && exec sleep infinity';
    const holder = host.spawn(['unshare', '-m', '--propagation', 'slave', 'sh', '-c', belt]);
    await holder.printed(/bound/);
    const read = () => host.run(['nsenter', '-t', String(holder.pid), '-m', 'cat', '/run/c/m/web/key']);
    t.is((await read()).stdout, 'hunter2');
    // Who looks at it all the time keeps its attributes fresh in the kernel: they are there for a dead mount, too.
    host.spawn(['sh', '-c', 'while :; do ls -ld /run/p/m; done > /dev/null 2>&1']);
    await pause(300);
    await first.kill9();
    t.regex((await read()).stderr, /not connected/);
    const second = await host.startAgent({ mount: '/run/p/m' });
    await eventually('it is served again', async () => (await host.read('/run/p/m/web/key')) === 'hunter2');
    t.is((await read()).stdout, 'hunter2', 'through the second belt');
    t.regex(
      (await host.run(['nsenter', '-t', String(holder.pid), '-m', 'touch', '/run/c/m/web/key'])).stderr,
      /Read-only/,
    );
    t.is(await second.stop(), 0);
  },
);

labScenario('12: a mount whose memory is lost ends, whoever served it, and a new one begins', async (t) => {
  const { host, agent } = await keptHost(t);
  await give(host, 'web', 'key', 'hunter2');
  await agent.order({ forget: 'inro-arena' });
  await agent.kill();
  const reader = host.spawn(['cat', file]);
  await eventually('it is served anew', async () => {
    const { code, stdout } = await host.run(['cat', file], { timeoutMs: 25_000 });
    return code === 0 && stdout === 'hunter2';
  });
  t.is(await reader.exited, 1, 'nobody waits for ever');
  t.deepEqual(agent.exits, [-9, 1]);
  t.deepEqual(agent.kept, ['inro-arena', 'inro-credentials', 'inro-mount']);
});

labScenario('13: a start that fails leaves what it took over to the next one', async (t) => {
  const { host, manager, agent } = await keptHost(t);
  await give(host, 'web', 'key', 'hunter2');
  await manager.kill9();
  await agent.order({ restarts: false });
  await agent.kill();
  await host.sh('rm /run/inro/agent.sock && echo mine > /run/inro/agent.sock');
  const { kept } = agent;
  const before = agent.exits.length;
  await agent.order({ start: true });
  await eventually('it has failed', async () => agent.exits.length > before);
  t.is(agent.exits.at(-1), 1);
  t.regex(agent.log, /something else is there, and stays/);
  t.deepEqual(agent.kept, kept, 'it is still kept');
  await host.sh('rm /run/inro/agent.sock');
  await agent.order({ start: true });
  await agent.untilReady();
  t.is(await host.read(file), 'hunter2', 'without a manager');
});

labScenario('14: a receipt that no manager has is told by the successor of a killed agent', async (t) => {
  const { host, manager, agent, status } = await keptHost(t);
  await give(host, 'web', 'key', 'hunter2');
  await connected(status);
  await host.ask(['secret', 'update', 'key', '-'], { stdin: 'hunter3' });
  await manager.kill9();
  const pending = async () => (await status()).receipts.pending;
  // Its grace ends.
  await eventually('the old version is wiped', async () => (await pending()) === 1, 30_000);
  for (let n = 0; n < 3; n++) await agent.killAndWait();
  t.is(await pending(), 1);
  const again = await host.startManager({ listen: manager.address });
  const taken = /^.*"secret":"(\w+)","version":(\d+),"reason":"(\w+)".*wiped, by receipt.*$/m;
  await again.daemon.printed(taken);
  t.deepEqual(taken.exec(again.daemon.stderr)?.slice(2), ['1', 'superseded']);
  await eventually('the manager has it', async () => (await pending()) === 0);
  await agent.killAndWait();
  t.is(await pending(), 0);
});
