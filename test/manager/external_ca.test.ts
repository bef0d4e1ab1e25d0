/** A cluster whose CA signs elsewhere, over real TLS: what is asked of it, what of its answers is taken, and what happens without it. */
import { randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { pino } from 'pino';
import { loadIdentity } from '../../src/agent/identity.js';
import { joinCluster } from '../../src/agent/join.js';
import { askForRenewal } from '../../src/agent/renew.js';
import { generateNodeKey } from '../../src/crypto/signing.js';
import { managerLimits } from '../../src/manager/limits.js';
import { startManager } from '../../src/manager/manager.js';
import { ownIdentity } from '../../src/manager/own_certificate.js';
import { Authorities } from '../../src/manager/authorities.js';
import { InroError } from '../../src/model/error.js';
import { newId } from '../../src/model/id.js';
import type { Certificate } from '../../src/pki/certificate.js';
import type { SigningRequest } from '../../src/pki/external.js';
import { sealingNameOf } from '../../src/pki/sealing_name.js';
import { fakeCluster } from '../support/fake_authority.js';
import { parseExternalCa } from '../../src/model/external_ca.js';
import { createCsr } from '../../src/pki/csr.js';
import { parseJoinToken } from '../../src/pki/join_token.js';
import { Control } from '../../src/proto/gen/inro/v1/control_pb.js';
import { call } from '../../src/rpc/client.js';
import { findOpenssl } from '../pki/openssl.js';
import { fakeCfssl, type FakeCfssl, type Misbehaviour } from '../support/fake_cfssl.js';
import { FakeClock } from '../support/fake_clock.js';
import { opensslCa, opensslIntermediate, type OpensslCa } from '../support/openssl_ca.js';
import { realManager, type RealManager } from '../support/real_manager.js';
import { refusesAsync } from '../support/refuses.js';

const withOpenssl = findOpenssl() === undefined ? test.skip : test;
const dayMs = 86_400_000;

function folderOf(t: ExecutionContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'inro-external-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

function given(folder: string, { certPem }: OpensslCa, ...servers: FakeCfssl[]) {
  const cacert = join(folder, 'theirs.pem');
  writeFileSync(cacert, certPem);
  return {
    external: servers.map(({ url }) => parseExternalCa(`protocol=cfssl,url=${url},cacert=${cacert}`)),
  };
}

async function cluster(t: ExecutionContext, { servers = 1 } = {}) {
  const { intermediate: ca } = opensslIntermediate(t);
  const cfssls = [];
  for (let n = 0; n < servers; n++) cfssls.push(await fakeCfssl(t, ca));
  const manager = await realManager(t, undefined, given(folderOf(t), ca, ...cfssls), ca.keyPem);
  return { ca, cfssls, cfssl: cfssls[0] as FakeCfssl, manager };
}

async function joined(t: ExecutionContext, { running, clock }: RealManager) {
  const token = parseJoinToken(await running.joinToken());
  const stateFolder = join(folderOf(t), 'agent');
  await joinCluster({ token, manager: running.address, stateFolder, clock });
  return loadIdentity(stateFolder, clock.now());
}

async function operator(manager: RealManager, ttlMs: number) {
  const { privateKey, privatePem: keyPem } = generateNodeKey();
  const request = { role: 'admin', grants: [], ttlMs: BigInt(ttlMs), csrPem: createCsr(privateKey) };
  const answer = await manager.operate('createOperator', { name: `o${newId(randomBytes)}`, ...request });
  return { ...answer, identity: { nodeId: '', certPem: answer.certificatePem, keyPem } };
}

withOpenssl('it signs for managers, hosts and operators, and its key is nowhere here', async (t) => {
  const { ca, cfssl, manager } = await cluster(t);
  t.false(existsSync(join(manager.folder, 'ca.key')));
  t.deepEqual(
    cfssl.asked.map(({ profile }) => profile),
    ['inro-worker', 'inro-manager', 'inro-operator', 'inro-manager'],
    'one of each kind is tried before the cluster is founded',
  );
  const identity = await joined(t, manager);
  const asked = cfssl.asked.at(-1);
  t.is(asked?.profile, 'inro-worker');
  t.deepEqual(asked?.hosts, ['inro-worker', identity.nodeId]);
  t.deepEqual(asked?.subject, {
    CN: identity.nodeId,
    names: [{ O: manager.running.clusterId, OU: 'worker' }],
  });
  const pair = await askForRenewal(identity, manager.running.address, () => manager.clock.now());
  const { nodeId } = identity;
  const node = manager.attach({ nodeId, certPem: pair.certificatePem, keyPem: pair.keyPem });
  t.truthy(await node.begin());

  const { identity: alice } = await operator(manager, dayMs);
  t.is((await call(manager.connect(alice), Control, 'listNodes', {})).nodes.length, 1);
  const { operator: shown } = await call(manager.connect(alice), Control, 'renewOperator', {
    csrPem: createCsr(generateNodeKey().privateKey),
  });
  t.is(shown?.status, 'valid');

  const { external, certificateLifetimeMs, rootPem } = await manager.operate('getCa', {});
  t.like(external, [{ url: `${cfssl.url}/api/v1/cfssl/sign`, lastError: '' }]);
  t.is(certificateLifetimeMs, 0n, 'it decides that itself');
  t.true(ca.certPem.includes(rootPem.trim()));
  await manager.createSecret('key', 'its sealing key is vouched for, too');
});

withOpenssl('of several URLs one is enough, and the one that works is asked first', async (t) => {
  const { cfssls, manager } = await cluster(t, { servers: 3 });
  const [first, second, third] = cfssls as [FakeCfssl, FakeCfssl, FakeCfssl];
  await first.stop();
  second.behave = { answer: () => ({ status: 502, text: 'gone' }) };
  await joined(t, manager);
  const urls = () => manager.operate('getCa', {}).then(({ external }) => external);
  t.deepEqual(
    (await urls()).map(({ lastError }) => lastError.replace(/:\d+/, '')),
    ['connect ECONNREFUSED 127.0.0.1', 'answers HTTP 502', ''],
  );
  const count = second.asked.length;
  await joined(t, manager);
  t.is(second.asked.length, count, 'not asked any more');
  await first.start();
  await third.stop();
  await joined(t, manager);
  t.is((await urls())[0]?.lastError, '');
});

withOpenssl(
  'when none signs: who asks is told so, nothing is written, and no use of a token is lost',
  async (t) => {
    const { cfssl, manager } = await cluster(t);
    const identity = await joined(t, manager);
    const { token } = await manager.operate('createJoinToken', {
      role: 'worker',
      uses: 1,
      ttlMs: BigInt(dayMs),
      requireApproval: false,
      nodeLabels: {},
    });
    await cfssl.stop();
    const join1 = () =>
      joinCluster({
        token: parseJoinToken(token),
        manager: manager.running.address,
        stateFolder: join(state, 'agent'),
        clock: manager.clock,
      });
    const state = folderOf(t);
    const error = await refusesAsync(
      t,
      join1(),
      'unreachable',
      /the external CA signs nothing: https:.*ECONNREFUSED/,
    );
    t.regex(error.remedy ?? '', /docs\/external-ca\.md/);
    t.is((await manager.operate('listNodes', {})).nodes.length, 1);
    t.like((await manager.operate('listJoinTokens', {})).tokens[0], { usesLeft: 1 });
    const renew = askForRenewal(identity, manager.running.address, () => manager.clock.now());
    await refusesAsync(t, renew, 'unreachable', /signs nothing/);
    await refusesAsync(t, operator(manager, dayMs), 'unreachable', /signs nothing/);
    t.is((await manager.operate('listOperators', {})).operators.length, 0);

    const later = await manager.restarted(async () => undefined);
    t.is((await later.operate('listNodes', {})).nodes.length, 1, 'a manager starts with its own certificate');

    await cfssl.start();
    await joinCluster({
      token: parseJoinToken(token),
      manager: later.running.address,
      stateFolder: join(state, 'agent'),
      clock: later.clock,
    });
    t.is((await later.operate('listNodes', {})).nodes.length, 2);
  },
);

const huge = 'x'.repeat(managerLimits.maxExternalCaAnswerBytes + 1);
const wrong: Record<string, { behave: (t: ExecutionContext, ca: OpensslCa) => Misbehaviour; words: RegExp }> =
  {
    'refuses it': {
      behave: () => ({
        answer: () => ({
          status: 400,
          text: JSON.stringify({
            success: false,
            result: null,
            errors: [{ code: 5100, message: 'Invalid policy' }],
          }),
        }),
      }),
      words: /refuses: Invalid policy/,
    },
    'answers something that is not JSON': {
      behave: () => ({ answer: () => ({ status: 200, text: '<html>' }) }),
      words: /what is not JSON/,
    },
    'answers some other JSON': {
      behave: () => ({ answer: () => ({ status: 200, text: '{"success":"yes"}' }) }),
      words: /what is not an answer of cfssl/,
    },
    'answers without a certificate': {
      behave: () => ({
        answer: () => ({ status: 200, text: '{"success":true,"result":{"certificate":"x"}}' }),
      }),
      words: /not one PEM certificate/,
    },
    'answers without an end': {
      behave: () => ({ answer: () => ({ status: 200, text: huge }) }),
      words: /answers with more than 65536 bytes/,
    },
    'is no cfssl': {
      behave: () => ({ answer: () => ({ status: 404, text: 'no' }) }),
      words: /answers HTTP 404/,
    },
    'does not answer': { behave: () => ({ hangs: true }), words: /no answer within 5 s/ },
    'signs with another CA': {
      behave: (t) => ({ by: opensslCa(t, { name: '/O=Example Corp/CN=Example Root' }) }),
      words: /is not signed by/,
    },
    'signs for another role': {
      behave: () => ({
        change: (asked) => ({
          ...asked,
          subject: { ...asked.subject, names: [{ O: asked.subject.names[0]?.O ?? '', OU: 'operator' }] },
        }),
      }),
      words: /is for an operator, not for a worker.*needs a profile inro-worker with the usages/,
    },
    'signs for another node': {
      behave: () => ({
        change: (asked) => ({ ...asked, subject: { ...asked.subject, CN: newId(randomBytes) } }),
      }),
      words: /is for node/,
    },
    'signs for another cluster': {
      behave: () => ({
        change: (asked) => ({
          ...asked,
          subject: {
            ...asked.subject,
            names: [{ O: newId(randomBytes), OU: asked.subject.names[0]?.OU ?? '' }],
          },
        }),
      }),
      words: /is of cluster .*, not of cluster/,
    },
    'signs another key': {
      behave: () => ({
        change: (asked) => ({ ...asked, certificate_request: createCsr(generateNodeKey().privateKey) }),
      }),
      words: /is for another key/,
    },
    'signs for ten minutes': {
      behave: () => ({ lifetimeMs: 600_000 }),
      words: /it lasts (10 min|9 min 5\d s), and less than 30 min is not enough/,
    },
  };
for (const [name, { behave, words }] of Object.entries(wrong)) {
  withOpenssl(
    `no cluster is founded with an external CA that ${name}, and the next try is a first one`,
    async (t) => {
      const { intermediate: ca } = opensslIntermediate(t);
      const cfssl = await fakeCfssl(t, ca);
      cfssl.behave = behave(t, ca);
      const stateFolder = join(folderOf(t), 'state');
      const start = () =>
        startManager({
          stateFolder,
          listen: '127.0.0.1:0',
          socketPath: join(folderOf(t), 'manager.sock'),
          ca: given(folderOf(t), ca, cfssl),
          clock: new FakeClock(Date.now()),
          random: randomBytes,
          log: pino({ level: 'silent' }),
        });
      await refusesAsync(t, start(), 'unreachable', words);
      t.false(existsSync(join(stateFolder, 'ca.crt')));
      t.false(existsSync(join(stateFolder, 'manager.crt')));
      // A lock lives as long as its process.
      rmSync(stateFolder, { recursive: true });
      cfssl.behave = {};
      const manager = await start();
      await manager.stop();
    },
  );
}

withOpenssl(
  'its TLS: by the root of the CA, or by another one; and what it wants to be shown is shown',
  async (t) => {
    const { intermediate: ca } = opensslIntermediate(t);
    const [theirs, clients] = [opensslCa(t, { name: '/CN=Web CA' }), opensslCa(t, { name: '/CN=Clients' })];
    const folder = folderOf(t);
    const file = (name: string, text: string) => {
      writeFileSync(join(folder, name), text);
      return join(folder, name);
    };
    const shown = opensslCa(t, {
      name: '/CN=manager',
      by: clients,
      extensions: [
        'basicConstraints=critical,CA:FALSE',
        'keyUsage=critical,digitalSignature',
        'extendedKeyUsage=clientAuth',
      ],
    });
    const cacert = file('theirs.pem', ca.certPem);
    // It signs with the CA, and its own certificate is of another one.
    const cfssl = await fakeCfssl(t, theirs, { wantsClient: clients.certPem });
    cfssl.behave = { by: ca };
    const start = (rest: string) =>
      realManager(
        t,
        undefined,
        { external: [parseExternalCa(`protocol=cfssl,url=${cfssl.url},cacert=${cacert}${rest}`)] },
        ca.keyPem,
      );
    await refusesAsync(t, start(''), 'unreachable', /tlscacert=FILE names who signed it/);
    const trusted = `,tlscacert=${file('web.pem', theirs.certPem)}`;
    await refusesAsync(
      t,
      start(trusted),
      'unreachable',
      /cert=FILE,key=FILE is what this manager shows|socket hang up|ECONNRESET/,
    );
    const pair = `,cert=${file('m.crt', shown.certPem)},key=${file('m.key', shown.keyPem)}`;
    const manager = await start(trusted + pair);
    t.truthy(await joined(t, manager));
    await refusesAsync(
      t,
      start(`${trusted},cert=/nowhere,key=/nowhere`),
      'bad_input',
      /\/nowhere cannot be read/,
    );
  },
);

withOpenssl('an operator is one for as long as was said, whatever the CA signs', async (t) => {
  const { manager } = await cluster(t);
  const { operator: shown, identity } = await operator(manager, 3_600_000);
  t.is(Number(shown?.expiresMs), manager.clock.now() + 3_600_000);
  const connection = manager.connect(identity);
  t.truthy(await call(connection, Control, 'listNodes', {}));
  manager.clock.setWall(manager.clock.now() + 3_600_001);
  await refusesAsync(t, call(connection, Control, 'listNodes', {}), 'bad_certificate', /expired at/);
});

withOpenssl('what an external CA decides is not decided here', async (t) => {
  const { manager } = await cluster(t);
  const update = manager.operate('updateCa', { certificateLifetimeMs: BigInt(dayMs) });
  const error = await refusesAsync(t, update, 'not_supported', /decides how long/);
  t.regex(error.remedy ?? '', /inro-worker, inro-manager, inro-operator/);
  const rotate = manager.operate('rotateCa', { deadlineMs: BigInt(dayMs) });
  await refusesAsync(t, rotate, 'not_supported', /vouches for no other root/);
});

withOpenssl('a cluster keeps the CA that it was founded with', async (t) => {
  const { intermediate: ca } = opensslIntermediate(t);
  const cfssl = await fakeCfssl(t, ca);
  const manager = await realManager(t, undefined, given(folderOf(t), ca, cfssl), ca.keyPem);
  await manager.stop();
  const again = (external?: ReturnType<typeof given>) => realManager(t, manager.folder, external, ca.keyPem);
  await refusesAsync(t, again(), 'bad_input', /has an external CA, and it is not said where it is/);
  const other = given(folderOf(t), opensslIntermediate(t).intermediate, cfssl);
  await refusesAsync(t, again(other), 'bad_input', /is not the CA that cluster .* was founded with/);
  const nameless = { external: [parseExternalCa(`protocol=cfssl,url=${cfssl.url}`)] };
  await t.notThrowsAsync(again(nameless), 'the CA need not be named again');

  const own = await realManager(t);
  await own.stop();
  const change = realManager(t, own.folder, given(folderOf(t), ca, cfssl));
  await refusesAsync(t, change, 'bad_input', /has a CA of its own, not an external one/);
  const unnamed = realManager(t, undefined, nameless, ca.keyPem);
  await refusesAsync(t, unnamed, 'bad_input', /not said which CA signs/);
  const two = given(folderOf(t), ca, cfssl);
  const both = { external: [...two.external, ...other.external] };
  await refusesAsync(t, realManager(t, undefined, both, ca.keyPem), 'bad_input', /is another CA than/);
});

withOpenssl("a manager's certificate is renewed when the CA is back", async (t) => {
  const { cfssl, manager } = await cluster(t);
  await cfssl.stop();
  const serial = async () => (await manager.operate('getCa', {})).external[0];
  manager.clock.setWall(manager.clock.now() + 80 * dayMs);
  await manager.clock.advance(managerLimits.ownRenewalCheckMs);
  t.regex((await serial())?.lastError ?? '', /ECONNREFUSED/);
  const said = (words: RegExp) => manager.logged.some(({ msg }) => words.test(String(msg)));
  t.true(said(/could not be renewed; trying again/));
  await cfssl.start();
  await manager.clock.advance(managerLimits.ownRenewalCheckMs);
  for (let tries = 0; !said(/certificate was renewed/) && tries < 200; tries++)
    await new Promise((resolve) => setTimeout(resolve, 20));
  t.true(said(/certificate was renewed/));
  t.is((await serial())?.lastError, '');
});

test('without it a manager starts with the certificate that it has, while that is good', async (t) => {
  const folder = folderOf(t);
  const clock = new FakeClock();
  const fake = fakeCluster({ now: clock.now() });
  const sealingName = sealingNameOf(fake.clusterId, randomBytes(32));
  const records = [Authorities.first(fake.rootPem, clock.now(), true)];
  let isThere = true;
  const ask = async ({ csrPem, subject: { CN: nodeId } }: SigningRequest): Promise<Certificate> => {
    if (!isThere) throw new InroError('unreachable', 'nobody');
    return fake.authority.issueNode({ csr: csrPem, nodeId, role: 'manager', sealingName });
  };
  const authority = new Authorities(records, ask, { clusterId: fake.clusterId, clock, random: randomBytes });
  const parts = { folder, authority, lifetimeMs: 90 * dayMs, sealingName, clock, random: randomBytes };
  const own = await ownIdentity(parts);
  isThere = false;
  await clock.jump(80 * dayMs);
  t.deepEqual(await ownIdentity(parts), own);
  const otherKey = { ...parts, sealingName: sealingNameOf(fake.clusterId, randomBytes(32)) };
  await refusesAsync(t, ownIdentity(otherKey), 'unreachable');
  await clock.jump(11 * dayMs);
  await refusesAsync(t, ownIdentity(parts), 'unreachable');
});
