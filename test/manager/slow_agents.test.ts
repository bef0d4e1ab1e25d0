/** Agents that take nothing, ask for too much, or come again and again: they are held up, and nobody else is. Over real TLS. */
import test, { type ExecutionContext } from 'ava';
import { managerLimits } from '../../src/manager/limits.js';
import { InroError } from '../../src/model/error.js';
import type { FakeIdentity } from '../support/fake_authority.js';
import type { Assignment, FakeNode } from '../support/fake_node.js';
import { realManager, type RealManager } from '../support/real_manager.js';
import { refusesAsync } from '../support/refuses.js';

interface Scene {
  manager: RealManager;
  slow: FakeIdentity;
  /** Attached; it has the same secret. */
  other: FakeNode;
  secretId: string;
}

const large = (version: number): string => `${version} `.padEnd(100_000, '.');

async function scene(t: ExecutionContext): Promise<Scene> {
  const manager = await realManager(t);
  const [slow, honest] = [await manager.joined(), await manager.joined()];
  const secretId = await manager.createSecret('big', large(1));
  await manager.createService('slow', ['big'], slow.nodeId);
  await manager.createService('other', ['big'], honest.nodeId);
  const other = manager.attach(honest);
  await withVersion(other, await other.begin(), 1);
  return { manager, slow, other, secretId };
}

/** Reads on until an assignment has this version; says of each that it is applied. */
async function withVersion(node: FakeNode, first: Assignment, version: number): Promise<void> {
  for (let assignment = first; ; assignment = await node.assignment()) {
    await node.applied(assignment);
    const found = assignment.versions.find((each) => each.version === version);
    if (found === undefined) continue;
    if (node.open(found) !== large(version)) throw new Error(`this is not version ${version}`);
    return;
  }
}

test('who reads nothing keeps nobody waiting, and little waits for him: he is dropped, and comes back to the newest', async (t) => {
  const { manager, slow, other, secretId } = await scene(t);
  const node = manager.attach(slow);
  await withVersion(node, await node.begin(), 1);
  const last = 25;
  for (let version = 2; version <= last; version++) {
    await manager.updateSecret(secretId, version, large(version));
    await withVersion(other, await other.assignment(), version);
  }

  await manager.clock.advance(managerLimits.takeMs + 2 * managerLimits.nodeCheckMs);
  t.like(await manager.operate('getNode', { name: slow.nodeId }), { status: 'down' });
  let sent = 0;
  const why = await t.throwsAsync<InroError>(
    (async () => {
      for (;;) sent += (await node.assignment()).versions.length;
    })(),
  );
  t.log(`${sent} of ${last - 1} versions had been sent; then: ${why.message}`);
  t.true(sent < last / 2, `${sent} versions were on their way`);
  const again = manager.attach(slow);
  await t.notThrowsAsync(withVersion(again, await again.begin(), last));
});

test('a node that comes again and again is let in a few times, then once a second; others come in at once', async (t) => {
  const { manager, slow, other, secretId } = await scene(t);
  const connection = manager.connect(slow);
  const outcomes: string[] = [];
  const { atOnce } = managerLimits.streamPace;
  for (let n = 0; n < 3 * atOnce; n++) {
    const channel = manager.open(connection);
    const first = await channel.messages[Symbol.asyncIterator]()
      .next()
      .catch((error: InroError) => error.code);
    outcomes.push(typeof first === 'string' ? first : 'challenge');
    channel.close();
  }
  t.deepEqual(new Set(outcomes.slice(0, atOnce)), new Set(['challenge']));
  t.deepEqual(new Set(outcomes.slice(atOnce)), new Set(['rate_limited']));
  await manager.updateSecret(secretId, 2, large(2));
  await withVersion(other, await other.assignment(), 2);
  const third = await manager.joined();
  await manager.attach(third).begin();
  await manager.clock.advance(1_000 / managerLimits.streamPace.perSecond);
  await manager.attach(slow).begin();
  await refusesAsync(t, manager.attach(slow).next(), 'rate_limited', /comes again too often/);
});

test('who says more than it may is listened to more slowly; others are not', async (t) => {
  const { manager, slow, other, secretId } = await scene(t);
  const { atOnce, perSecond } = managerLimits.wordsPace;
  const node = manager.attach(slow);
  await node.begin();
  const tasks = Array.from({ length: managerLimits.maxStatusesPerMessage }, () => ({ id: '' }));
  const cost = 2 + tasks.length / 10;
  const last = Math.ceil(atOnce / cost) + 3;
  for (let sequence = 1; sequence <= last; sequence++) {
    await node.applied({ revision: 0, tasks });
    await node.channel.send({ message: { case: 'heartbeat', value: { sequence } } });
  }
  const answered = Math.floor(atOnce / cost);
  for (let n = 1; n <= answered; n++) t.is((await node.hears('heartbeatAck')).value.sequence, n);
  let isHeard = false;
  const rest = (async () => {
    for (let n = answered + 1; n <= last; n++, isHeard = true) await node.hears('heartbeatAck');
  })();
  await manager.updateSecret(secretId, 2, large(2));
  await withVersion(other, await other.assignment(), 2);
  t.false(isHeard);
  await manager.clock.advance(((4 * cost) / perSecond) * 1_000);
  await rest;
});

test('an agent that was away for long brings all its receipts at once, and others have a turn between their checks', async (t) => {
  const { manager, slow, other, secretId } = await scene(t);
  const node = manager.attach(slow);
  await node.begin();
  const says = (number: number) => ({ number, secretId, reason: 'superseded' as const });
  const receipts = Array.from({ length: managerLimits.maxReceiptsPerMessage }, (_, n) =>
    node.receipt(says(n + 1)),
  );
  let turns = 0;
  let isOver = false;
  const turn = (): void => {
    turns += 1;
    if (!isOver) setImmediate(turn);
  };
  const taken = node.report(receipts).then(() => node.taken());
  setImmediate(turn);
  await manager.updateSecret(secretId, 2, large(2));
  await withVersion(other, await other.assignment(), 2);
  t.like(await taken, { number: BigInt(receipts.length) });
  isOver = true;
  t.true(turns >= receipts.length / managerLimits.receiptsPerTurn, `${turns} turns`);
});

test('a holding that is named thousands of times costs as much as one', async (t) => {
  const { manager, slow, other, secretId } = await scene(t);
  const first = manager.attach(slow);
  let got = await first.begin();
  while (got.versions.length === 0) got = await first.assignment();
  first.channel.close();
  const ciphertextDigest = got.versions[0]?.ciphertextDigest ?? new Uint8Array();
  const again = manager.attach(slow);
  const holdings = Array.from({ length: 15_000 }, () => ({ secretId, version: 1, ciphertextDigest }));
  const beginning = again.begin({ holdings });
  await manager.updateSecret(secretId, 2, large(2));
  await withVersion(other, await other.assignment(), 2);
  const assignment = await beginning;
  t.true(
    assignment.versions.every(({ version: number, ciphertext }) => number > 1 || ciphertext.length === 0),
  );
});
