/** Who becomes a node, against a real manager whose clock the test moves. */
import { randomBytes } from 'node:crypto';
import test, { type ExecutionContext } from 'ava';
import { generateNodeKey, publicKeyOf, readPrivateKey, signBytes, spkiOf } from '../../src/crypto/signing.js';
import { enrolAgainStatement } from '../../src/crypto/statement.js';
import { limits as pkiLimits } from '../../src/pki/limits.js';
import { managerLimits } from '../../src/manager/limits.js';
import { createCsr } from '../../src/pki/csr.js';
import { readCertificate } from '../../src/pki/certificate.js';
import { Enrollment } from '../../src/proto/gen/inro/v1/enrollment_pb.js';
import { call } from '../../src/rpc/client.js';
import { fakeCluster, type FakeIdentity } from '../support/fake_authority.js';
import { realManager, type RealManager } from '../support/real_manager.js';
import { refusesAsync } from '../support/refuses.js';

const dayMs = 24 * 60 * 60 * 1000;

interface Asks {
  token?: string;
  keyPem?: string;
  former?: { certificatePem: string; proof: Uint8Array };
}

async function made(
  m: RealManager,
  { uses = 1, ttlMs = 60_000, requireApproval = false, nodeLabels = {} } = {},
): Promise<string> {
  const request = { role: 'worker', uses, ttlMs: BigInt(ttlMs), requireApproval, nodeLabels };
  return (await m.operate('createJoinToken', request)).token;
}

/** As a host asks. */
async function enrol(m: RealManager, { token, keyPem = generateNodeKey().privatePem, former }: Asks) {
  const answer = await call(m.connect(), Enrollment, 'issueCertificate', {
    csrPem: createCsr(readPrivateKey(keyPem)),
    token: token ?? (await m.running.joinToken()),
    ...(former === undefined ? {} : { former }),
  });
  const { nodeId, certificatePem: certPem, pendingUntilMs, newIdBecause } = answer;
  return { nodeId, certPem, keyPem, pendingUntilMs, newIdBecause };
}

/** What the node that it was signs for its new key. */
function proofOf(
  m: RealManager,
  { nodeId, certPem, keyPem }: FakeIdentity,
  newKeyPem: string,
  changes: { clusterId?: string; nodeId?: string; signWith?: string } = {},
) {
  const statement = enrolAgainStatement({
    clusterId: changes.clusterId ?? m.running.clusterId,
    nodeId: changes.nodeId ?? nodeId,
    publicKey: spkiOf(publicKeyOf(readPrivateKey(newKeyPem))),
  });
  const proof = signBytes(readPrivateKey(changes.signWith ?? keyPem), statement);
  return { certificatePem: certPem, proof };
}

const nodesOf = async (m: RealManager) => (await m.operate('listNodes', {})).nodes;
const tokensOf = async (m: RealManager) => (await m.operate('listJoinTokens', {})).tokens;

test('a token has its uses, one for each node, however many ask at once', async (t) => {
  const m = await realManager(t);
  const token = await made(m, { uses: 20, nodeLabels: { zone: 'a' } });
  const results = await Promise.allSettled(Array.from({ length: 30 }, () => enrol(m, { token })));
  const ids = results.flatMap((one) => (one.status === 'fulfilled' ? [one.value.nodeId] : []));
  t.is(new Set(ids).size, 20);
  const nodes = await nodesOf(m);
  t.deepEqual(nodes.map(({ id }) => id).sort(), ids.sort());
  t.true(nodes.every(({ labels }) => labels['zone'] === 'a'));
  t.like((await tokensOf(m))[0], { uses: 20, usesLeft: 0 });
  for (const one of results)
    if (one.status === 'rejected')
      t.regex((one.reason as Error).message, /is used up: it was good for 20 uses/);
});

test('asked again with the same key, it is the same node and costs no use, until the certificate is used', async (t) => {
  const m = await realManager(t);
  const token = await made(m);
  const first = await enrol(m, { token });
  const again = await enrol(m, { token, keyPem: first.keyPem });
  t.is(again.nodeId, first.nodeId);
  t.not(again.certPem, first.certPem);
  // The token is of no use to anybody else, and need not be there any more.
  await refusesAsync(t, enrol(m, { token }), 'bad_token', /used up/);
  await m.operate('revokeJoinToken', { name: (await tokensOf(m))[0]?.id ?? '' });
  t.is((await enrol(m, { token, keyPem: first.keyPem })).nodeId, first.nodeId);
  const two = await Promise.allSettled([1, 2].map(async () => enrol(m, { keyPem: first.keyPem })));
  t.true(two.every((one) => one.status === 'fulfilled' && one.value.nodeId === first.nodeId));
  await m.attach(again).begin();
  await refusesAsync(t, enrol(m, { keyPem: first.keyPem }), 'already_exists', /this key is that of node/);
  t.is((await nodesOf(m)).length, 1);
});

