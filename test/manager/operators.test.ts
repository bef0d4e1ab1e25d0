/** Operators against a real manager over real TLS: who may call what, grants, revocation, expiry, renewal, and the log. */
import { randomBytes } from 'node:crypto';
import test from 'ava';
import { pino } from 'pino';
import { generateNodeKey } from '../../src/crypto/signing.js';
import { guarded, type GuardParts } from '../../src/manager/control_guard.js';
import { managerLimits } from '../../src/manager/limits.js';
import { ClusterView } from '../../src/manager/view.js';
import { InroError } from '../../src/model/error.js';
import { newId } from '../../src/model/id.js';
import type { OperatorRole } from '../../src/model/operator.js';
import { createCsr } from '../../src/pki/csr.js';
import { verifyNodeCertificate } from '../../src/pki/verify.js';
import { controlRights } from '../../src/proto/control_rights.js';
import { Control, type IssuedOperator } from '../../src/proto/gen/inro/v1/control_pb.js';
import { Enrollment, Renewal } from '../../src/proto/gen/inro/v1/enrollment_pb.js';
import { call, type Connection } from '../../src/rpc/client.js';
import type { InputInit, Output } from '../../src/rpc/definition.js';
import { fakeCluster, type FakeIdentity } from '../support/fake_authority.js';
import { FakeClock } from '../support/fake_clock.js';
import { FakeNode } from '../support/fake_node.js';
import { fakeStore } from '../support/fake_store.js';
import { realManager, type RealManager } from '../support/real_manager.js';
import { refuses, refusesAsync } from '../support/refuses.js';

type Methods = (typeof Control)['method'];
type Name = keyof Methods;

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;

interface Operator {
  identity: FakeIdentity;
  connection: Connection;
  call<K extends Name>(name: K, request: InputInit<Methods[K]>): Promise<Output<Methods[K]>>;
}

function request(): { csrPem: string; keyPem: string } {
  const { privateKey, privatePem } = generateNodeKey();
  return { csrPem: createCsr(privateKey), keyPem: privatePem };
}

function as(m: RealManager, identity: FakeIdentity): Operator {
  const connection = m.connect(identity);
  return { identity, connection, call: (name, message) => call(connection, Control, name, message) };
}

function identityOf({ operator, certificatePem }: IssuedOperator, keyPem: string): FakeIdentity {
  return { nodeId: operator?.id ?? '', certPem: certificatePem, keyPem };
}

async function operator(
  m: RealManager,
  name: string,
  role: OperatorRole,
  grants: string[] = [],
  ttlMs = 90 * dayMs,
): Promise<Operator> {
  const { csrPem, keyPem } = request();
  const issued = await m.operate('createOperator', { name, role, grants, ttlMs: BigInt(ttlMs), csrPem });
  return as(m, identityOf(issued, keyPem));
}

const reference = (secretName: string) => ({
  secretName,
  target: secretName,
  uid: '0',
  gid: '0',
  mode: 0o444,
});

