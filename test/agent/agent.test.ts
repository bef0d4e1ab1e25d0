/** The whole agent in this process, with its real mount, on a clock that the test moves. */
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { pino } from 'pino';
import { startAgent, type RunningAgent } from '../../src/agent/agent.js';
import { healthOf } from '../../src/agent/health.js';
import { saveIdentity, saveKey } from '../../src/agent/identity.js';
import { topMountAt, readMounts } from '../../src/agent/mount/mountpoint.js';
import { managerLimits } from '../../src/manager/limits.js';
import { InroError } from '../../src/model/error.js';
import { readCertificate } from '../../src/pki/certificate.js';
import { Agent, type AgentStatus } from '../../src/proto/gen/inro/v1/agent_pb.js';
import { call, connectUnix } from '../../src/rpc/client.js';
import { systemClock } from '../../src/system/clock.js';
import { FakeClock } from '../support/fake_clock.js';
import { guardMounts } from '../support/mount_guard.js';
import { MountReader } from '../support/mount_reader.js';
import { realManager, type RealManager } from '../support/real_manager.js';

const hourMs = 3_600_000;
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

async function running(t: ExecutionContext, certExpiryMs?: number): Promise<Running> {
  const { mountPoint: mount, scratch, cleanUp } = await guardMounts();
  t.teardown(cleanUp);
  const manager = await realManager(t);
  if (certExpiryMs !== undefined)
    await manager.operate('updateCa', { certificateLifetimeMs: BigInt(certExpiryMs) });
  const identity = await manager.joined();
  const stateFolder = join(scratch, 'agent');
  saveKey(stateFolder, identity.keyPem);
  saveIdentity(stateFolder, {
    rootPem: manager.rootPem,
    certificatePem: identity.certPem,
    managers: [manager.running.address],
  });
  const clock = new FakeClock(Date.now(), systemClock.boottimeMs());
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

mounting(`its certificate is renewed under readers, who notice nothing${why}`, async (t) => {
  const r = await running(t, hourMs);
  await r.manager.createSecret('db', 'hunter2');
  await r.manager.createService('web', ['db']);
  await eventually('the secret is there', async () => (await r.read('web/db')) === 'hunter2');
  const descriptor = await r.reader.call<number>('openSync', join(r.mount, 'web/db'));
  const { stateFolder } = r.restartOptions;
  const file = (name: string): string => readFileSync(join(stateFolder, name), 'utf8');
  const [certificate, key] = [file('node.crt'), file('node.key')];
  const { renewal } = await r.status();
  t.true(Number(renewal?.dueMs) >= r.clock.now() + 0.45 * hourMs);
  t.true(Number(renewal?.dueMs) <= r.clock.now() + 0.8 * hourMs);

  let reads = 0;
  const enough = new AbortController();
  const reading = (async () => {
    for (; !enough.signal.aborted; reads++) {
      if ((await r.read('web/db')) !== 'hunter2') t.fail('another value');
      if ((await r.reader.pread(descriptor, 100, 0)) !== 'hunter2') t.fail('another value');
    }
  })();
  const isRenewed = (): boolean =>
    file('node.crt') !== certificate || existsSync(join(stateFolder, 'renewed.pem'));
  await eventually('it is renewed', async () => {
    if (!isRenewed()) await r.clock.jump(60_000);
    return isRenewed();
  });
  // In small steps: a connection takes its time, whatever this clock says.
  await eventually('it has worked', async () => {
    await r.clock.jump(200);
    return file('node.crt') !== certificate && !existsSync(join(stateFolder, 'renewed.pem'));
  });
  await eventually('a session', async () => (await r.status()).session?.state === 'connected');
  enough.abort();
  await reading;
  t.true(reads > 0);
  t.not(file('node.key'), key);
  const is = readCertificate(file('node.crt'));
  t.is(is.nodeId, readCertificate(certificate).nodeId);
  const after = await r.status();
  t.like(after, { arena: { values: 1 }, renewal: { onTrial: false, lastFailure: '', expired: '' } });
  t.is(Number(after.certificateExpiresMs), is.notAfterMs);
  t.is(r.manager.logged.filter(({ msg }) => msg === 'certificate renewed').length, 1);

  // Its words are believed under the new key.
  const revoked = await r.manager.operate('revokeSecret', { name: 'db' });
  t.truthy(revoked);
  await eventually('a receipt', async () =>
    r.manager.logged.some(({ msg, reason }) => msg === 'wiped, by receipt' && reason === 'revoked'),
  );
  await r.agent.stop();
  t.is(r.clock.pending, 0);
});

mounting(
  `once its certificate has expired it says what to do, tries nothing, and serves until the lease is over${why}`,
  async (t) => {
    const r = await running(t);
    await r.manager.createSecret('db', 'hunter2');
    await r.manager.createService('web', ['db']);
    await eventually('the secret is there', async () => (await r.read('web/db')) === 'hunter2');
    await r.manager.stop();
    await eventually('the session is lost', async () => (await r.status()).session?.state !== 'connected');
    r.clock.setWall(r.clock.now() + 91 * 24 * hourMs);
    await r.clock.advance(60_000);
    const status = await r.status();
    t.regex(status.renewal?.expired ?? '', /expired at .*fresh token.*inro agent join --token -/);
    t.like(status.session, { state: 'waiting' });
    t.regex(status.session?.lastError ?? '', /expired at/);
    t.is(healthOf(status).health, 'degraded');
    t.is(await r.read('web/db'), 'hunter2');
    await r.clock.jump(managerLimits.leaseMs);
    t.not(await r.reader.fails('openSync', join(r.mount, 'web/db')), 'ok');
    const { health, reasons } = healthOf(await r.status());
    t.is(health, 'unhealthy');
    t.regex(reasons.join(), /inro agent join --token -/);
  },
);
