/** A new certificate for a node that shows its present one: over TLS, against a manager that runs. */
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import tls from 'node:tls';
import test from 'ava';
import { pino } from 'pino';
import { askForRenewal } from '../../src/agent/renew.js';
import { identityOf, type Identity } from '../../src/agent/identity.js';
import { generateNodeKey, readPrivateKey, signBytes, spkiOf } from '../../src/crypto/signing.js';
import { enrolAgainStatement } from '../../src/crypto/statement.js';
import { Authorities } from '../../src/manager/authorities.js';
import { managerLimits } from '../../src/manager/limits.js';
import { OwnCertificate, ownIdentity } from '../../src/manager/own_certificate.js';
import { newId } from '../../src/model/id.js';
import { readCertificate } from '../../src/pki/certificate.js';
import { leafOf } from '../../src/pki/chain.js';
import { createCsr } from '../../src/pki/csr.js';
import { sealingNameOf } from '../../src/pki/sealing_name.js';
import { Enrollment, Renewal } from '../../src/proto/gen/inro/v1/enrollment_pb.js';
import { call } from '../../src/rpc/client.js';
import { fakeCluster, type FakeIdentity } from '../support/fake_authority.js';
import { FakeClock } from '../support/fake_clock.js';
import { realManager, type RealManager } from '../support/real_manager.js';
import { refusesAsync } from '../support/refuses.js';

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;

function identified(manager: RealManager, { certPem, keyPem }: FakeIdentity): Identity {
  const others = { rootPem: manager.rootPem, managers: [manager.running.address] };
  return identityOf({ certificatePem: certPem, keyPem }, others, manager.clock.now());
}

/** As an agent asks, which also checks the answer. */
async function renewed(manager: RealManager, identity: FakeIdentity): Promise<FakeIdentity> {
  const { address } = manager.running;
  const pair = await askForRenewal(identified(manager, identity), address, () => manager.clock.now());
  return { nodeId: identity.nodeId, certPem: pair.certificatePem, keyPem: pair.keyPem };
}

const ask = (manager: RealManager, identity: FakeIdentity | undefined, csrPem: string) =>
  call(manager.connect(identity), Renewal, 'renewCertificate', { csrPem });

const newRequest = (): string => createCsr(generateNodeKey().privateKey);

test('the names stay, the key is new, the node list and the log know it', async (t) => {
  const manager = await realManager(t);
  const before = await manager.joined();
  const after = await renewed(manager, before);
  const was = readCertificate(before.certPem);
  const is = readCertificate(after.certPem);
  t.is(is.nodeId, was.nodeId);
  t.is(is.clusterId, was.clusterId);
  t.is(is.role, 'worker');
  t.not(is.serial, was.serial);
  t.false(is.publicKey.equals(was.publicKey));
  t.is(is.notAfterMs, Math.floor((manager.clock.now() + 90 * dayMs) / 1000) * 1000);
  const [node] = (await manager.operate('listNodes', {})).nodes;
  t.is(Number(node?.certificateExpiresMs), is.notAfterMs);
  const line = manager.logged.find(({ msg }) => msg === 'certificate renewed');
  t.like(line, { node: before.nodeId, serial: is.serial, was: was.serial });
  t.false(JSON.stringify(manager.logged).includes('PRIVATE KEY'));

  // A session can be had with either: the old one is still in time.
  for (const identity of [before, after]) {
    const node = manager.attach(identity);
    await node.hello();
    t.not((await node.expect('welcome')).value, undefined);
    node.channel.close();
  }
});

test('the request contributes its key alone, and must prove it', async (t) => {
  const manager = await realManager(t);
  const node = await manager.joined();
  const sameKey = createCsr(readPrivateKey(node.keyPem));
  await refusesAsync(t, ask(manager, node, sameKey), 'bad_input', /for the key that it has/);
  const der = Buffer.from(newRequest().replace(/-----.*-----|\s/g, ''), 'base64');
  der[der.length - 1] = (der.at(-1) ?? 0) ^ 1;
  const forged = `-----BEGIN CERTIFICATE REQUEST-----\n${der.toString('base64').replace(/.{64}/g, '$&\n')}\n-----END CERTIFICATE REQUEST-----\n`;
  await refusesAsync(t, ask(manager, node, forged), 'bad_input', /not signed by its own key/);
  await refusesAsync(t, ask(manager, node, 'nonsense'), 'bad_input');
  t.is(
    (await ask(manager, node, newRequest())).certificatePem.length > 100,
    true,
    'failures count for nothing',
  );
});

test('only a node of this cluster is answered', async (t) => {
  const manager = await realManager(t);
  await refusesAsync(t, ask(manager, undefined, newRequest()), 'unauthenticated');
  await refusesAsync(
    t,
    ask(manager, manager.issue('manager'), newRequest()),
    'not_permitted',
    /manager cert/,
  );
  const gone = manager.issue('worker', newId(randomBytes)); // as one that was removed: the store has no such node
  await refusesAsync(
    t,
    ask(manager, gone, newRequest()),
    'not_permitted',
    /not one of this cluster any more/,
  );
  const other = await realManager(t);
  await refusesAsync(t, ask(manager, await other.joined(), newRequest()), 'unauthenticated');
});

