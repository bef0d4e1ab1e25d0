/** Revoking, and the receipts by which nodes say that they have wiped: real agents and managers, and links that break. */
import type { ExecutionContext } from 'ava';
import { Host, scenario } from '../support/host.js';
import { labScenario } from '../support/lab.js';
import { eventually, type Daemon } from '../support/inro.js';
import { Wire } from '../support/wire.js';

const web = '/run/inro/secrets/web';
const listen = '127.0.0.1:4747';

interface Secret {
  revoked: boolean;
  versions: { nodes: number; revokedBy: string }[];
}

interface Status {
  receipts: { pending: number; dropped: number };
  arena: { values: number };
  tasks: { error: string; files: { target: string }[] }[];
}

/** Each receipt that this manager has taken, as its log has them: `REASON VERSION`. */
function takenBy(manager: Daemon): string[] {
  return manager.stderr
    .split('\n')
    .filter((line) => line.includes('"wiped, by receipt"'))
    .map((line) => JSON.parse(line) as { reason: string; version: number })
    .map(({ reason, version }) => `${reason} ${version}`);
}

/** A shell on the host that opens the file, and reads on from its descriptor when it is told to. */
async function readerOf(host: Host, file: string): Promise<{ readOn(): Promise<string> }> {
  const reader = host.spawn([
    'sh',
    '-c',
    `exec 3< ${file}; echo opened; until [ -e read-on ]; do sleep 0.02; done; dd bs=100 count=1 <&3`,
  ]);
  await reader.printed(/opened/);
  return {
    async readOn() {
      await host.sh('touch read-on');
      const code = await reader.exited;
      await host.sh('rm read-on');
      return code === 0 ? reader.stdout.replace('opened\n', '') : reader.stderr;
    },
  };
}

const gone = /Stale file handle|No such file or directory/;

async function withService(host: Host): Promise<void> {
  await host.ask(['secret', 'create', 'key', '-'], { stdin: 'first' });
  await host.ask(['secret', 'create', 'other', '-'], { stdin: 'stays' });
  await host.ask(['service', 'create', '--name', 'web', '--secret', 'key', '--secret', 'other']);
}

scenario(
  'revoked while a reader holds it open: no byte is read any more, and the node says so',
  async (t) => {
    const host = await Host.of(t);
    const { manager } = await host.startCluster();
    await withService(host);
    const [task] = await host.json<{ id: string }[]>(['service', 'ps', 'web']);
    const reader = await readerOf(host, `${web}/key`);

    // 1. When the command returns, it is gone: for new opens, and for the descriptor that was open.
    const printed = await host.ask(['secret', 'revoke', 'key']);
    t.regex(printed, /^key@1 is revoked\nnode host-a: wiped in [1-9][0-9]* us$/);
    t.is(await host.read(`${web}/key`), 'No such file or directory');
    t.regex(await reader.readOn(), gone);
    t.is(await host.read(`${web}/other`), 'stays');
    t.deepEqual(takenBy(manager.daemon), ['revoked 1']);

    // 2. The task runs on, and everybody is told why a file is missing.
    const words = 'secret key is revoked: no value to serve';
    t.like((await host.json(['service', 'ps', 'web']))[0], { id: task?.id, state: 'RUNNING', error: words });
    const status = await host.json<Status>(['agent', 'status']);
    t.deepEqual(status.receipts, { pending: 0, dropped: 0 });
    t.is(status.arena.values, 1);
    t.is(status.tasks[0]?.error, words);
    t.deepEqual(
      status.tasks[0]?.files.map(({ target }) => target),
      ['other'],
    );
    t.like((await host.json<Secret[]>(['secret', 'inspect', 'key']))[0], {
      revoked: true,
      versions: [{ nodes: 0, revokedBy: 'root' }],
    });

    // 3. A task that is new has no such file either.
    await host.ask(['service', 'update', '--replicas', '2', 'web']);
    t.is((await host.sh(`ls ${web}`)).stdout, 'other\n');

    // 4. A new version makes it appear again; nothing was restarted.
    await host.ask(['secret', 'update', 'key', '-'], { stdin: 'second' });
    t.is(await host.read(`${web}/key`), 'second');
    const after = await host.json<{ id: string; slot: number; state: string; error: string }[]>([
      'service',
      'ps',
      'web',
    ]);
    t.like(after[0], { id: task?.id, slot: 1, state: 'RUNNING', error: '' });
  },
);