const id = newId(randomBytes);
/** One for each call: with who may make it. A call that is missing here fails the test below. */
const calls: { [K in Name]: [who: string, request: () => InputInit<Methods[K]>] } = {
  getCluster: ['admin deployer auditor', () => ({})],
  getStatus: ['admin auditor', () => ({})],
  getDataKey: ['admin auditor', () => ({})],
  rotateDataKey: ['admin', () => ({})],
  listManagers: ['admin auditor', () => ({})],
  noteLockCall: ['admin', () => ({ call: 'getUnlockKey', outcome: 'done' })],
  removeManager: ['admin', () => ({ name: 'none' })],
  listAudit: ['admin auditor', () => ({})],
  listEvents: ['admin auditor', () => ({})],
  listReceipts: ['admin auditor', () => ({})],
  apply: ['admin deployer', () => ({})],
  getJoinToken: ['admin', () => ({ role: 'worker' })],
  rotateJoinToken: ['admin', () => ({ role: 'worker' })],
  createJoinToken: ['admin', () => ({ role: 'worker', ttlMs: 60_000n, uses: 1 })],
  listJoinTokens: ['admin auditor', () => ({})],
  revokeJoinToken: ['admin', () => ({ name: 'none' })],
  getCa: ['admin auditor', () => ({})],
  updateCa: ['admin', () => ({})],
  rotateCa: ['admin', () => ({ deadlineMs: 1n })],
  createOperator: [
    'admin',
    () => ({ name: `x${newId(randomBytes)}`, role: 'auditor', ttlMs: BigInt(dayMs), ...request() }),
  ],
  getOperator: ['admin auditor', () => ({ name: 'none' })],
  listOperators: ['admin auditor', () => ({})],
  updateOperator: ['admin', () => ({ name: 'none' })],
  revokeOperator: ['admin', () => ({ name: 'none' })],
  removeOperator: ['admin', () => ({ name: 'none' })],
  renewOperator: ['admin deployer auditor', () => ({ csrPem: 'none' })],
  createSecret: ['admin', () => ({ id, name: 'granted_new' })],
  updateSecret: ['admin', () => ({ id, version: 1 })],
  removeSecret: ['admin', () => ({ name: 'granted_none' })],
  revokeSecret: ['admin', () => ({ name: 'granted_none' })],
  endStage: ['admin', () => ({ name: 'none' })],
  rollbackSecret: ['admin', () => ({ name: 'none' })],
  pruneSecret: ['admin', () => ({ name: 'none', keep: 1 })],
  getSecret: ['admin deployer auditor', () => ({ name: 'granted_none' })],
  listSecrets: ['admin deployer auditor', () => ({})],
  getSecretReads: ['admin deployer auditor', () => ({ name: 'granted_none' })],
  createService: ['admin deployer', () => ({ name: `s${newId(randomBytes)}` })],
  updateService: ['admin deployer', () => ({ name: 'none' })],
  removeService: ['admin deployer', () => ({ name: 'none' })],
  getService: ['admin deployer auditor', () => ({ name: 'none' })],
  listServices: ['admin deployer auditor', () => ({})],
  listTasks: ['admin deployer auditor', () => ({ name: 'none' })],
  getNode: ['admin auditor', () => ({ name: 'none' })],
  listNodes: ['admin auditor', () => ({})],
  approveNode: ['admin', () => ({ name: 'none' })],
  rejectNode: ['admin', () => ({ name: 'none' })],
  removeNode: ['admin', () => ({ name: 'none' })],
  updateNode: ['admin', () => ({ name: 'none' })],
  clearNodeAlarm: ['admin', () => ({ name: 'none' })],
  wait: ['admin deployer', () => ({ timeoutMs: 0 })],
  waitForWipes: ['admin auditor', () => ({ secretId: id, version: 1, timeoutMs: 0 })],
};
const names = Object.keys(Control.method) as Name[];

/** What the caller hears; undefined when he is answered. */
async function heard(connection: Connection, name: Name): Promise<InroError | undefined> {
  const [, message] = calls[name];
  try {
    await call(connection, Control, name, message() as never);
    return undefined;
  } catch (error) {
    if (error instanceof InroError) return error;
    throw error;
  }
}

test('each call is for the roles that its row names, over the network', async (t) => {
  const m = await realManager(t);
  t.deepEqual(Object.keys(calls).sort(), names.toSorted(), 'every call there is');
  for (const role of ['admin', 'deployer', 'auditor'] as const) {
    const { connection } = await operator(m, role, role, role === 'deployer' ? ['granted_*'] : []);
    for (const name of names) {
      const [who] = calls[name];
      const error = await heard(connection, name);
      if (who.split(' ').includes(role)) {
        t.false(
          ['not_permitted', 'unauthenticated', 'rate_limited', 'internal'].includes(error?.code ?? ''),
          `${role} may call ${name}: ${error?.message ?? ''}`,
        );
      } else {
        t.true(['not_permitted', 'rate_limited'].includes(error?.code ?? ''), `${role}, ${name}`);
        t.true(error?.message.includes(`who may not call ${name}`), error?.message);
      }
    }
  }
});

test('the socket has every right', async (t) => {
  const m = await realManager(t);
  for (const name of names) {
    const [, message] = calls[name];
    const error = await m.operate(name, message() as never).then(
      () => undefined,
      (thrown: InroError) => thrown,
    );
    t.false(['not_permitted', 'unauthenticated', 'internal'].includes(error?.code ?? ''), name);
  }
});