test('a node waits a minute for the next one, and less when the last did not reach it', async (t) => {
  const manager = await realManager(t);
  const first = await manager.joined();
  const answers = await Promise.allSettled([1, 2, 3, 4].map(() => ask(manager, first, newRequest())));
  t.is(answers.filter(({ status }) => status === 'fulfilled').length, 1, 'at once: one');
  const error = await refusesAsync(t, renewed(manager, first), 'rate_limited');
  t.is(error.remedy, 'wait for 5 s');
  await manager.clock.advance(managerLimits.renewalRepeatMs);
  const second = await renewed(manager, first);

  await manager.clock.advance(managerLimits.renewalRepeatMs);
  const tooSoon = await refusesAsync(t, renewed(manager, second), 'rate_limited');
  t.is(tooSoon.remedy, 'wait for 55 s');
  manager.clock.setWall(manager.clock.now() + 30 * 60_000);
  await refusesAsync(t, renewed(manager, second), 'rate_limited');
  manager.clock.setWall(manager.clock.now() - 30 * 60_000);
  const another = await manager.joined();
  await t.notThrowsAsync(renewed(manager, another), 'each node has its own minute');
  await manager.clock.advance(managerLimits.renewalGapMs);
  await t.notThrowsAsync(renewed(manager, second));
});

test('a node that is being removed, or was, is given none', async (t) => {
  const manager = await realManager(t);
  const before = await manager.joined();
  const after = await renewed(manager, before);
  await manager.operate('removeNode', { name: before.nodeId, force: true });
  await manager.clock.advance(managerLimits.renewalGapMs);
  for (const identity of [before, after])
    await refusesAsync(
      t,
      ask(manager, identity, newRequest()),
      'not_permitted',
      /was removed from the cluster/,
    );
});

test('whatever was given and not taken up, the key that is in use proves the node when it enrols again', async (t) => {
  const manager = await realManager(t);
  const node = await manager.joined();
  for (let lost = 0; lost < 3; lost++) {
    await manager.clock.advance(managerLimits.renewalGapMs);
    await renewed(manager, node);
  }
  await manager.clock.advance(managerLimits.renewalGapMs);
  const unused = await renewed(manager, node);
  const { privateKey, publicKey } = generateNodeKey();
  const { clusterId, nodeId } = readCertificate(node.certPem);
  const statement = enrolAgainStatement({ clusterId, nodeId, publicKey: spkiOf(publicKey) });
  const answer = await call(manager.connect(), Enrollment, 'issueCertificate', {
    csrPem: createCsr(privateKey),
    token: await manager.running.joinToken(),
    former: { certificatePem: node.certPem, proof: signBytes(readPrivateKey(node.keyPem), statement) },
  });
  t.is(answer.nodeId, nodeId, answer.newIdBecause);
  // And neither the former key nor one that was given by a renewal is this node's any more.
  for (const identity of [node, unused])
    await refusesAsync(t, ask(manager, identity, newRequest()), 'not_permitted', /enrolled again/);
});

test('operators say for how long, and it outlives a restart', async (t) => {
  const manager = await realManager(t);
  const lifeOf = ({ certPem }: FakeIdentity, now: number): number =>
    Math.round((readCertificate(certPem).notAfterMs - now) / hourMs);
  const root = readCertificate(manager.rootPem);
  const before = await manager.operate('getCa', {});
  t.like(before, { rootFingerprint: root.fingerprint, rootExpiresMs: BigInt(root.notAfterMs) });
  t.is(Number(before.certificateLifetimeMs), 90 * dayMs);
  const { id } = await manager.operate('getCluster', {});
  t.is(before.clusterId, id);

  for (const [ms, words] of [
    [hourMs - 1, /shorter than 1 h/],
    [0, /shorter than 1 h/],
    [-hourMs, /shorter than 1 h/],
    [3650 * dayMs + 1, /longer than 3650 days/],
  ] as const)
    await refusesAsync(
      t,
      manager.operate('updateCa', { certificateLifetimeMs: BigInt(ms) }),
      'bad_input',
      words,
    );
  await manager.operate('updateCa', { certificateLifetimeMs: BigInt(12 * hourMs) });
  await manager.operate('updateCa', {});
  const node = await manager.joined();
  t.is(lifeOf(node, manager.clock.now()), 12);
  t.is(lifeOf(await renewed(manager, node), manager.clock.now()), 12);

  const again = await manager.restarted(async () => undefined);
  t.is(Number((await again.operate('getCa', {})).certificateLifetimeMs), 12 * hourMs);
  t.is(lifeOf(await again.joined(), again.clock.now()), 12);
});