scenario('a version that was replaced is revoked within its grace: it ends at once', async (t) => {
  const host = await Host.of(t);
  await host.startCluster();
  await withService(host);
  const reader = await readerOf(host, `${web}/key`);
  await host.ask(['secret', 'update', 'key', '-'], { stdin: 'second' });
  const { versions } = (await host.json<Secret[]>(['secret', 'inspect', 'key']))[0] as Secret;
  t.deepEqual(
    versions.map(({ nodes }) => nodes),
    [1, 1],
  );
  t.regex(
    await host.ask(['secret', 'revoke', 'key@1']),
    /^key@1 is revoked\nnode host-a: wiped in [0-9]+ us$/,
  );
  t.regex(await reader.readOn(), gone);
  t.is(await host.read(`${web}/key`), 'second');
  t.like(await host.json(['service', 'ps', 'web']), [{ error: '' }]);
});

for (const [title, lost, inTime] of [
  ['the receipt is lost', true, false],
  ['its acknowledgement is lost', false, true],
] as const) {
  labScenario(`the link breaks after a wipe, and ${title}: it arrives all the same, and once`, async (t) => {
    const host = await Host.of(t);
    const manager = await host.startManager();
    const wire = await Wire.to(t, manager.address);
    await host.join(await host.ask(['token', 'show', 'worker']), wire.address);
    const agent = await host.startAgent();
    await withService(host);

    const sent = wire.atReceipt({ lost });
    const revoking = host.inro(['secret', 'revoke', 'key']);
    await sent;
    t.regex(await host.read(`${web}/key`), gone, 'it is wiped');
    if (inTime) await eventually('the receipt', async () => takenBy(manager.daemon).length > 0);
    t.is(takenBy(manager.daemon).length, inTime ? 1 : 0);
    t.is((await host.json<Status>(['agent', 'status'])).receipts.pending, 1);

    wire.cut();
    await eventually(
      'the acknowledgement',
      async () => (await host.json<Status>(['agent', 'status'])).receipts.pending === 0,
    );
    const { code, stdout, stderr } = await revoking;
    t.is(code, 0, stderr);
    t.regex(stdout, /^key@1 is revoked\nnode host-a: wiped in [0-9]+ us\n$/);
    t.deepEqual(takenBy(manager.daemon), ['revoked 1']);
    t.is((agent.stderr.match(/"session with the manager"/g) ?? []).length, 2);
  });
}

labScenario('an agent that is stopped sends its last receipts before it ends its session', async (t) => {
  const host = await Host.of(t, { ownNetwork: true });
  const { manager, agent } = await host.startCluster({ listen });
  await withService(host);
  t.is(await agent.stop(), 0);
  t.deepEqual(takenBy(manager.daemon), ['stopped 1', 'stopped 1']);
  const nodes = async (): Promise<unknown> =>
    (await host.json<Secret[]>(['secret', 'ls'])).map(({ versions }) => versions.map((one) => one.nodes));
  t.deepEqual(await nodes(), [[0], [0]]);

  // Started again, it holds them again; a manager that is killed meanwhile knows so.
  await host.startAgent();
  await eventually('the value', async () => (await host.read(`${web}/key`)) === 'first');
  t.deepEqual(await nodes(), [[1], [1]]);
  await manager.kill9();
  const { daemon } = await host.startManager({ listen });
  t.deepEqual(await nodes(), [[1], [1]]);
  await eventually(
    'the node',
    async () => (await host.json<{ status: string }[]>(['node', 'ls']))[0]?.status === 'ready',
  );
  t.regex(await host.ask(['secret', 'revoke', 'key']), /node host-a: wiped in [0-9]+ us$/);
  t.deepEqual(takenBy(daemon), ['revoked 1'], 'and takes no old receipt again');
});

