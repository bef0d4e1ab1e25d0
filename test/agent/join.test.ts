/** Joining and enrolling again, from the host's side, against a real manager whose clock the test moves. */
import { mkdtempSync, copyFileSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { loadIdentity } from '../../src/agent/identity.js';
import { joinCluster, type Joined } from '../../src/agent/join.js';
import { finishJoining, joiningKey } from '../../src/agent/joining.js';
import { generateNodeKey } from '../../src/crypto/signing.js';
import { limits as pkiLimits } from '../../src/pki/limits.js';
import { parseJoinToken } from '../../src/pki/join_token.js';
import { realManager, type RealManager } from '../support/real_manager.js';
import { refuses, refusesAsync } from '../support/refuses.js';

const dayMs = 24 * 60 * 60 * 1000;

function folderOf(t: ExecutionContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'inro-join-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

async function joins(m: RealManager, stateFolder: string, again = false): Promise<Joined> {
  const token = parseJoinToken(await m.running.joinToken());
  return joinCluster({ token, manager: m.running.address, stateFolder, clock: m.clock, again });
}

test('a host that has expired says what to do, and then is the node that it was, with a new key', async (t) => {
  const m = await realManager(t);
  const folder = folderOf(t);
  const first = await joins(m, folder);
  t.false(first.isSame);
  await refusesAsync(t, joins(m, folder), 'already_exists', /has joined a cluster already/);
  const key = readFileSync(join(folder, 'node.key'), 'utf8');
  m.clock.setWall(m.clock.now() + pkiLimits.nodeLifetimeMs + dayMs);
  const error = refuses(t, () => loadIdentity(folder, m.clock.now()), 'bad_certificate', /expired at/);
  t.regex(
    error.remedy ?? '',
    /the node keeps its id: stop the agent, then 'inro agent join --token - --manager/,
  );

  const second = await joins(m, folder);
  t.like(second, { nodeId: first.nodeId, isSame: true, newIdBecause: '' });
  t.is(loadIdentity(folder, m.clock.now()).nodeId, first.nodeId);
  t.not(readFileSync(join(folder, 'node.key'), 'utf8'), key);
  t.false(existsSync(join(folder, 'joining.key')));
});

test('without its key, or removed, it is another node; in another cluster it stays where it is', async (t) => {
  const m = await realManager(t);
  const folder = folderOf(t);
  const first = await joins(m, folder);
  writeFileSync(join(folder, 'node.key'), generateNodeKey().privatePem);
  const second = await joins(m, folder, true);
  t.not(second.nodeId, first.nodeId);
  await m.operate('removeNode', { name: second.nodeId, force: true });
  const third = await joins(m, folder, true);
  t.not(third.nodeId, second.nodeId);
  t.regex(third.newIdBecause, /was removed/);

  const other = await realManager(t);
  await refusesAsync(t, joins(other, folder, true), 'already_exists', /the token is of cluster/);
  t.is(loadIdentity(folder, m.clock.now()).nodeId, third.nodeId);
});

test('a stop at any moment leaves a host that joined, or one that can', async (t) => {
  const m = await realManager(t);
  const folder = folderOf(t);
  const whole = (name: string): string => join(folder, name);

  // After the key, before the answer: the next try uses the same key, and a damaged one is drawn anew.
  const begun = joiningKey(folder);
  t.true(joiningKey(folder).equals(begun));
  writeFileSync(whole('joining.key'), 'cut');
  const drawn = joiningKey(folder);
  t.false(drawn.equals(begun));
  finishJoining(folder);
  t.true(existsSync(whole('joining.key')), 'it has no certificate');
  const first = await joins(m, folder);
  t.true(loadIdentity(folder, m.clock.now()).key.equals(drawn));

  // After the certificate of an enrolment, before its key took the place of the former one.
  copyFileSync(whole('node.key'), whole('former.key'));
  await joins(m, folder, true);
  copyFileSync(whole('node.key'), whole('joining.key'));
  copyFileSync(whole('former.key'), whole('node.key'));
  refuses(t, () => loadIdentity(folder, m.clock.now()), 'bad_certificate', /for another key/);
  finishJoining(folder);
  t.is(loadIdentity(folder, m.clock.now()).nodeId, first.nodeId);
  t.false(existsSync(whole('joining.key')));
});