test('nobody else calls anything: no certificate, a node, a manager, a removed or revoked operator', async (t) => {
  const m = await realManager(t);
  const [gone, revoked] = [await operator(m, 'gone', 'admin'), await operator(m, 'revoked', 'admin')];
  await m.operate('removeOperator', { name: 'gone' });
  await m.operate('revokeOperator', { name: 'revoked' });
  const foreign = fakeCluster();
  const key = generateNodeKey();
  const outside = foreign.authority.issueNode({
    csr: createCsr(key.privateKey),
    nodeId: gone.identity.nodeId,
    role: 'operator',
  });
  for (const [who, connection, code] of [
    ['no certificate', m.connect(), 'unauthenticated'],
    [
      'another cluster',
      m.connect({ nodeId: '', certPem: outside.pem, keyPem: key.privatePem }),
      'unauthenticated',
    ],
    ['a node', m.connect(await m.joined()), 'not_permitted'],
    ['a manager', m.connect(m.issue('manager')), 'not_permitted'],
    ['an operator whom the store does not have', m.connect(m.issue('operator')), 'not_permitted'],
    ['one who was removed', gone.connection, 'not_permitted'],
    ['one who was revoked', revoked.connection, 'not_permitted'],
  ] as const) {
    for (const name of names) {
      const error = await heard(connection, name);
      t.true(
        [code, 'rate_limited'].includes(error?.code as 'rate_limited'),
        `${who}: ${name}: ${error?.code}`,
      );
    }
  }
});

test('a certificate for the same operator with another serial, or another key, is none of his', async (t) => {
  const m = await realManager(t);
  const { identity } = await operator(m, 'alice', 'admin');
  const twin = as(m, m.issue('operator', identity.nodeId));
  await refusesAsync(t, twin.call('getCa', {}), 'not_permitted', /"alice" has another certificate since/);
});

test("an operator's certificate opens nothing that is for nodes or hosts", async (t) => {
  const m = await realManager(t);
  const { connection, identity } = await operator(m, 'alice', 'admin');
  const words = /an operator's certificate may not make this call/;
  const { csrPem } = request();
  await refusesAsync(t, call(connection, Renewal, 'renewCertificate', { csrPem }), 'not_permitted', words);
  await refusesAsync(t, call(connection, Enrollment, 'getRoot', {}), 'not_permitted', words);
  const token = await m.running.joinToken();
  await refusesAsync(
    t,
    call(connection, Enrollment, 'issueCertificate', { csrPem, token }),
    'not_permitted',
    words,
  );
  await refusesAsync(t, new FakeNode(m.open(connection), identity).begin(), 'not_permitted', words);
  t.is((await m.operate('listNodes', {})).nodes.length, 0);
  // Nor does it vouch for a host that enrols again.
  refuses(
    t,
    () => verifyNodeCertificate(identity.certPem, { rootPem: m.rootPem, role: 'worker', now: Date.now() }),
    'bad_certificate',
    /is for an operator, not for a worker/,
  );
});

test('a call without a row in the table keeps the manager from starting', async (t) => {
  const view = await ClusterView.follow(fakeStore());
  const clock = new FakeClock();
  const audit = { append: async () => undefined, appendStranger: async () => undefined };
  const parts: GuardParts = { clusterId: id, view, audit, clock, log: pino({ level: 'silent' }) };
  const { getCa: _, ...rest } = controlRights;
  refuses(t, () => guarded({} as never, parts, rest), 'internal', /who may call Control\.getCa/);
  t.deepEqual(Object.keys(controlRights).sort(), names.toSorted());
});

test('a deployer uses granted secrets, and neither uses nor sees others', async (t) => {
  const m = await realManager(t);
  for (const name of ['web_key', 'web_cert', 'db']) await m.createSecret(name, 'v');
  await m.createService('mixed', ['web_key', 'db']);
  const bob = await operator(m, 'bob', 'deployer', ['web_*']);
  const names_ = async (): Promise<string[]> =>
    (await bob.call('listSecrets', {})).secrets.map(({ name }) => name);
  t.deepEqual(await names_(), ['web_cert', 'web_key']);

  await bob.call('createService', { name: 'web', replicas: 1, references: [reference('web_key')] });
  await bob.call('updateService', { name: 'web', referencesAdd: [reference('web_cert')] });
  t.is((await bob.call('getService', { name: 'web' })).references.length, 2);

  // Whether there is such a secret he does not learn.
  for (const name of ['db', 'nothing']) {
    const words = new RegExp(`operator "bob" has no grant for secret "${name}"`);
    const create = bob.call('createService', {
      name: 'x',
      references: [reference('web_key'), reference(name)],
    });
    await refusesAsync(t, create, 'not_permitted', words);
    const update = bob.call('updateService', { name: 'web', referencesAdd: [reference(name)] });
    await refusesAsync(t, update, 'not_permitted', words);
    await refusesAsync(t, bob.call('getSecret', { name }), 'not_permitted', words);
    await refusesAsync(t, bob.call('getSecretReads', { name }), 'not_permitted', words);
  }
  const { id: dbId } = await m.operate('getSecret', { name: 'db' });
  await m.clock.advance(managerLimits.refusedCallsMs);
  await refusesAsync(t, bob.call('getSecret', { name: dbId }), 'not_permitted');
  await refusesAsync(t, bob.call('getSecret', { name: dbId.slice(0, 6) }), 'not_permitted');

  // A service with one that is not granted is not his: he could move it to a host of his choice.
  const words = /service "mixed" uses secrets that operator "bob" has no grant for/;
  for (const act of [
    bob.call('getService', { name: 'mixed' }),
    bob.call('listTasks', { name: 'mixed' }),
    bob.call('updateService', { name: 'mixed', constraintsAdd: ['node.id==x'] }),
    bob.call('removeService', { name: 'mixed' }),
  ]) {
    const error = await refusesAsync(t, act, 'not_permitted', words);
    t.notRegex(`${error.message}${error.remedy}`, /"db"/);
  }
  t.deepEqual(
    (await bob.call('listServices', {})).services.map(({ name }) => name),
    ['web'],
  );
});

