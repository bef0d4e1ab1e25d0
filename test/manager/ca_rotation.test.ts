/** Another CA takes the place of the one that signs: over TLS, against a manager that runs, with nodes spoken by hand. */
import { randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { askForRenewal } from '../../src/agent/renew.js';
import { identityOf } from '../../src/agent/identity.js';
import { generateNodeKey, readPrivateKey, signBytes, spkiOf } from '../../src/crypto/signing.js';
import { enrolAgainStatement } from '../../src/crypto/statement.js';
import { InroError } from '../../src/model/error.js';
import { managerLimits } from '../../src/manager/limits.js';
import { createAuthority } from '../../src/pki/authority.js';
import { readCertificate } from '../../src/pki/certificate.js';
import { createCsr } from '../../src/pki/csr.js';
import { parseJoinToken } from '../../src/pki/join_token.js';
import { isVouchedFor, readRoot, readRoots } from '../../src/pki/root.js';
import { checkedSealingKey, type VouchedKey } from '../../src/pki/sealing_key.js';
import { verifyNodeCertificate } from '../../src/pki/verify.js';
import { Control } from '../../src/proto/gen/inro/v1/control_pb.js';
import type { TrustedRoots } from '../../src/proto/gen/inro/v1/dispatcher_pb.js';
import { Enrollment, Renewal } from '../../src/proto/gen/inro/v1/enrollment_pb.js';
import { call, connectTls, type Connection } from '../../src/rpc/client.js';
import { nodeCredentials, rootCredentials, unverifiedCredentials } from '../../src/rpc/tls.js';
import type { FakeIdentity } from '../support/fake_authority.js';
import { FakeNode } from '../support/fake_node.js';
import { opensslCa, opensslIntermediate } from '../support/openssl_ca.js';
import { realManager, type RealManager } from '../support/real_manager.js';
import { refusesAsync } from '../support/refuses.js';
import { findOpenssl } from '../pki/openssl.js';

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
const withOpenssl = findOpenssl() === undefined ? test.skip : test;

/** A node as an agent would be one: it trusts what it was told to, and asks for what it is told to ask for. */
class Node {
  readonly #manager: RealManager;
  readonly #connections = new Set<Connection>();
  rootPem: string;
  identity: FakeIdentity;

  constructor(t: ExecutionContext, manager: RealManager, identity: FakeIdentity, rootPem = manager.rootPem) {
    this.#manager = manager;
    this.identity = identity;
    this.rootPem = rootPem;
    t.teardown(() => this.close());
  }

  close(): void {
    for (const connection of this.#connections) connection.close();
    this.#connections.clear();
  }

  connect(): Connection {
    const { certPem: certificatePem, keyPem } = this.identity;
    const credentials = nodeCredentials({ rootPem: this.rootPem, certificatePem, keyPem });
    const connection = connectTls(this.#manager.running.address, credentials);
    this.#connections.add(connection);
    return connection;
  }

  /** A stream that has begun. */
  async attach(onRoots?: (roots: TrustedRoots) => void): Promise<FakeNode> {
    const stream = new FakeNode(this.#manager.open(this.connect()), this.identity);
    stream.onRoots = onRoots;
    await stream.begin();
    return stream;
  }

  trust({ rootsPem, crossPem }: TrustedRoots): void {
    const now = this.#manager.clock.now();
    const roots = readRoots(rootsPem).filter(
      (root) => this.rootPem.includes(root.pem) || isVouchedFor(root, crossPem, this.rootPem, now),
    );
    if (roots.length === 0) throw new Error('roots that nobody vouches for');
    this.rootPem = roots.map(({ pem }) => pem).join('');
  }

  async renew(): Promise<void> {
    const { address } = this.#manager.running;
    const now = (): number => this.#manager.clock.now();
    const { certPem: certificatePem, keyPem, nodeId } = this.identity;
    const own = identityOf({ certificatePem, keyPem }, { rootPem: this.rootPem, managers: [address] }, now());
    const pair = await askForRenewal(own, address, now);
    this.identity = { nodeId, certPem: pair.certificatePem, keyPem: pair.keyPem };
  }
}

/** Reads the stream until the manager wants the node to renew; its clock goes on meanwhile. */
async function told(manager: RealManager, stream: FakeNode, until = (roots: TrustedRoots) => roots.renew) {
  const found = new Promise<TrustedRoots>((resolve) => {
    stream.onRoots = (roots) => {
      if (until(roots)) resolve(roots);
    };
  });
  const there = new AbortController();
  void found.then(() => there.abort());
  void stream.rest().catch(() => undefined);
  for (let tries = 0; !there.signal.aborted && tries < 100; tries++) {
    await manager.clock.advance(managerLimits.rotationCheckMs);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  if (!there.signal.aborted) throw new Error('nothing was told');
  return found;
}

async function until(isSo: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; !(await isSo()) && tries < 200; tries++)
    await new Promise((resolve) => setTimeout(resolve, 20));
}

const rotate = (manager: RealManager, deadlineMs = dayMs) =>
  manager.operate('rotateCa', { deadlineMs: BigInt(deadlineMs) });
const ca = (manager: RealManager) => manager.operate('getCa', {});
const over = (manager: RealManager) => manager.operate('updateCa', { rotationDeadlineMs: 0n });

test('who trusts the one or the other root verifies everything, from the first moment on', async (t) => {
  const manager = await realManager(t);
  const old = readRoot(manager.rootPem);
  const { rootPem } = await rotate(manager);
  t.not(rootPem, old.pem);
  t.not(readRoot(rootPem).x509.subject, old.x509.subject, 'a name of its own');
  const node = await manager.joined();
  const now = manager.clock.now();
  for (const trusted of [old.pem, rootPem, rootPem + old.pem]) {
    t.is(verifyNodeCertificate(node.certPem, { rootPem: trusted, now }).nodeId, node.nodeId);
    const connection = connectTls(manager.running.address, rootCredentials(trusted));
    t.teardown(() => connection.close());
    t.is((await call(connection, Enrollment, 'getRoot', {})).rootPem, rootPem, 'and the manager itself');
    const { id, sealingKey } = await manager.operate('getCluster', {});
    t.notThrows(
      () => checkedSealingKey(sealingKey as VouchedKey, { rootPem: trusted, clusterId: id, now }),
      'and its sealing key',
    );
  }
  const stranger = createAuthority({ clusterId: 'a'.repeat(25), clock: manager.clock, random: randomBytes });
  t.throws(() => verifyNodeCertificate(node.certPem, { rootPem: stranger.certPem, now }));
});

test('nodes that are here are renewed, the others are waited for, and at the deadline they are named', async (t) => {
  const manager = await realManager(t);
  const [a, b] = [new Node(t, manager, await manager.joined()), new Node(t, manager, await manager.joined())];
  const first = await a.attach();
  (await b.attach()).channel.close();
  const before = await ca(manager);
  const begun = await rotate(manager, hourMs / 2);
  t.like(begun.rotation, { nodes: 2, renewed: 0, formerRootFingerprint: before.rootFingerprint });
  const words = await told(manager, first);
  a.trust(words);
  t.is(readRoots(a.rootPem).length, 2);
  await a.renew();
  first.channel.close();
  const second = await a.attach();
  second.onRoots = (words) => a.trust(words);
  void second.rest().catch(() => undefined);
  t.like((await ca(manager)).rotation, { nodes: 2, renewed: 1 });
  t.deepEqual(
    (await ca(manager)).rotation?.left.map(({ id }) => id),
    [b.identity.nodeId],
  );

  // A wall clock that jumps ends nothing.
  manager.clock.setWall(manager.clock.now() + 2 * hourMs);
  await manager.clock.advance(2 * managerLimits.rotationCheckMs);
  t.not((await ca(manager)).rotation, undefined);
  manager.clock.setWall(manager.clock.now() - 2 * hourMs);
  await manager.clock.jump(hourMs / 2);
  await until(async () => (await ca(manager)).rotation === undefined);
  const after = await ca(manager);
  t.is(after.rotation, undefined);
  t.deepEqual(
    after.mustEnrol.map(({ id }) => id),
    [b.identity.nodeId],
  );
  t.deepEqual(
    after.formerRoots.map(({ fingerprint }) => fingerprint),
    [before.rootFingerprint],
  );
  t.true((await manager.operate('getNode', { name: b.identity.nodeId })).mustEnrol);
  for (let tries = 0; a.rootPem !== after.rootPem && tries < 100; tries++)
    await new Promise((resolve) => setTimeout(resolve, 20));
  t.is(a.rootPem, after.rootPem, 'the new one alone');
  second.channel.close();
  await a.attach();

  // Refused on each call, with what to do; nothing that the former CA signs is worth anything.
  const asB = call(b.connect(), Renewal, 'renewCertificate', {
    csrPem: createCsr(generateNodeKey().privateKey),
  });
  const refusal = await refusesAsync(t, asB, 'unauthenticated', /of a CA that is not in use any more since/);
  t.regex(refusal.remedy ?? '', /inro agent join --again/);
  const forged = new Node(t, manager, manager.issue('worker', a.identity.nodeId));
  await refusesAsync(t, forged.attach(), 'unauthenticated', /not in use any more/);

  // It enrols again with its former key, and stays that node.
  const { privateKey, publicKey, privatePem } = generateNodeKey();
  const { clusterId, nodeId } = readCertificate(b.identity.certPem);
  const statement = enrolAgainStatement({ clusterId, nodeId, publicKey: spkiOf(publicKey) });
  const anybody = connectTls(manager.running.address, rootCredentials(after.rootPem));
  t.teardown(() => anybody.close());
  const answer = await call(anybody, Enrollment, 'issueCertificate', {
    csrPem: createCsr(privateKey),
    token: await manager.running.joinToken(),
    former: {
      certificatePem: b.identity.certPem,
      proof: signBytes(readPrivateKey(b.identity.keyPem), statement),
    },
  });
  t.is(answer.nodeId, nodeId, answer.newIdBecause);
  const again = { nodeId, certPem: answer.certificatePem, keyPem: privatePem };
  await new Node(t, manager, again, after.rootPem).attach();
  t.deepEqual((await ca(manager)).mustEnrol, []);
});

test('join tokens: the standing one names the new root, those made before end with the rotation', async (t) => {
  const manager = await realManager(t);
  const node = new Node(t, manager, await manager.joined());
  await node.attach();
  const standing = parseJoinToken(await manager.running.joinToken());
  const made = await manager.operate('createJoinToken', { role: 'worker', ttlMs: BigInt(hourMs), uses: 5 });
  await manager.clock.advance(1_000);
  const { rootPem, rotation } = await rotate(manager);
  t.is(rotation?.endingTokens, 1);
  const later = await manager.operate('createJoinToken', { role: 'worker', ttlMs: BigInt(hourMs), uses: 5 });
  const now = parseJoinToken(await manager.running.joinToken());
  t.true(now.secretMatches(standing), 'the same secret');
  t.true(now.digestMatches(readRoot(rootPem).der));
  const rootOf = async (token: { rootDigest: Uint8Array }) =>
    (await call(manager.connect(), Enrollment, 'getRoot', { digest: token.rootDigest })).rootPem;
  t.is(await rootOf(standing), manager.rootPem, 'who has the one before is shown the root before');
  t.is(await rootOf(now), rootPem);
  const use = (token: string) =>
    call(manager.connect(), Enrollment, 'issueCertificate', {
      csrPem: createCsr(generateNodeKey().privateKey),
      token,
    });
  for (const token of [standing.reveal(), made.token, later.token]) await t.notThrowsAsync(use(token));
  await over(manager);
  t.is(await rootOf(standing), rootPem);
  await refusesAsync(t, use(made.token), 'bad_token', /expired/);
  await t.notThrowsAsync(use(later.token));
});

test('no good node is refused at any moment: streams, reconnects, renewals and enrolments go on throughout', async (t) => {
  const manager = await realManager(t);
  const nodes = await Promise.all(
    Array.from({ length: 40 }, async () => new Node(t, manager, await manager.joined())),
  );
  const failures: unknown[] = [];
  const over = new AbortController();
  const joined: Promise<void>[] = [];
  const live = async (node: Node): Promise<void> => {
    while (!over.signal.aborted) {
      let stream: FakeNode | undefined;
      try {
        const wanted = new AbortController();
        stream = await node.attach((words) => {
          node.trust(words);
          if (words.renew) wanted.abort();
        });
        void stream.rest().catch((error: unknown) => failures.push(error));
        const until = Date.now() + 100 + Math.random() * 300;
        while (!wanted.signal.aborted && Date.now() < until)
          await new Promise((resolve) => setTimeout(resolve, 10));
        if (wanted.signal.aborted) await node.renew();
      } catch (error) {
        // As an agent, which tries again: it was given one in the rotation before.
        if (!(error instanceof InroError && error.code === 'rate_limited')) failures.push(error);
      }
      // What was on its way when it went is not heard.
      if (stream !== undefined) stream.onRoots = undefined;
      stream?.channel.close();
      node.close();
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  /** As a host joins: the root by the token's digest, then a certificate. It stays, and is renewed as the others are. */
  const enrol = async (): Promise<void> => {
    while (!over.signal.aborted) {
      try {
        const token = parseJoinToken(await manager.running.joinToken());
        const stranger = connectTls(manager.running.address, unverifiedCredentials());
        const { rootPem } = await call(stranger, Enrollment, 'getRoot', { digest: token.rootDigest });
        stranger.close();
        if (!token.digestMatches(readRoot(rootPem).der)) throw new Error('another root than the token names');
        const key = generateNodeKey();
        const connection = connectTls(manager.running.address, rootCredentials(rootPem));
        const answer = await call(connection, Enrollment, 'issueCertificate', {
          csrPem: createCsr(key.privateKey),
          token: token.reveal(),
        });
        connection.close();
        const identity = { nodeId: answer.nodeId, certPem: answer.certificatePem, keyPem: key.privatePem };
        joined.push(live(new Node(t, manager, identity, rootPem)));
      } catch (error) {
        failures.push(error);
      }
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
  };
  const running = [...nodes.map(live), enrol()];
  const rotations = 2;
  for (let rotation = 0; rotation < rotations; rotation++) {
    await rotate(manager, dayMs);
    for (let isUnderWay = true; isUnderWay;) {
      await manager.clock.advance(managerLimits.rotationCheckMs);
      await new Promise((resolve) => setTimeout(resolve, 100));
      const state = await ca(manager);
      isUnderWay = state.rotation !== undefined;
    }
    t.deepEqual((await ca(manager)).mustEnrol, []);
  }
  over.abort();
  await Promise.all(running);
  await Promise.all(joined);
  t.deepEqual(failures, []);
  t.true(joined.length > 0);
  const { formerRoots } = await ca(manager);
  t.is(formerRoots.length, rotations);
  t.log(`${nodes.length} nodes renewed ${rotations} times, ${joined.length} hosts joined meanwhile`);
});

const names = ['ca.crt', 'ca.key', 'ca-next.crt', 'ca-next.key'];

test('a manager that ends anywhere in between goes on with what the store says', async (t) => {
  const first = await realManager(t);
  const node = await first.joined();
  const file = (folder: string, name: string): string => join(folder, name);
  const before = Object.fromEntries(
    names.slice(0, 2).map((name) => [name, readFileSync(file(first.folder, name), 'utf8')]),
  );
  const { rootFingerprint: old } = await ca(first);

  // Cut off before the store had it: as if nothing had been.
  const stranger = createAuthority({
    clusterId: first.running.clusterId,
    isNext: true,
    clock: first.clock,
    random: randomBytes,
  });
  const second = await first.restarted(async (folder) => {
    writeFileSync(file(folder, 'ca-next.key'), stranger.keyPem, { mode: 0o600 });
    writeFileSync(file(folder, 'ca-next.crt'), stranger.certPem, { mode: 0o600 });
  });
  t.like(await ca(second), { rootFingerprint: old, rotation: undefined });
  t.false(existsSync(file(second.folder, 'ca-next.key')));

  // After that: with none, one, or both of the files in their places, and its own certificate of the CA before.
  const own = ['manager.crt', 'manager.key'].map((name) => readFileSync(file(second.folder, name)));
  const { rootFingerprint: next } = await rotate(second);
  let manager = second;
  for (const moved of [0, 1]) {
    manager = await manager.restarted(async (folder) => {
      renameSync(file(folder, 'ca.crt'), file(folder, 'ca-next.crt'));
      writeFileSync(file(folder, 'ca.crt'), before['ca.crt'] as string);
      if (moved === 0) {
        renameSync(file(folder, 'ca.key'), file(folder, 'ca-next.key'));
        writeFileSync(file(folder, 'ca.key'), before['ca.key'] as string);
      }
      ['manager.crt', 'manager.key'].forEach((name, at) =>
        writeFileSync(file(folder, name), own[at] as Buffer),
      );
    });
    const state = await ca(manager);
    t.is(state.rootFingerprint, next);
    t.is(state.rotation?.left.length, 1);
    for (const name of names.slice(2)) t.false(existsSync(file(manager.folder, name)), name);
    await new Node(t, manager, node, first.rootPem).attach();
  }
  t.false(
    readFileSync(file(manager.folder, 'ca.key'), 'utf8').includes(before['ca.key'] as string),
    'the key before is gone',
  );
  await over(manager);
  const last = await manager.restarted(async () => undefined);
  t.deepEqual(
    (await ca(last)).mustEnrol.map(({ id }) => id),
    [node.nodeId],
  );
});

test('operators are let in with what they have, and are told to renew', async (t) => {
  const manager = await realManager(t);
  await manager.joined();
  const { privateKey, privatePem } = generateNodeKey();
  const issued = await manager.operate('createOperator', {
    name: 'anna',
    role: 'admin',
    ttlMs: BigInt(dayMs),
    csrPem: createCsr(privateKey),
  });
  const anna = { nodeId: issued.operator?.id ?? '', certPem: issued.certificatePem, keyPem: privatePem };
  await rotate(manager);
  const stolen = { certPem: 'x', keyPem: 'y', deadlineMs: BigInt(dayMs) };
  await refusesAsync(
    t,
    call(manager.connect(anna), Control, 'rotateCa', stolen),
    'not_permitted',
    /over the network/,
  );
  await over(manager);
  t.deepEqual((await ca(manager)).operatorsToRenew, ['anna']);
  const { operators } = await call(manager.connect(anna), Control, 'listOperators', {});
  t.true(operators[0]?.formerCa);
  // But the former CA makes nobody an operator.
  const forged = manager.issue('operator', anna.nodeId);
  await refusesAsync(
    t,
    call(manager.connect(forged), Control, 'listOperators', {}),
    'not_permitted',
    /another certificate/,
  );
  const csrPem = createCsr(generateNodeKey().privateKey);
  const renewed = await call(manager.connect(anna), Control, 'renewOperator', { csrPem });
  const now = manager.clock.now();
  t.true(isVouchedFor(readRoot(renewed.rootPem), renewed.certificatePem, manager.rootPem, now));
  t.deepEqual((await ca(manager)).operatorsToRenew, []);
});

test('one at a time, within bounds, and not without a change', async (t) => {
  const manager = await realManager(t);
  await manager.joined();
  await refusesAsync(t, over(manager), 'not_found', /no rotation of the CA is under way/);
  for (const ms of [0, managerLimits.minRotationMs - 1, managerLimits.maxRotationMs + 1])
    await refusesAsync(t, rotate(manager, ms), 'bad_input', /too (short|long)/);
  const [one, other] = await Promise.allSettled([rotate(manager), rotate(manager)]);
  t.deepEqual([one.status, other.status].sort(), ['fulfilled', 'rejected']);
  await refusesAsync(t, rotate(manager), 'conflict', /is under way/);
  await manager.operate('updateCa', { rotationDeadlineMs: BigInt(2 * dayMs) });
  const { rotation } = await ca(manager);
  t.is(Number(rotation?.deadlineMs), manager.clock.now() + 2 * dayMs);
});

withOpenssl(
  'a CA that is brought along: what cannot take the place is refused, and nothing has changed',
  async (t) => {
    const theirs = opensslIntermediate(t);
    const closed = opensslCa(t, {
      name: '/CN=Closed',
      by: theirs.root,
      extensions: [
        'basicConstraints=critical,CA:TRUE,pathlen:0',
        'keyUsage=critical,keyCertSign',
        'subjectKeyIdentifier=hash',
      ],
    });
    const founded = { certPem: closed.certPem + theirs.root.certPem, keyPem: closed.keyPem };
    const folder = mkdtempSync(join(tmpdir(), 'inro-rotation-'));
    t.teardown(() => rmSync(folder, { recursive: true, force: true }));
    const files = { certificatePath: join(folder, 'ca.pem'), keyPath: join(folder, 'ca.key') };
    writeFileSync(files.certificatePath, founded.certPem);
    writeFileSync(files.keyPath, founded.keyPem, { mode: 0o600 });
    const manager = await realManager(t, undefined, files);
    const node = new Node(t, manager, await manager.joined());
    (await node.attach()).channel.close();
    // Before what openssl makes in a moment.
    await manager.clock.advance(60_000);
    const bring = (given: { certPem: string; keyPem: string }) =>
      manager.operate('rotateCa', { ...given, deadlineMs: BigInt(dayMs) });
    const before = await ca(manager);
    await refusesAsync(t, bring(founded), 'bad_input', /has the key of one/);
    const twin = opensslCa(t, { name: nameOf(theirs.root.certPem) });
    await refusesAsync(t, bring(twin), 'bad_input', /has the name of the present one/);
    const stranger = opensslCa(t, { name: '/CN=A stranger' });
    await refusesAsync(t, bring(stranger), 'bad_certificate', /cannot vouch for that one/);
    await refusesAsync(
      t,
      manager.operate('rotateCa', { deadlineMs: BigInt(dayMs) }),
      'bad_certificate',
      /cannot vouch/,
    );
    await refusesAsync(t, bring({ ...stranger, keyPem: 'x' }), 'bad_input');
    t.deepEqual(await ca(manager), before);

    // Another intermediate of the same root: nobody's trust changes.
    const sibling = opensslCa(t, { name: '/CN=Sibling', by: theirs.root });
    const begun = await bring({ certPem: sibling.certPem + theirs.root.certPem, keyPem: sibling.keyPem });
    t.is(begun.rootFingerprint, before.rootFingerprint);
    t.is(begun.rotation?.endingTokens, 0);
    await node.renew();
    (await node.attach()).channel.close();
    await manager.clock.advance(2 * managerLimits.rotationCheckMs);
    t.is((await ca(manager)).rotation, undefined);
    await t.notThrowsAsync(node.attach());
    await refusesAsync(
      t,
      new Node(t, manager, manager.issue('worker', node.identity.nodeId)).attach(),
      'unauthenticated',
    );
  },
);

function nameOf(certPem: string): string {
  const lines = readCertificate(certPem).x509.subject.split('\n');
  return lines.map((line) => `/${line}`).join('');
}