/** The certificate that a connection begun now is shown, checked against the root. */
async function shownLeaf(manager: RealManager): Promise<string> {
  const [host = '', port = ''] = manager.running.address.split(':');
  return new Promise((resolve, reject) => {
    const socket = tls.connect({
      host,
      port: Number(port),
      ca: manager.rootPem,
      servername: 'inro-manager',
      ALPNProtocols: ['h2'],
    });
    socket.once('secureConnect', () => {
      resolve(socket.getPeerX509Certificate()?.serialNumber.toLowerCase() ?? '');
      socket.destroy();
    });
    socket.once('error', reject);
  });
}

test('its own certificate and key are renewed while it runs, and no stream notices', async (t) => {
  const first = await realManager(t);
  await first.operate('updateCa', { certificateLifetimeMs: BigInt(hourMs) });
  const node = await first.joined();
  // Without its key it makes itself another certificate, of the life that is chosen now.
  const manager = await first.restarted(async (folder) => rmSync(join(folder, 'manager.key')));
  const file = (name: string): string => readFileSync(join(manager.folder, name), 'utf8');
  const [before, key] = [readCertificate(file('manager.crt')), file('manager.key')];
  t.is(await shownLeaf(manager), before.serial);
  const stream = manager.attach(node);
  await stream.hello();
  await stream.expect('welcome');
  const connection = manager.connect(node);
  await call(connection, Renewal, 'renewCertificate', { csrPem: newRequest() });

  await manager.clock.advance(hourMs / 2 - managerLimits.ownRenewalCheckMs);
  t.is(readCertificate(file('manager.crt')).serial, before.serial, 'not before half of its life');
  await manager.clock.advance(0.3 * hourMs + 2 * managerLimits.ownRenewalCheckMs);
  const after = readCertificate(file('manager.crt'));
  t.not(after.serial, before.serial, 'before 80 % of it, and a look');
  t.not(file('manager.key'), key);
  t.is(after.nodeId, before.nodeId);
  t.is(await shownLeaf(manager), after.serial);
  const line = manager.logged.find(({ msg }) => msg === "the manager's certificate was renewed");
  t.like(line, { serial: after.serial });

  const beat = { case: 'heartbeat', value: { sequence: 7 } } as const;
  await stream.channel.send({ message: beat });
  for (let next = await stream.next(); next?.case !== 'heartbeatAck'; next = await stream.next())
    t.not(next, undefined, 'the stream that was open lives on');
  const { certificatePem } = await call(connection, Renewal, 'renewCertificate', { csrPem: newRequest() });
  t.is(readCertificate(certificatePem).nodeId, node.nodeId, 'and so does the connection');
  await t.notThrowsAsync(manager.joined(), 'others find a manager that they believe');
});

test('over years its certificate never lapses, whatever the disk does meanwhile', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'inro-own-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const clock = new FakeClock();
  const cluster = fakeCluster({ now: clock.now() });
  const authority = new Authorities([Authorities.first(cluster.rootPem, clock.now())], cluster.rootKeyPem, {
    clusterId: cluster.clusterId,
    clock,
    random: randomBytes,
  });
  const sealingName = sealingNameOf(cluster.clusterId, randomBytes(32));
  const parts = { folder, authority, sealingName, clock, random: randomBytes };
  const own = await ownIdentity({ ...parts, lifetimeMs: 90 * dayMs });
  t.is(leafOf(own.certificatePem).sealingName, sealingName);
  const shown = [own];
  const over = new AbortController();
  const logged: string[] = [];
  const log = pino({ level: 'info' }, { write: (text: string) => void logged.push(text) });
  const keeping = new OwnCertificate({
    ...parts,
    lifetimeMs: async () => 90 * dayMs,
    certificatePem: own.certificatePem,
    show: (next) => void shown.push(next),
    log,
  }).keep(over.signal);
  const valid = () => readCertificate(shown.at(-1)?.certificatePem ?? '').notAfterMs > clock.now();
  for (let day = 0; day < 5 * 365; day++) {
    await clock.jump(dayMs);
    await clock.advance(managerLimits.ownRenewalCheckMs);
    if (!valid()) t.fail(`day ${day}`);
  }
  const least = (5 * 365) / (90 * 0.8 + 1);
  t.true(shown.length - 1 >= Math.floor(least) && shown.length - 1 <= (5 * 365) / 45, `${shown.length}`);
  t.is(new Set(shown.map(({ keyPem }) => keyPem)).size, shown.length, 'a new key each time');

  // The folder is gone for the time of a renewal.
  const count = shown.length;
  rmSync(folder, { recursive: true });
  await clock.jump(80 * dayMs);
  await clock.advance(3 * managerLimits.ownRenewalCheckMs);
  t.is(shown.length, count, 'what is not on disk is not used');
  t.true(logged.some((text) => /could not be renewed/.test(text)));
  mkdirSync(folder, { mode: 0o700 });
  await clock.advance(2 * managerLimits.ownRenewalCheckMs);
  t.is(shown.length, count + 1);
  t.true(valid());
  over.abort();
  await keeping;
  t.is(clock.pending, 0);
});
