/** A rack is switched on: all its hosts enrol at once, against a real manager. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { joinCluster } from '../../src/agent/join.js';
import { loadIdentity } from '../../src/agent/identity.js';
import { parseJoinToken } from '../../src/pki/join_token.js';
import { realManager } from '../support/real_manager.js';

const hosts = 500;
const uses = 490;

test('500 hosts at once: each is enrolled once, and a token lets in as many as it says', async (t) => {
  t.timeout(300_000);
  const m = await realManager(t);
  const folder = mkdtempSync(join(tmpdir(), 'inro-storm-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const made = await m.operate('createJoinToken', { role: 'worker', uses, nodeLabels: { rack: '7' } });
  const token = parseJoinToken(made.token);
  const stateFolder = (n: number): string => join(folder, String(n));
  const joinOne = (n: number) =>
    joinCluster({ token, manager: m.running.address, stateFolder: stateFolder(n), clock: m.clock });
  const outcomes = await Promise.allSettled(Array.from({ length: hosts }, (_, n) => joinOne(n)));

  const refused = outcomes.flatMap((one) => (one.status === 'rejected' ? [one.reason as Error] : []));
  t.is(refused.length, hosts - uses);
  for (const error of refused) t.like(error, { code: 'bad_token' });
  const ids = outcomes.flatMap((one) => (one.status === 'fulfilled' ? [one.value.nodeId] : []));
  t.is(new Set(ids).size, uses);
  const { nodes } = await m.operate('listNodes', {});
  t.deepEqual(nodes.map(({ id }) => id).sort(), [...ids].sort());
  t.true(nodes.every(({ labels }) => labels['rack'] === '7'));
  for (const [n, one] of outcomes.entries()) {
    if (one.status === 'fulfilled')
      t.is(loadIdentity(stateFolder(n), m.clock.now()).nodeId, one.value.nodeId);
  }
  const { tokens } = await m.operate('listJoinTokens', {});
  t.is(tokens.find(({ id }) => id === made.id)?.usesLeft, 0);
});
