import test, { type ExecutionContext } from 'ava';
import { randomBytes } from 'node:crypto';
import { create } from '@bufbuild/protobuf';
import { Clones } from '../../src/manager/clones.js';
import { managerLimits } from '../../src/manager/limits.js';
import type { NodeSession } from '../../src/manager/node_session.js';
import { noteCertificate } from '../../src/manager/node_record.js';
import type { Certificate } from '../../src/pki/certificate.js';
import { NodeRecordSchema, type NodeRecord } from '../../src/proto/gen/inro/v1/records_pb.js';
import { generateNodeKey } from '../../src/crypto/signing.js';
import { settle } from '../support/fake_clock.js';
import { fakeManager, type FakeManager } from '../support/fake_manager.js';
import type { FakeNode } from '../support/fake_node.js';

const patienceMs = managerLimits.clonePatienceBeats * managerLimits.heartbeatPeriodMs;

/** A node that is here, and has a task with a secret. */
async function nodeOf(t: ExecutionContext) {
  const m = await fakeManager();
  t.teardown(() => m.stop());
  const identity = await m.joined();
  const first = m.attach(identity);
  await first.node.begin();
  await m.createSecret('db', 'hunter2');
  await m.createService('web', { secrets: ['db'] });
  await first.node.assignment();
  return { m, identity, first };
}

async function answers(node: FakeNode): Promise<void> {
  const message = await node.hears('presence');
  await node.channel.send({ message });
}

/** The next tasks that it is given. */
async function tasks(node: FakeNode): Promise<string[]> {
  for (;;) {
    const given = (await node.assignment()).tasks;
    if (given.length > 0) return given.map(({ serviceName }) => serviceName);
  }
}

const record = (m: FakeManager, nodeId: string): NodeRecord => m.view.nodes.get(nodeId) as NodeRecord;

test('two that answer: the newer is held back and gets nothing, operators hear of it', async (t) => {
  const { m, identity, first } = await nodeOf(t);
  const second = m.attach(identity);
  await second.node.hello({ hostname: 'the-copy' });
  await answers(first.node);
  const refusal = (await second.ended) as Error & { code: string };
  t.like(refusal, { code: 'conflict' });
  t.regex(refusal.message, /two hosts use one identity/);
  await t.throwsAsync(second.node.expect('welcome'));
  t.like(record(m, identity.nodeId).clone, { kind: 'two hosts', count: 1, otherHostname: 'the-copy' });
  t.not(record(m, identity.nodeId).description?.hostname, 'the-copy', 'what it says of itself is not taken');
  t.is(m.logged.filter(({ msg }) => msg === 'an identity is used twice').length, 1);
  const lines = (await m.operate('listAudit', {})).records ?? [];
  t.like(lines.at(-1), { action: 'clone', object: identity.nodeId, outcome: 'alarm' });
  t.regex(lines.at(-1)?.reason ?? '', /used twice \(two hosts\)/);
  // The first is served as before.
  await m.createService('late', { secrets: ['db'] });
  t.deepEqual(await tasks(first.node), ['late']);
  t.is(m.dispatcher.statusOf(identity.nodeId), 'ready');
});

test('the alarm is noted once a minute, and stays until an operator clears it', async (t) => {
  const { m, identity, first } = await nodeOf(t);
  const again = async (): Promise<void> => {
    const { node, ended } = m.attach(identity);
    await node.hello();
    await answers(first.node);
    await ended;
  };
  await again();
  await again();
  t.is(record(m, identity.nodeId).clone?.count, 1);
  await m.clock.advance(managerLimits.cloneAlarmGapMs);
  await again();
  t.is(record(m, identity.nodeId).clone?.count, 2);
  t.like(await m.operate('getNode', { name: identity.nodeId }), { clone: { kind: 'two hosts', count: 2 } });
  const cleared = await m.operate('clearNodeAlarm', { name: identity.nodeId });
  t.is(cleared.clone, undefined);
  t.is(record(m, identity.nodeId).clone, undefined);
  await t.throwsAsync(m.operate('clearNodeAlarm', { name: identity.nodeId }), { code: 'not_found' });
  await again();
  t.is(record(m, identity.nodeId).clone?.count, 1);
});

