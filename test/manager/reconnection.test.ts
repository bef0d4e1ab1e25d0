/** A manager that is started anew: all agents come back at once, and each has what it had. Over real TLS. */
import test from 'ava';
import type { Assignment, FakeNode } from '../support/fake_node.js';
import { realManager } from '../support/real_manager.js';

const nodes = 24;
const value = 'v'.repeat(20_000);

const holdingsOf = ({ versions }: Assignment) =>
  versions.map(({ secretId, version, ciphertextDigest }) => ({ secretId, version, ciphertextDigest }));

const ciphertextBytes = (assignments: readonly Assignment[]): number =>
  assignments.flatMap(({ versions }) => versions).reduce((sum, { ciphertext }) => sum + ciphertext.length, 0);

test('after a manager’s start every agent is answered, none is sent what it holds, and one that lost it is sent it', async (t) => {
  const manager = await realManager(t);
  const secretId = await manager.createSecret('key', value);
  const identities = [];
  for (let n = 0; n < nodes; n++) identities.push(await manager.joined());
  const { id } = await manager.operate('createService', {
    name: 'all',
    global: true,
    references: [{ secretName: 'key', target: 'key', uid: '0', gid: '0', mode: 0o444 }],
  });
  const withTask = async (node: FakeNode, first: Assignment): Promise<Assignment> => {
    let got = first;
    while (got.tasks.length === 0) got = await node.assignment();
    await node.applied(got);
    return got;
  };
  const before = await Promise.all(
    identities.map(async (identity) => {
      const node = manager.attach(identity);
      return withTask(node, await node.begin());
    }),
  );
  t.true(ciphertextBytes(before) >= nodes * value.length);

  const next = await manager.restarted(async () => undefined);
  const after = await Promise.all(
    identities.map(async (identity, n) => {
      const node = next.attach(identity);
      // The last one lost its power meanwhile.
      const holdings = n < nodes - 1 ? holdingsOf(before[n] as Assignment) : [];
      const assignment = await node.begin({ holdings });
      await node.applied(assignment);
      return assignment;
    }),
  );
  t.deepEqual(
    after.map(({ complete, tasks }) => [complete, tasks.map(({ serviceId }) => serviceId)]),
    identities.map(() => [true, [id]]),
  );
  t.is(ciphertextBytes(after.slice(0, -1)), 0);
  t.true(ciphertextBytes(after.slice(-1)) >= value.length);
  const same = (all: readonly Assignment[]) => all.map(({ tasks }) => tasks.map((task) => task.id));
  t.deepEqual(same(after), same(before), 'no task was replaced');
  const [shown] = (await next.operate('getSecret', { name: secretId })).versions;
  t.is(shown?.nodes, nodes);
});
