/**
 * Who may read: what is attached and nobody else, by whatever way; and who has read: each open and each refusal, on record.
 */
import { readdirSync } from 'node:fs';
import type { ExecutionContext } from 'ava';
import { clearExecGroups, execGroups, unified } from '../support/exec_groups.js';
import { Host, scenario } from '../support/host.js';
import { labScenario } from '../support/lab.js';
import { eventually, program, refused, type Daemon } from '../support/inro.js';
import { KeptAgent } from '../support/kept_agent.js';

const file = '/run/inro/secrets/web/key';

interface Access {
  outcome: string;
  secret: string;
  version: number;
  uid: number;
  processId: number;
  processName: string;
  processStartedAt: string;
  workload: string;
  count: number;
}

interface Status {
  arena: { usedBytes: number };
  tasks: {
    service: string;
    restricted: boolean;
    attached: { kind: string; name: string; cgroup: string }[];
  }[];
}

const groups = () => execGroups('web');

async function hostWithWeb(t: ExecutionContext, options: string[] = []): Promise<Host> {
  clearExecGroups(t, 'web');
  const host = await Host.of(t);
  await host.startCluster();
  await host.ask(['secret', 'create', 'key', '-'], { stdin: 'hunter2' });
  await host.ask(['service', 'create', '--name', 'web', '--secret', 'key', ...options]);
  return host;
}

const audit = (host: Host) => host.json<Access[]>(['agent', 'audit']);
const shown = ({ outcome, processName, workload, uid }: Access) =>
  `${outcome} ${processName} ${workload} ${uid}`.replaceAll(/  +/g, ' ');

async function attached(host: Host): Promise<string[]> {
  const { tasks } = await host.json<Status>(['agent', 'status']);
  return tasks.flatMap((task) => task.attached.map(({ kind, name }) => `${kind} ${name}`));
}

/** A process of the service that runs until it is ended; it says what it reads for each line it is told. */
async function worker(host: Host, service = 'web'): Promise<Daemon> {
  const line = 'echo ready; while read file; do cat "$file" 2>&1; echo; done';
  const daemon = host.spawn([process.execPath, program, 'exec', service, '--', 'sh', '-c', line], {
    talks: true,
  });
  await daemon.printed(/^ready$/m);
  return daemon;
}

scenario('1: from the first attached process on, attached ones alone read; root does not', async (t) => {
  const host = await hostWithWeb(t);
  t.is(await host.read(file), 'hunter2', 'nobody is attached yet');

  const one = await worker(host);
  one.say(file);
  await one.printed(/^hunter2$/m);
  t.is(await host.read(file), 'Permission denied');
  t.regex((await host.sh('ls -l /run/inro/secrets/web')).stdout, /key/, 'names are no secret');
  t.deepEqual(await attached(host), ['exec sh']);
  const status = await host.ask(['agent', 'status']);
  t.regex(status, /web +RUNNING +1 +1 attached +key \(v1, 7 B\)/);

  // Another service's process is as foreign as anybody.
  await host.ask(['service', 'create', '--name', 'db', '--secret', 'key']);
  const other = await worker(host, 'db');
  other.say(file);
  await other.printed(/cat: .*Permission denied/);
  other.say('/run/inro/secrets/db/key');
  await other.printed(/^hunter2$/m);

  t.is(await one.hangUp(), 0);
  await eventually('it is detached', async () => (await attached(host)).join() === 'exec sh');
  t.is(
    await host.read(file),
    'Permission denied',
    'who has been attached to once is not for everybody again',
  );
  t.is(await other.hangUp(), 0);
  await eventually('nothing is attached', async () => (await attached(host)).length === 0);
  await noGroups(t);

  const seen = await audit(host);
  t.deepEqual(seen.map(shown), [
    'opened cat 0',
    'opened cat exec sh 0',
    'not attached cat 0',
    'not attached cat exec sh 0',
    'opened cat exec sh 0',
    'not attached cat 0',
  ]);
  for (const { version, secret, processId, processStartedAt } of seen) {
    t.like({ version, secret }, { version: 1, secret: 'key' });
    t.true(processId > 0 && Math.abs(Date.now() - Date.parse(processStartedAt)) < 600_000);
  }
});

scenario(
  '2: a service says that anybody may read, or from the beginning nobody who is not attached',
  async (t) => {
    const host = await hostWithWeb(t, ['--readers', 'attached']);
    t.is(await host.read(file), 'Permission denied');
    const one = await worker(host);
    one.say(file);
    await one.printed(/^hunter2$/m);
    await host.ask(['service', 'update', '--readers', 'any', 'web']);
    t.is(await host.read(file), 'hunter2');
    await host.ask(['service', 'update', '--readers', 'auto', 'web']);
    t.is(await host.read(file), 'Permission denied');
    await host.ask(['secret', 'update', 'key', '-'], { stdin: 'hunter3' });
    t.is(await host.read(file), 'Permission denied', 'a new version is behind the same gate');
    one.say(file);
    await one.printed(/^hunter3$/m);
    t.is(await one.hangUp(), 0);
  },
);