test('one key that asks twice at once is one node', async (t) => {
  const m = await realManager(t);
  const token = await made(m, { uses: 5 });
  const { privatePem: keyPem } = generateNodeKey();
  const both = await Promise.all([enrol(m, { token, keyPem }), enrol(m, { token, keyPem })]);
  t.is(both[0].nodeId, both[1].nodeId);
  t.like((await tokensOf(m))[0], { usesLeft: 4 });
});

test('expired, rotated, revoked: refused at once, and only what never was counts as wrong', async (t) => {
  const m = await realManager(t);
  const token = await made(m, { uses: 5 });
  await enrol(m, { token });
  await m.clock.advance(60_000);
  await refusesAsync(t, enrol(m, { token }), 'bad_token', /expired at/);
  t.is((await m.operate('listJoinTokens', {})).refused, 0n);
  const standing = await m.running.joinToken();
  await m.operate('rotateJoinToken', { role: 'worker' });
  await refusesAsync(t, enrol(m, { token: standing }), 'bad_token', /not valid any more, or never was/);
  t.like(await m.operate('listJoinTokens', {}), { refused: 1n });
  t.regex((await m.operate('listJoinTokens', {})).refusedAddress, /^127\.0\.0\.1:/);
  for (let n = 1; n < managerLimits.maxWrongTokens; n++)
    await refusesAsync(t, enrol(m, { token: standing }), 'bad_token');
  await refusesAsync(t, enrol(m, {}), 'rate_limited', /from 127\.0\.0\.1/);
  await m.clock.advance(managerLimits.wrongTokensMs);
  await t.notThrowsAsync(enrol(m, {}));
  // Nothing of a token is in the log.
  const logged = JSON.stringify(m.logged);
  for (const text of [token, standing]) t.false(logged.includes(text.slice(-25)));
});

test('a host that waits gets its certificate when it is approved, with its own key alone', async (t) => {
  const m = await realManager(t);
  const token = await made(m, { requireApproval: true });
  const waiting = await enrol(m, { token });
  t.is(waiting.certPem, '');
  t.is(Number(waiting.pendingUntilMs), m.clock.now() + managerLimits.pendingNodeMs);
  t.like((await nodesOf(m))[0], { id: waiting.nodeId, status: 'pending', certificateExpiresMs: 0n });
  t.is((await enrol(m, { token, keyPem: waiting.keyPem })).nodeId, waiting.nodeId);
  await m.operate('approveNode', { name: waiting.nodeId });
  await refusesAsync(t, enrol(m, { token }), 'bad_token', /used up/);
  const approved = await enrol(m, { token, keyPem: waiting.keyPem });
  t.is(approved.nodeId, waiting.nodeId);
  t.is(readCertificate(approved.certPem).nodeId, waiting.nodeId);
  await m.attach(approved).begin();
  await refusesAsync(t, m.operate('approveNode', { name: waiting.nodeId }), 'not_found', /does not wait/);
});

test('a host that is rejected stays so; one that nobody looks at is forgotten', async (t) => {
  const m = await realManager(t);
  const token = await made(m, { requireApproval: true, uses: 3 });
  const rejected = await enrol(m, { token });
  await m.operate('rejectNode', { name: rejected.nodeId });
  t.deepEqual(await nodesOf(m), []);
  const again = enrol(m, { token, keyPem: rejected.keyPem });
  await refusesAsync(t, again, 'not_permitted', /an operator has rejected node/);
  t.like((await tokensOf(m))[0], { usesLeft: 2 });

  const forgotten = await enrol(m, { token });
  await m.clock.advance(managerLimits.pendingNodeMs);
  await refusesAsync(t, m.operate('approveNode', { name: forgotten.nodeId }), 'not_found');
  await m.clock.advance(managerLimits.sweepMs);
  t.deepEqual(await nodesOf(m), []);
});

test('what has expired goes: tokens a day after they ended', async (t) => {
  const m = await realManager(t);
  const used = await made(m, { ttlMs: 30 * dayMs });
  await enrol(m, { token: used });
  await made(m, { ttlMs: 60_000 });
  await made(m, { ttlMs: 30 * dayMs });
  t.is((await tokensOf(m)).length, 3);
  await m.clock.advance(dayMs + 2 * managerLimits.sweepMs);
  t.deepEqual(
    (await tokensOf(m)).map(({ usesLeft }) => usesLeft),
    [1],
  );
});

test('an expired node that proves its former key keeps its id', async (t) => {
  const m = await realManager(t);
  const was = await m.joined();
  await m.attach(was).begin();
  m.clock.setWall(m.clock.now() + pkiLimits.nodeLifetimeMs + dayMs);
  const { privatePem: keyPem } = generateNodeKey();
  const now = await enrol(m, { keyPem, former: proofOf(m, was, keyPem) });
  t.is(now.nodeId, was.nodeId);
  t.is(now.newIdBecause, '');
  t.is((await nodesOf(m)).length, 1);
  t.is(readCertificate(now.certPem).notAfterMs, Number((await nodesOf(m))[0]?.certificateExpiresMs));
});