labScenario('a manager that does not answer keeps an agent from stopping for a moment only', async (t) => {
  const host = await Host.of(t);
  const { manager, agent } = await host.startCluster();
  await withService(host);
  process.kill(manager.daemon.pid, 'SIGSTOP');
  const beganMs = Date.now();
  t.is(await agent.stop(), 0);
  t.true(Date.now() - beganMs < 10_000);
  t.notRegex((await host.sh('cat /proc/self/mountinfo')).stdout, /inro\/secrets/);
});

labScenario(
  'a node that is away is named; it is told when it comes back, by a manager that was killed meanwhile too',
  async (t) => {
    const host = await Host.of(t, { ownNetwork: true });
    const { manager, agent } = await host.startCluster({ listen });
    await withService(host);

    // 1. Stopped in its tracks, it cannot answer: the command says so after 30 s, and the version is revoked all the same.
    process.kill(agent.pid, 'SIGSTOP');
    const { code, stdout, stderr } = await host.inro(['secret', 'revoke', 'key']);
    t.is(code, 1);
    t.is(stdout, 'key@1 is revoked\n');
    t.regex(
      stderr,
      /^NODE +WHY\nhost-a +it (has not answered yet|is not connected; its lease ends at [-0-9TZ:.]+ at the latest)$/m,
    );
    t.regex(stderr, /inro: the version is revoked, but not wiped everywhere yet\n {6}\S/);

    // 2. The manager dies; the next one remembers who has it.
    await manager.kill9();
    const { daemon } = await host.startManager({ listen });
    t.is((await host.json<Secret[]>(['secret', 'inspect', 'key']))[0]?.versions[0]?.nodes, 1);
    process.kill(agent.pid, 'SIGCONT');
    await eventually('the receipt', async () => takenBy(daemon).length > 0, 60_000);
    t.deepEqual(takenBy(daemon), ['revoked 1']);
    t.is(await host.read(`${web}/key`), 'No such file or directory');
    t.is(await host.read(`${web}/other`), 'stays');
    t.is((await host.json<Secret[]>(['secret', 'inspect', 'key']))[0]?.versions[0]?.nodes, 0);
  },
);

labScenario(
  'an agent that was killed has nothing left to wipe: the command says what it knows',
  async (t) => {
    const host = await Host.of(t);
    const { agent } = await host.startCluster();
    await withService(host);
    await agent.kill9();
    const revoking = host.inro(['secret', 'revoke', '--json', 'key']);
    await host.startAgent();
    const { code, stdout } = await revoking;
    t.is(code, 0);
    const { nodes } = JSON.parse(stdout) as { nodes: Record<string, unknown>[] };
    t.like(nodes, [{ node: 'host-a', outcome: 'gone', durationUs: 0, wipedAt: null, leaseEndsAt: null }]);
    t.is((await host.sh(`ls ${web}`)).stdout, 'other\n');
  },
);

labScenario(
  'a task that ends, and a reference that is taken away, are wiped with a receipt, too',
  async (t) => {
    const host = await Host.of(t);
    const { manager } = await host.startCluster();
    await withService(host);
    await host.ask(['service', 'update', '--secret-rm', 'key', 'web']);
    await expectTaken(t, manager.daemon, ['removed 1']);
    await host.ask(['service', 'rm', 'web']);
    await expectTaken(t, manager.daemon, ['removed 1', 'removed 1']);
  },
);

/** The command waits for the nodes' answers, which come after their receipts. */
async function expectTaken(t: ExecutionContext, manager: Daemon, expected: string[]): Promise<void> {
  await eventually('the log', async () => takenBy(manager).length >= expected.length, 2_000).catch(
    () => undefined,
  );
  t.deepEqual(takenBy(manager), expected);
}