labScenario('3: a descriptor that an attached process gives away is worth nothing', async (t) => {
  const host = await hostWithWeb(t);
  const give = `
import os, socket, sys
fd = os.open('${file}', os.O_RDONLY)
print('own', os.pread(fd, 100, 0).decode(), flush=True)
with socket.socket(socket.AF_UNIX) as s:
    s.bind('/run/give'); s.listen(1); print('listening', flush=True)
    c, _ = s.accept(); socket.send_fds(c, [b'x'], [fd]); c.recv(1)
print('still', os.pread(fd, 100, 0).decode(), flush=True)`;
  const take = `
import os, socket
s = socket.socket(socket.AF_UNIX); s.connect('/run/give')
_, fds, _, _ = socket.recv_fds(s, 1, 1)
def tried(name, f):
    try: print(name, f())
    except OSError as e: print(name, os.strerror(e.errno))
tried('pread', lambda: os.pread(fds[0], 100, 0))
tried('reopen', lambda: open('/proc/self/fd/%d' % fds[0]).read())
tried('stat', lambda: os.fstat(fds[0]).st_size)
s.send(b'x')`;
  const giver = host.spawn([process.execPath, program, 'exec', 'web', '--', 'python3', '-c', give]);
  await giver.printed(/listening/);
  const taken = await host.run(['python3', '-c', take]);
  t.is(taken.stdout, 'pread Permission denied\nreopen Permission denied\nstat 7\n', taken.stderr);
  t.is(await giver.exited, 0);
  t.is(giver.stdout, 'own hunter2\nlistening\nstill hunter2\n');
  t.deepEqual((await audit(host)).map(shown), [
    'opened python3 exec python3 0',
    'not attached python3 0',
    'not attached python3 0',
  ]);
});

labScenario(
  '4: /proc/PID/root, its mounts and a bind mount lead nobody in; entering the cgroup does',
  async (t) => {
    const host = await hostWithWeb(t);
    const one = await worker(host);
    t.is(await host.read(`/proc/${one.pid}/root${file}`), 'Permission denied');
    await host.sh('mkdir -p /run/bound && mount --bind /run/inro/secrets/web /run/bound');
    t.is(await host.read('/run/bound/key'), 'Permission denied');
    await host.sh('umount /run/bound');
    const inMounts = await host.run(['nsenter', '-t', String(one.pid), '-m', 'cat', file]);
    t.regex(inMounts.stderr, /Permission denied/);

    // Root of the host can enter: inro makes it loud, not impossible.
    const { tasks } = await host.json<Status>(['agent', 'status']);
    const group = tasks[0]?.attached[0]?.cgroup ?? '';
    const entered = await host.sh(`echo $$ > ${unified}${group}/cgroup.procs && cat ${file}`);
    t.is(entered.stdout, 'hunter2', entered.stderr);
    // And what is below belongs to it.
    const below = `mkdir ${unified}${group}/below && echo $$ > ${unified}${group}/below/cgroup.procs && cat ${file}`;
    t.is((await host.sh(below)).stdout, 'hunter2');
    await host.sh(`rmdir ${unified}${group}/below`);
    t.is(await one.hangUp(), 0);
    await eventually('nothing is attached', async () => (await attached(host)).length === 0);
    await noGroups(t);
  },
);

labScenario('5: exit codes, signals, environment and limits are the command’s own', async (t) => {
  const host = await hostWithWeb(t);
  const exec = (...args: string[]) => host.inro(['exec', ...args]);
  t.like(await exec('web', '--', 'sh', '-c', 'exit 7'), { code: 7, stdout: '', stderr: '' });
  t.is((await exec('web', '--', 'sh', '-c', 'yes | head -1')).stdout, 'y\n');
  t.is((await exec('web', '--', 'sh', '-c', 'cat $INRO_SECRETS/key')).stdout, 'hunter2');
  const limit = (await host.sh('ulimit -n')).stdout;
  t.is((await exec('web', '--', 'sh', '-c', 'ulimit -n')).stdout, limit);
  const given = await exec('web', '--env', 'PW=key', '--', 'sh', '-c', 'echo $PW');
  t.like(given, { code: 0, stdout: 'hunter2\n' });
  t.regex(
    given.stderr,
    /^inro: the value of key is in the environment of the command: \/proc shows it .*\n$/,
  );
  t.like(await exec('web', '--', 'no-such-command'), {
    code: 127,
    stderr: 'inro: there is no command "no-such-command"\n',
  });
  await host.sh('printf "#!/nowhere\\n" > /run/bad && chmod +x /run/bad');
  t.is((await exec('web', '--', '/run/bad')).code, 126);
  refused(t, await exec('nothing', '--', 'true'), 1, /no task of service "nothing" is on this node/);
  refused(t, await exec('web', '--env', 'PW=other', '--', 'true'), 1, /this service has no secret "other"/);
  refused(t, await exec('web', '--env', '1=key', '--', 'true'), 2, /is not NAME=SECRET/);
  refused(
    t,
    await exec('web', '--socket', '/run/none.sock', '--', 'true'),
    1,
    /no agent at unix:\/run\/none.sock/,
  );
  await eventually('nothing is attached', async () => (await attached(host)).length === 0);
  await noGroups(t);
});