test('one that says nothing for two heartbeats is replaced, and not before', async (t) => {
  const { m, identity, first } = await nodeOf(t);
  const second = m.attach(identity);
  await second.node.hello();
  await first.node.hears('presence');
  await m.clock.advance(patienceMs - 1);
  t.false(first.node.channel.closed.aborted);
  await m.clock.advance(1);
  t.is((await second.node.expect('welcome')).case, 'welcome');
  t.is((await second.node.assignment()).tasks.length, 1);
  await first.ended;
  t.true(first.node.channel.closed.aborted);
  t.is(record(m, identity.nodeId).clone, undefined, 'a host that lost its power is no clone');
  t.is(m.dispatcher.statusOf(identity.nodeId), 'ready');
});

test('beats that were on their way, and an answer to another question, are no answer', async (t) => {
  const { m, identity, first } = await nodeOf(t);
  const second = m.attach(identity);
  await second.node.hello();
  await first.node.hears('presence');
  await first.node.channel.send({ message: { case: 'heartbeat', value: { sequence: 1 } } });
  await first.node.channel.send({ message: { case: 'presence', value: { nonce: randomBytes(32) } } });
  await m.clock.advance(patienceMs);
  t.is((await second.node.expect('welcome')).case, 'welcome');
});

test('an answer that nobody has asked for does no harm', async (t) => {
  const { m, identity, first } = await nodeOf(t);
  await first.node.channel.send({ message: { case: 'presence', value: { nonce: randomBytes(32) } } });
  await settle();
  t.is(m.dispatcher.statusOf(identity.nodeId), 'ready');
  t.false(first.node.channel.closed.aborted);
});

test('one whose stream ends while it is asked is replaced at once', async (t) => {
  const { m, identity, first } = await nodeOf(t);
  const second = m.attach(identity);
  await second.node.hello();
  await first.node.hears('presence');
  first.node.channel.close();
  t.is((await second.node.expect('welcome')).case, 'welcome');
  t.is(record(m, identity.nodeId).clone, undefined);
});

test('one at a time waits; the place of one that went away is free', async (t) => {
  const { m, identity, first } = await nodeOf(t);
  const second = m.attach(identity);
  await second.node.hello();
  await first.node.hears('presence');
  const third = m.attach(identity);
  await third.node.hello();
  t.like(await third.ended, { code: 'conflict' });
  second.node.channel.close();
  await second.ended;
  const fourth = m.attach(identity);
  await fourth.node.hello();
  await answers(first.node);
  t.regex(((await fourth.ended) as Error).message, /two hosts/);
  t.is(m.clock.pending, 0);
});

test('while one waits, the other one alone gets what changes', async (t) => {
  const { m, identity, first } = await nodeOf(t);
  const second = m.attach(identity);
  await second.node.hello();
  await first.node.hears('presence');
  await m.createService('late', { secrets: ['db'] });
  t.deepEqual(await tasks(first.node), ['late']);
  await m.clock.advance(patienceMs);
  t.is((await second.node.expect('welcome')).case, 'welcome');
  t.deepEqual((await tasks(second.node)).sort(), ['late', 'web']);
  const before = await first.node.rest().catch(() => []);
  await m.createService('later', { secrets: ['db'] });
  t.deepEqual(await tasks(second.node), ['later']);
  t.false(before.some((message) => message?.case === 'change'));
});

test('who comes with an older certificate than was used before', async (t) => {
  const m = await fakeManager();
  t.teardown(() => m.stop());
  const clones = new Clones({ store: m.store, audit: m.audit, clock: m.clock, log: m.log });
  const certificates = [1, 2, 3].map(
    (n) => ({ publicKey: generateNodeKey().publicKey, serial: String(n), notAfterMs: n }) as Certificate,
  );
  const [one, two, three] = certificates as [Certificate, Certificate, Certificate];
  const node = create(NodeRecordSchema, { id: 'n' });
  const other = { address: '10.0.0.9:1', hostname: 'copy', bootId: 'b' };
  const uses = (certificate: Certificate): string => {
    delete node.clone;
    clones.noteUse(node, { address: '10.0.0.9:1', certificate } as NodeSession, other);
    return (node.clone as NodeRecord['clone'])?.kind ?? '';
  };
  const issuedCa = new Uint8Array(32);
  noteCertificate(node, { certificate: one, issuedCa });
  t.is(uses(one), '');
  noteCertificate(node, { certificate: two, issuedCa });
  t.is(uses(one), '', 'the new one has not reached it');
  t.is(uses(two), '');
  t.is(uses(one), 'old certificate');
  t.is(uses(two), '');
  noteCertificate(node, { certificate: three, issuedCa });
  t.is(uses(three), '');
  t.is(uses(two), 'old certificate');
  t.is(uses(one), 'old certificate');
});