test('a deployer hears by waiting of his own services alone', async (t) => {
  const m = await realManager(t);
  await m.createSecret('mine', 'v');
  await m.createSecret('db', 'v');
  const serviceIds = [await m.createService('hidden', ['db']), await m.createService('shown', ['mine'])];
  const bob = await operator(m, 'bob', 'deployer', ['mine']);
  const told = async (who: Pick<Operator, 'call'>): Promise<string[]> => {
    const waiting = who.call('wait', { serviceIds, nodeIds: [], timeoutMs: 1_000 });
    await who.call('getCluster', {}); // calls of one connection arrive in order
    await m.clock.advance(1_000);
    const { missing } = await waiting;
    return missing.map(({ serviceName }) => serviceName);
  };
  t.deepEqual(await told(bob), ['shown']);
  t.deepEqual(await told(await operator(m, 'alice', 'admin')), ['hidden', 'shown']);
});

test('a grant is for a name: for the next version, and for another secret of that name; and it ends at once', async (t) => {
  const m = await realManager(t);
  const first = await m.createSecret('key', 'v');
  const bob = await operator(m, 'bob', 'deployer', ['key']);
  await m.updateSecret(first, 2, 'w');
  t.is((await bob.call('getSecret', { name: 'key' })).version, 2);
  await m.operate('removeSecret', { name: 'key' });
  const second = await m.createSecret('key', 'x');
  t.is((await bob.call('getSecret', { name: 'key' })).id, second);
  await bob.call('createService', { name: 'web', replicas: 1, references: [reference('key')] });

  await m.operate('updateOperator', { name: 'bob', grantsAdd: ['other'], grantsRemove: ['key'] });
  await refusesAsync(t, bob.call('getSecret', { name: 'key' }), 'not_permitted');
  await refusesAsync(t, bob.call('removeService', { name: 'web' }), 'not_permitted');
  t.deepEqual((await bob.call('listSecrets', {})).secrets, []);
  await refusesAsync(
    t,
    m.operate('updateOperator', { name: 'bob', grantsRemove: ['key'] }),
    'not_found',
    /has no grant "key"/,
  );

  // Another role, at once, without another certificate; its grants are gone.
  await m.operate('updateOperator', { name: 'bob', role: 'auditor' });
  t.is((await bob.call('listSecrets', {})).secrets.length, 1);
  t.deepEqual((await bob.call('getOperator', { name: 'bob' })).grants, []);
  await refusesAsync(t, bob.call('removeService', { name: 'web' }), 'not_permitted', /is an auditor/);
});

for (const how of ['revokeOperator', 'removeOperator'] as const) {
  test(`${how} ends what waits, and every call after it on the same connection`, async (t) => {
    const m = await realManager(t);
    await m.createSecret('key', 'v');
    const serviceId = await m.createService('web', ['key']);
    const alice = await operator(m, 'alice', 'admin');
    const bob = await operator(m, 'bob', 'admin');
    const waits = { revision: 0n, nodeIds: [], serviceIds: [serviceId], timeoutMs: 600_000 };
    const [cut, goesOn] = [call(alice.connection, Control, 'wait', waits, 60_000), bob.call('wait', waits)];
    const refusal = refusesAsync(t, cut, 'not_permitted', /revoked since|no operator .* any more/);
    let bobHeard = false;
    goesOn.catch(() => undefined).finally(() => (bobHeard = true));
    // Calls of one connection arrive in order: after an answer to this one the other waits.
    await alice.call('getCa', {});
    await m.operate(how, { name: 'alice' });
    await refusal;
    await refusesAsync(t, alice.call('getCa', {}), 'not_permitted');
    t.false(bobHeard);
    await bob.call('getCa', {});
  });
}