labScenario(
  '6: a killed agent’s successor holds the same rule, and tells what it has not told',
  async (t) => {
    clearExecGroups(t, 'web');
    const host = await Host.of(t);
    const manager = await host.startManager();
    await host.join(await host.ask(['token', 'show', 'worker']), manager.address);
    const agent = await KeptAgent.start(host);
    await host.ask(['secret', 'create', 'key', '-'], { stdin: 'hunter2' });
    await host.ask(['service', 'create', '--name', 'web', '--secret', 'key']);
    const one = await worker(host);
    await manager.kill9();
    for (let round = 1; round <= 5; round++) {
      one.say(file);
      await eventually('it is read', async () => one.stdout.split('hunter2').length === round + 1);
      t.is(await host.read(file), 'Permission denied');
      await agent.killAndWait();
      t.deepEqual(await attached(host), ['exec sh']);
    }
    const seen = await audit(host);
    t.is(seen.filter(({ outcome }) => outcome === 'opened').length, 5);
    t.is(seen.filter(({ outcome }) => outcome === 'not attached').length, 5);
    // One that ends while nobody serves.
    await agent.order({ restarts: false });
    await agent.kill();
    t.is(await one.hangUp(), 0);
    await agent.order({ start: true });
    await agent.untilReady();
    await eventually('it is detached', async () => (await attached(host)).length === 0);
    t.is(await host.read(file), 'Permission denied');
    await noGroups(t);
  },
);

labScenario('7: a thousand processes come and go, and nothing stays', async (t) => {
  const host = await hostWithWeb(t);
  const used = async () => (await host.json<Status>(['agent', 'status'])).arena.usedBytes;
  const { pid } = await host.json<{ pid: number }>(['agent', 'status']);
  const descriptors = () => readdirSync(`/proc/${pid}/fd`).length;
  await host.inro(['exec', 'web', '--', 'true']);
  await eventually('nothing is attached', async () => (await attached(host)).length === 0);
  const before = { used: await used(), descriptors: descriptors() };
  // The calls alone: each start of a process takes most of the time of a round.
  const rounds = `
    import { Agent } from ${url('proto/gen/inro/v1/agent_pb.js')};
    import { withAgent } from ${url('rpc/agent_socket.js')};
    import { call } from ${url('rpc/client.js')};
    import { addon } from ${url('system/addon.js')};
    import { enterCgroup, makeCgroup, removeCgroup } from ${url('system/cgroups.js')};
    import { readFileSync } from 'node:fs';
    addon();
    let read = 0;
    await withAgent('/run/inro/agent.sock', async (agent) => {
      for (let n = 0; n < 1000; n++) {
        const group = makeCgroup('/', 'inro-exec-round-' + process.pid + '-' + n);
        enterCgroup(group);
        const { attachmentId } = await call(agent, Agent, 'attach', { service: 'web', kind: 'exec', name: 'round', pid: process.pid });
        if (readFileSync('${file}', 'utf8') === 'hunter2') read++;
        await call(agent, Agent, 'detach', { attachmentId });
        enterCgroup('/');
        if (!removeCgroup(group)) throw new Error(group + ' stays');
      }
    });
    console.log(read);`;
  const done = await host.run([process.execPath, '--input-type=module', '-e', rounds]);
  t.is(done.stdout, '1000\n', done.stderr);
  t.deepEqual(await attached(host), []);
  t.is(await used(), before.used);
  t.true(descriptors() <= before.descriptors + 2 * 64 + 8, `${descriptors()} after ${before.descriptors}`);
  t.is((await audit(host)).filter(({ outcome }) => outcome === 'opened').length, 1000);
  await noGroups(t);
});

function url(path: string): string {
  return JSON.stringify(new URL(`../../src/${path}`, import.meta.url).href);
}

async function noGroups(t: ExecutionContext): Promise<void> {
  await eventually('no cgroup stays', async () => groups().length === 0);
  t.pass();
}
