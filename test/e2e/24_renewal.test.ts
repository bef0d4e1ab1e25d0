/** Certificates that end soon, on real hosts: renewed under readers, over takeovers and kills; and what an end says. */
import { randomBytes } from 'node:crypto';
import { Host, type Manager } from '../support/host.js';
import { eventually, refused } from '../support/inro.js';
import { KeptAgent } from '../support/kept_agent.js';
import { labScenario } from '../support/lab.js';
import { allRead, readSteadily } from '../support/steady_reader.js';
import { readPrivateKey } from '../../src/crypto/signing.js';
import { openAuthority } from '../../src/pki/authority.js';
import { readCertificate, type Certificate } from '../../src/pki/certificate.js';
import { createCsr } from '../../src/pki/csr.js';

const file = '/run/inro/secrets/web/key';
const state = '/var/lib/inro/agent';

interface Status {
  certificateExpiresAt: string;
  session: { state: string; lastError: string };
  renewal: { dueAt: string | null; lastFailure: string; onTrial: boolean; expired: string };
}

/** The node has a certificate for its key that ends in so many ms, as its CA would have issued it. */
async function endsIn(host: Host, lifetimeMs: number): Promise<Certificate> {
  const ca = '/var/lib/inro/manager';
  const [root, caKey, certificate, key] = await Promise.all(
    [`${ca}/ca.crt`, `${ca}/ca.key`, `${state}/node.crt`, `${state}/node.key`].map((path) => host.read(path)),
  );
  const clock = { now: () => Date.now() };
  const { nodeId, clusterId } = readCertificate(certificate as string);
  const surroundings = { clusterId, clock, random: randomBytes };
  const authority = openAuthority(root as string, caKey as string, surroundings);
  const csr = createCsr(readPrivateKey(key as string));
  const issued = authority.issueNode({ csr, nodeId, role: 'worker', lifetimeMs });
  await host.run(['sh', '-c', `cat > ${state}/node.crt`], { stdin: issued.pem });
  return issued;
}

async function joined(host: Host): Promise<Manager> {
  const manager = await host.startManager();
  await host.join(await host.ask(['token', 'show', 'worker']), manager.address);
  return manager;
}

async function give(host: Host, value: string): Promise<void> {
  await host.ask(['secret', 'create', 'key', '-'], { stdin: value });
  await host.ask(['service', 'create', '--name', 'web', '--secret', 'key']);
}

const present = async (host: Host): Promise<Certificate> =>
  readCertificate(await host.read(`${state}/node.crt`));
const status = (host: Host): Promise<Status> => host.json<Status>(['agent', 'status']);
const works = /"the renewed certificate works/;

labScenario(
  '1: renewed under readers, and killed afterwards: no read fails, the next start has the new one',
  async (t) => {
    const host = await Host.of(t);
    const manager = await joined(host);
    const old = await endsIn(host, 60_000);
    const oldKey = await host.read(`${state}/node.key`);
    const agent = await KeptAgent.start(host);
    await give(host, 'hunter2');
    const readers = await readSteadily(host, file, ['hunter2']);
    await eventually('it is renewed', async () => works.test(agent.log), 90_000);
    const renewed = await present(host);
    t.not(renewed.serial, old.serial);
    t.is(renewed.nodeId, old.nodeId);
    t.not(await host.read(`${state}/node.key`), oldKey);
    t.is((await host.sh(`ls ${state}`)).stdout.includes('renewed.pem'), false);
    await agent.killAndWait();
    await eventually('a session', async () => (await status(host)).session.state === 'connected');
    allRead(t, await readers(), 'renewed and killed');
    const now = await status(host);
    t.is(now.certificateExpiresAt, new Date(renewed.notAfterMs).toISOString());
    t.like(now.renewal, { lastFailure: '', onTrial: false, expired: '' });
    await host.ask(['secret', 'update', 'key', '-'], { stdin: 'hunter3' });
    t.is(await host.read(file), 'hunter3');
    t.regex(manager.daemon.stderr, /"certificate renewed"/);
    await agent.end();
  },
  { timeoutMs: 300_000 },
);

labScenario(
  '2: an agent that has taken over renews, and the one after it goes on with that',
  async (t) => {
    const host = await Host.of(t);
    await joined(host);
    const old = await endsIn(host, 90_000);
    const first = await host.startAgent();
    await give(host, 'hunter2');
    const readers = await readSteadily(host, file, ['hunter2']);
    const second = host.start(['agent', 'run', '--takeover']);
    await second.printed(/"agent is ready"/);
    t.is(await first.exited, 0, first.stderr);
    await eventually('it is renewed', async () => works.test(first.stderr + second.stderr), 120_000);
    const renewed = await present(host);
    t.not(renewed.serial, old.serial);
    const third = host.start(['agent', 'run', '--takeover']);
    await third.printed(/"session with the manager"/);
    allRead(t, await readers(), 'taken over and renewed');
    t.is((await status(host)).certificateExpiresAt, new Date(renewed.notAfterMs).toISOString());
    t.is(await third.stop(), 0);
  },
  { timeoutMs: 300_000 },
);

labScenario(
  '3: without a manager it ends, and says what to do wherever one looks',
  async (t) => {
    const host = await Host.of(t);
    const manager = await joined(host);
    await endsIn(host, 60_000);
    await manager.kill9();
    const agent = await host.startAgent({ connected: false });
    await eventually(
      'it has tried in vain',
      async () => /"the certificate could not be renewed; trying again"/.test(agent.stderr),
      90_000,
    );
    t.regex((await status(host)).renewal.lastFailure, /does not answer/);
    await eventually('it has ended', async () => (await status(host)).renewal.expired !== '', 90_000);
    const advice = /expired at .*fresh token.*inro agent join --token - --manager HOST:PORT/s;
    await agent.printed(/"the certificate has expired"/);
    t.regex(agent.stderr, /inro agent join --token - --manager HOST:PORT/);
    const shown = await host.ask(['agent', 'status']);
    t.regex(shown, /Certificate: +EXPIRED /);
    t.regex(shown, advice);
    const health = await host.inro(['agent', 'health']);
    t.is(health.code, 1);
    t.regex(health.stderr, advice);
    const doctor = await host.inro(['doctor']);
    t.regex(doctor.stdout, /fail +certificate .*expired at/);
    t.regex(doctor.stdout, advice);

    await host.startManager({ listen: manager.address });
    t.is(await agent.stop(), 0);
    t.notRegex(agent.stderr, /"session with the manager"/);
    refused(t, await host.inro(['agent', 'run']), 1, advice);
  },
  { timeoutMs: 300_000 },
);