test('an identity ends with its time, on a connection that is open, and so does what waits', async (t) => {
  const m = await realManager(t);
  await m.createSecret('key', 'v');
  const serviceIds = [await m.createService('web', ['key'])];
  const alice = await operator(m, 'alice', 'admin', [], 10 * 60_000);
  const waiting = alice.call('wait', { nodeIds: [], serviceIds, timeoutMs: 600_000 });
  const refusal = refusesAsync(t, waiting, 'bad_certificate', /operator "alice" expired at/);
  await alice.call('getCa', {});
  await m.clock.advance(5 * 60_000);
  await alice.call('getCa', {});
  await m.clock.advance(5 * 60_000 + 1_000);
  await refusal;
  const error = await refusesAsync(t, alice.call('getCa', {}), 'bad_certificate', /expired at/);
  t.regex(error.remedy ?? '', /inro operator create alice/);
  t.is((await m.operate('getOperator', { name: 'alice' })).status, 'expired');
  await refusesAsync(t, alice.call('renewOperator', request()), 'bad_certificate');
});

test('an operator renews himself, with a new key; the old identity ends soon after', async (t) => {
  const m = await realManager(t);
  const old = await operator(m, 'alice', 'deployer', ['a*'], dayMs);
  await m.clock.advance(12 * hourMs);
  const { csrPem, keyPem } = request();
  const issued = await old.call('renewOperator', { csrPem });
  t.like(issued.operator, { name: 'alice', role: 'deployer', grants: ['a*'] });
  t.is(Number(issued.operator?.expiresMs), Math.floor((m.clock.now() + dayMs) / 1000) * 1000);
  await refusesAsync(t, old.call('renewOperator', { csrPem }), 'bad_input', /has a certificate already/);
  // The new one is used before its beginning by OpenSSL's clock is: it begins an hour early, and the test's clock is ahead.
  await old.call('listSecrets', {});
  await m.clock.advance(managerLimits.formerOperatorMs + 1);
  await refusesAsync(t, old.call('listSecrets', {}), 'not_permitted', /has another certificate since/);
  t.is(issued.operator?.serial, (await m.operate('getOperator', { name: 'alice' })).serial);
  t.truthy(keyPem);
  await refusesAsync(t, m.operate('renewOperator', { csrPem }), 'bad_input', /no certificate to renew/);
});

test('what was renewed is used at once, and is renewed only so often', async (t) => {
  const m = await realManager(t);
  let now = await operator(m, 'alice', 'auditor');
  for (let n = 0; n < managerLimits.maxOperatorRenewals; n++) {
    const { csrPem, keyPem } = request();
    now = as(m, identityOf(await now.call('renewOperator', { csrPem }), keyPem));
    await now.call('listSecrets', {});
  }
  await refusesAsync(t, now.call('renewOperator', request()), 'rate_limited');
  await m.clock.advance(managerLimits.operatorRenewalsMs);
  await now.call('renewOperator', request());
});

test('what an operator changes, and what he is refused, is a line in the log, without values or tokens', async (t) => {
  const m = await realManager(t);
  const alice = await operator(m, 'alice', 'admin');
  const bob = await operator(m, 'bob', 'deployer', ['key']);
  const { token } = await alice.call('createJoinToken', { role: 'worker', ttlMs: 60_000n, uses: 1 });
  await m.createSecret('key', 'hunter2-value');
  await refusesAsync(t, bob.call('removeSecret', { name: 'key' }), 'not_permitted');
  await refusesAsync(t, bob.call('removeService', { name: 'we\u001b[31mb' }), 'not_found');
  await refusesAsync(t, call(m.connect(), Control, 'getCluster', {}), 'unauthenticated');
  await alice.call('revokeSecret', { name: 'key', version: 0, operator: 'somebody else' });
  const secret = await m.operate('getSecret', { name: 'key' });
  t.is(secret.versions[0]?.revokedBy, 'alice', 'who is proved, not who is claimed');
  const of = (msg: string) =>
    m.logged
      .filter((line) => line['msg'] === msg)
      .map((line) => [line['operator'], line['role'], line['call'], line['object'], line['outcome']]);
  t.deepEqual(of('operator call'), [
    ['', 'admin', 'createOperator', 'alice', 'done'],
    ['', 'admin', 'createOperator', 'bob', 'done'],
    ['alice', 'admin', 'createJoinToken', 'worker', 'done'],
    ['', 'admin', 'createSecret', 'key', 'done'],
    ['bob', 'deployer', 'removeService', 'we?[31mb', 'not_found'],
    ['alice', 'admin', 'revokeSecret', 'key', 'done'],
  ]);
  t.deepEqual(of('operator call refused'), [
    ['bob', 'deployer', 'removeSecret', 'key', 'not_permitted'],
    ['', undefined, 'getCluster', '', 'unauthenticated'],
  ]);
  const remote = m.logged.find((line) => line['msg'] === 'operator call' && line['operator'] === 'alice');
  t.regex(String(remote?.['address']), /^127\.0\.0\.1:[0-9]+$/);
  t.notRegex(JSON.stringify(m.logged), new RegExp(`hunter2-value|${token}|PRIVATE KEY`));
});

