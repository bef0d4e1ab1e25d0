/** The whole agent in this process, with its real mount, on a clock that the test moves. */
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { pino } from 'pino';
import { startAgent, type RunningAgent } from '../../src/agent/agent.js';
import { saveIdentity, saveKey } from '../../src/agent/identity.js';
import { topMountAt, readMounts } from '../../src/agent/mount/mountpoint.js';
import { managerLimits } from '../../src/manager/limits.js';
import { InroError } from '../../src/model/error.js';
import { Agent, type AgentStatus } from '../../src/proto/gen/inro/v1/agent_pb.js';
import { call, connectUnix } from '../../src/rpc/client.js';
import { FakeClock } from '../support/fake_clock.js';
import { guardMounts } from '../support/mount_guard.js';
import { MountReader } from '../support/mount_reader.js';
import { realManager, type RealManager } from '../support/real_manager.js';

const lacks = !existsSync('/dev/fuse') ? '/dev/fuse' : process.getuid?.() === 0 ? '' : 'root';
const mounting = lacks === '' ? test.serial : test.serial.skip;
const why = lacks === '' ? '' : ` (skipped: needs ${lacks})`;

interface Running {
  manager: RealManager;
  agent: RunningAgent;
  clock: FakeClock;
  mount: string;
  reader: MountReader;
  read(path: string): Promise<string>;
  status(): Promise<AgentStatus>;
  restartOptions: Parameters<typeof startAgent>[0];
}

async function running(t: ExecutionContext): Promise<Running> {
  const { mountPoint: mount, scratch, cleanUp } = await guardMounts();
  t.teardown(cleanUp);
  const manager = await realManager(t);
  const identity = await manager.joined();
  const stateFolder = join(scratch, 'agent');
  saveKey(stateFolder, identity.keyPem);
  saveIdentity(stateFolder, {
    rootPem: manager.rootPem,
    certificatePem: identity.certPem,
    managers: [manager.running.address],
  });
  const clock = new FakeClock(Date.now());
  const socketPath = join(scratch, 'agent.sock');
  const log = pino({ level: 'silent' });
  const options = {
    stateFolder,
    mountPath: mount,
    socketPath,
    clock,
    random: randomBytes,
    driver: 'kernel' as const,
    log,
  };
  const agent = await startAgent(options);
  t.teardown(() => agent.stop());
  const reader = new MountReader();
  t.teardown(() => reader.close());
  const connection = connectUnix(socketPath, 'the agent');
  t.teardown(() => connection.close());
  await agent.connected;
  return {
    manager,
    agent,
    clock,
    mount,
    reader,
    read: async (path) =>
      Buffer.from(await reader.call<Uint8Array>('readWhole', join(mount, path))).toString(),
    status: () => call(connection, Agent, 'getStatus', {}),
    restartOptions: options,
  };
}

async function eventually(what: string, look: () => Promise<boolean>): Promise<void> {
  for (let attempt = 0; attempt < 400; attempt++) {
    if (await look().catch(() => false)) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error(`waited in vain: ${what}`);
}

mounting(
  `when the lease is over everything is wiped, and the manager’s return brings it back${why}`,
  async (t) => {
    const r = await running(t);
    await r.manager.createSecret('db', 'hunter2');
    await r.manager.createService('web', ['db']);
    await eventually('the secret is there', async () => (await r.read('web/db')) === 'hunter2');
    const descriptor = await r.reader.call<number>('openSync', join(r.mount, 'web/db'));
    t.like(await r.status(), { arena: { values: 1 }, session: { state: 'connected' } });

    await r.manager.stop();
    await eventually('the session is lost', async () => (await r.status()).session?.state !== 'connected');
    await r.clock.jump(managerLimits.leaseMs - 60_000);
    t.is(await r.reader.pread(descriptor, 100, 0), 'hunter2', 'a minute before its end it serves on');
    t.is(await r.read('web/db'), 'hunter2');

    r.clock.setWall(r.clock.now() - managerLimits.leaseMs); // setting the clock back wins no time
    await r.clock.jump(60_000);
    t.is(await r.reader.fails('pread', descriptor, 100, 0), 'ESTALE');
    t.not(await r.reader.fails('openSync', join(r.mount, 'web/db')), 'ok');
    const after = await r.status();
    t.like(after, { arena: { values: 0 }, session: { leaseLeftMs: 0n } });
    // What is left are names of directories.
    t.true(Number(after.arena?.usedBytes) <= 1024, String(after.arena?.usedBytes));
  },
);

mounting(`stopped, it wipes, unmounts and ends its socket, and another can start${why}`, async (t) => {
  const r = await running(t);
  await r.manager.createSecret('db', 'hunter2');
  await r.manager.createService('web', ['db']);
  await eventually('the secret is there', async () => (await r.read('web/db')) === 'hunter2');
  const error = await t.throwsAsync<InroError>(startAgent({ ...r.restartOptions }), {
    instanceOf: InroError,
  });
  t.is(error.code, 'already_running');
  t.is(await r.read('web/db'), 'hunter2', 'and the first does not notice');

  const descriptor = await r.reader.call<number>('openSync', join(r.mount, 'web/db'));
  await r.agent.stop();
  const receipts = r.manager.logged.filter(({ msg }) => msg === 'wiped, by receipt');
  t.like(receipts, [{ reason: 'stopped', version: 1 }]);
  t.not(await r.reader.fails('pread', descriptor, 100, 0), 'ok');
  t.is(topMountAt(await readMounts(), r.mount), undefined);
  t.false(existsSync(r.restartOptions.socketPath));
  t.is(r.clock.pending, 0);
});

mounting(`stopped while no manager is there, it waits for none${why}`, async (t) => {
  const r = await running(t);
  await r.manager.createSecret('db', 'hunter2');
  await r.manager.createService('web', ['db']);
  await eventually('the secret is there', async () => (await r.read('web/db')) === 'hunter2');
  await r.manager.stop();
  await eventually('the session is lost', async () => (await r.status()).session?.state !== 'connected');
  await r.agent.stop(); // time stands still: a wait would not end
  t.is(r.clock.pending, 0);
});