test('a proof that is not by the former key, for this new key, is refused', async (t) => {
  const m = await realManager(t);
  const was = await m.joined();
  const other = await m.joined();
  const { privatePem: keyPem } = generateNodeKey();
  const foreign = fakeCluster();
  const refusals = {
    'signed by another node': proofOf(m, was, keyPem, { signWith: other.keyPem }),
    'signed by the new key': proofOf(m, was, keyPem, { signWith: keyPem }),
    'for another new key': proofOf(m, was, generateNodeKey().privatePem),
    'for another node': proofOf(m, was, keyPem, { nodeId: other.nodeId }),
    'for another cluster': proofOf(m, was, keyPem, { clusterId: foreign.clusterId }),
    'no signature': { certificatePem: was.certPem, proof: randomBytes(70) },
  };
  for (const [how, former] of Object.entries(refusals))
    await t.throwsAsync(enrol(m, { keyPem, former }), { code: 'unauthenticated' } as never, how);
  for (const certPem of [
    foreign.worker({ nodeId: was.nodeId }).certPem,
    m.issue('manager', was.nodeId).certPem,
  ]) {
    const former = proofOf(m, { ...was, certPem }, keyPem);
    await t.throwsAsync(enrol(m, { keyPem, former }), { message: /cluster|for a manager/ });
  }
  await refusesAsync(
    t,
    enrol(m, { keyPem, former: { certificatePem: 'x', proof: randomBytes(70) } }),
    'bad_certificate',
  );
  t.is((await nodesOf(m)).length, 2);
});

test('a proof alone is not enough: it takes a token, too', async (t) => {
  const m = await realManager(t);
  const was = await m.joined();
  const stale = await m.running.joinToken();
  await m.operate('rotateJoinToken', { role: 'worker' });
  const { privatePem: keyPem } = generateNodeKey();
  await refusesAsync(t, enrol(m, { keyPem, token: stale, former: proofOf(m, was, keyPem) }), 'bad_token');
});

test('a node that was removed, or has had two keys since, does not get its id back', async (t) => {
  const m = await realManager(t);
  const first = await m.joined();
  let last = first;
  for (let n = 0; n < 2; n++) {
    // Past the end of its certificate, so that no refusal of it is kept.
    m.clock.setWall(m.clock.now() + pkiLimits.nodeLifetimeMs + dayMs);
    const { privatePem: keyPem } = generateNodeKey();
    last = await enrol(m, { keyPem, former: proofOf(m, last, keyPem) });
    t.is(last.nodeId, first.nodeId);
  }
  const { privatePem: keyPem } = generateNodeKey();
  const stranger = await enrol(m, { keyPem, former: proofOf(m, first, keyPem) });
  t.not(stranger.nodeId, first.nodeId);
  t.regex(stranger.newIdBecause, /has had other keys since/);

  await m.operate('removeNode', { name: first.nodeId, force: true });
  const { privatePem: nextPem } = generateNodeKey();
  const renewed = await enrol(m, { keyPem: nextPem, former: proofOf(m, last, nextPem) });
  t.not(renewed.nodeId, first.nodeId);
  t.regex(renewed.newIdBecause, /was removed/);
  // Nor is its key good for a node of another id.
  await refusesAsync(t, enrol(m, { keyPem: last.keyPem }), 'not_permitted', /was removed/);
});

async function refusedSoon(t: ExecutionContext, m: RealManager, identity: FakeIdentity, words: RegExp) {
  await refusesAsync(t, call(m.connect(identity), Enrollment, 'getRoot', {}), 'not_permitted', words);
}

test('what was removed is refused by id, by serial and by key, over a restart, until its certificate ends', async (t) => {
  const m = await realManager(t);
  const removed = await m.joined();
  const stays = await m.joined();
  await m.operate('removeNode', { name: removed.nodeId, force: true });
  const csr = createCsr(readPrivateKey(removed.keyPem));
  const sameId = m.issue('worker', removed.nodeId);
  const issued = m.authority.issueNode({ csr, nodeId: m.issue('worker').nodeId, role: 'worker' });
  const sameKey = { nodeId: issued.nodeId, certPem: issued.pem, keyPem: removed.keyPem };
  const later = await m.restarted(async () => undefined);
  for (const manager of [later])
    for (const identity of [removed, sameId, sameKey])
      await refusedSoon(t, manager, identity, new RegExp(`node ${removed.nodeId} was removed`));
  await t.notThrowsAsync(call(later.connect(stays), Enrollment, 'getRoot', {}));
});