test('refusals are told so often in a minute, and what is permitted is answered all the while', async (t) => {
  const m = await realManager(t);
  const eve = await operator(m, 'eve', 'auditor');
  const refusedLines = (): number =>
    m.logged.filter((line) => line['msg'] === 'operator call refused').length;
  for (let n = 0; n < managerLimits.maxRefusedCalls; n++)
    await refusesAsync(t, eve.call('removeNode', { name: 'x' }), 'not_permitted');
  for (let n = 0; n < 20; n++)
    await refusesAsync(
      t,
      eve.call('removeNode', { name: 'x' }),
      'rate_limited',
      /who may not call removeNode/,
    );
  t.is(refusedLines(), managerLimits.maxRefusedCalls);
  await eve.call('listNodes', {});
  // Others at the same address are not touched by it.
  const other = await operator(m, 'other', 'auditor');
  await refusesAsync(t, other.call('removeNode', { name: 'x' }), 'not_permitted');
  for (let n = 0; n < 30; n++)
    await t.throwsAsync(call(m.connect(), Control, 'getCluster', {}), { instanceOf: InroError });
  t.is(refusedLines(), 2 * managerLimits.maxRefusedCalls + 1);
  await other.call('listNodes', {});
  await m.clock.advance(managerLimits.refusedCallsMs);
  await refusesAsync(t, eve.call('removeNode', { name: 'x' }), 'not_permitted');
});

test('who is made, and what is asked for, is checked', async (t) => {
  const m = await realManager(t);
  const good = { name: 'alice', role: 'admin', grants: [] as string[], ttlMs: BigInt(dayMs) };
  const create = (change: object) => m.operate('createOperator', { ...good, ...request(), ...change });
  for (const [change, words] of [
    [{ name: '' }, /operator name "" is not valid/],
    [{ name: '../x' }, /is not valid/],
    [{ role: 'worker' }, /no operator's role "worker"/],
    [{ role: '' }, /no operator's role/],
    [{ grants: ['a'] }, /an admin has no grants/],
    [{ role: 'deployer', grants: ['[a]'] }, /fits no name/],
    [{ ttlMs: 0n }, /cannot last that long/],
    [{ ttlMs: 2n ** 63n }, /cannot last that long/],
    [{ csrPem: 'none' }, /certificate request/],
  ] as const)
    await refusesAsync(t, create(change), 'bad_input', words);
  t.deepEqual((await m.operate('listOperators', {})).operators, []);

  const { csrPem } = request();
  await create({ csrPem });
  await refusesAsync(t, create({}), 'already_exists', /operator "alice" exists already/);
  await refusesAsync(t, create({ name: 'bob', csrPem }), 'bad_input', /key that has a certificate already/);
  await m.operate('revokeOperator', { name: 'alice' });
  await refusesAsync(t, create({}), 'already_exists');
  await m.operate('removeOperator', { name: 'alice' });
  await create({});
});

test('operators, and that one is revoked, outlive a restart', async (t) => {
  const m = await realManager(t);
  const [alice, bob] = [await operator(m, 'alice', 'admin'), await operator(m, 'bob', 'deployer', ['a*'])];
  await m.operate('revokeOperator', { name: 'alice' });
  const again = await m.restarted(async () => undefined);
  const of = (identity: FakeIdentity) => as(again, identity);
  await refusesAsync(t, of(alice.identity).call('getCluster', {}), 'not_permitted', /revoked since/);
  await of(bob.identity).call('getCluster', {});
});
