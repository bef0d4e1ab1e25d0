/** What is told of what happens: read off the store's feed and the nodes' streams of a real manager. */
import test from 'ava';
import { generateNodeKey } from '../../src/crypto/signing.js';
import { managerLimits } from '../../src/manager/limits.js';
import { createCsr } from '../../src/pki/csr.js';
import type { ClusterEvent } from '../../src/proto/gen/inro/v1/control_pb.js';
import { realManager, type RealManager } from '../support/real_manager.js';

const all = async (m: RealManager): Promise<ClusterEvent[]> => (await m.operate('listEvents', {})).events;
const words = ({ type, action, name, attributes }: ClusterEvent): string =>
  [type, action, name, ...Object.entries(attributes).map(([key, value]) => `${key}=${value}`)]
    .join(' ')
    .trimEnd();

test('secrets, services, tasks, nodes, tokens, operators and the CA: each change once, and no value', async (t) => {
  const m = await realManager(t);
  const id = await m.createSecret('db', 'a value that stands nowhere');
  await m.createService('web', ['db']);
  await m.updateSecret(id, 2, 'nor does this');
  await m.operate('revokeSecret', { name: 'db', version: 1 });
  await m.operate('rotateJoinToken', { role: 'worker' });
  const { id: tokenId } = await m.operate('createJoinToken', { role: 'worker', ttlMs: 60_000n, uses: 1 });
  await m.operate('revokeJoinToken', { name: tokenId });
  const csrPem = createCsr(generateNodeKey().privateKey);
  await m.operate('createOperator', { name: 'bob', role: 'auditor', ttlMs: 86_400_000n, csrPem });
  await m.operate('updateOperator', { name: 'bob', role: 'admin' });
  await m.operate('revokeOperator', { name: 'bob' });
  await m.operate('removeOperator', { name: 'bob' });
  await m.operate('updateCa', { certificateLifetimeMs: 86_400_000n });
  await m.operate('removeService', { name: 'web' });
  await m.operate('removeSecret', { name: 'db' });
  const told = await all(m);
  t.deepEqual(told.map(words), [
    'secret create db version=1',
    'service create web',
    'task create web.1 service=web error=no node is ready',
    'secret update db version=2',
    'secret revoke db version=1',
    'token rotate',
    'token create',
    'token remove',
    'operator create bob role=auditor',
    'operator update bob role=admin',
    'operator revoke bob role=admin',
    'operator remove bob role=admin',
    'ca update',
    'service remove web',
    'secret remove db',
  ]);
  t.deepEqual(
    told.map(({ number }) => Number(number)),
    told.map((_, n) => n + 1),
  );
  t.true(told.every(({ id: of }) => of !== ''));
  const text = told.map(words).join();
  t.false(/a value that|nor does this/.test(text));
});

test('a node joins, is ready, takes a task, goes down and is removed; a task ends', async (t) => {
  const m = await realManager(t);
  const identity = await m.joined();
  const node = m.attach(identity);
  await node.begin();
  const heard = async (what: RegExp): Promise<void> => {
    for (let tries = 0; tries < 100 && !(await all(m)).map(words).some((one) => what.test(one)); tries++)
      await m.clock.advance(managerLimits.nodeEventCheckMs);
    t.true(
      (await all(m)).map(words).some((one) => what.test(one)),
      String(what),
    );
  };
  await heard(/^node join/);
  await heard(/^node ready/);
  await m.operate('updateNode', { name: identity.nodeId, labelsAdd: { zone: 'a' } });
  await heard(/^node update .*changed=labels/);
  await m.createSecret('db', 'x');
  await m.createService('web', ['db'], identity.nodeId);
  await heard(new RegExp(`^task create web.1 service=web node=${identity.nodeId}`));
  await m.clock.advance(managerLimits.missedBeats * managerLimits.heartbeatPeriodMs + 1);
  await heard(/^node down/);
  await m.operate('removeNode', { name: identity.nodeId, force: true });
  await heard(/^node removing/);
  await heard(/^task orphaned web.1 .*error=its node was removed/);
  await heard(/^node remove/);
});

test('who waits hears at once; another manager counts anew; the oldest go', async (t) => {
  const m = await realManager(t);
  const { runId, last } = await m.operate('listEvents', {});
  const waiting = m.operate('listEvents', { runId, after: last, waitMs: 20_000 });
  await new Promise((resolve) => setTimeout(resolve, 100));
  await m.createSecret('a', 'x');
  t.deepEqual((await waiting).events.map(words), ['secret create a version=1']);
  const later = await m.restarted(async () => undefined);
  await later.createSecret('b', 'x');
  const page = await later.operate('listEvents', { runId, after: 1_000n });
  t.not(page.runId, runId);
  t.deepEqual(page.events.map(words), ['secret create b version=1']);
});
