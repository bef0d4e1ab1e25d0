import test, { type ExecutionContext } from 'ava';
import { managerLimits } from '../../src/manager/limits.js';
import { waitForWipes } from '../../src/manager/wait_wipes.js';
import type { Control, NodeWipeSchema } from '../../src/proto/gen/inro/v1/control_pb.js';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { stateOf } from '../../src/proto/task_state.js';
import type { OutputInit } from '../../src/rpc/definition.js';
import { ciphertextPrefix, tables, versionKey } from '../../src/store/tables.js';
import { transact } from '../../src/store/transaction.js';
import { settle } from '../support/fake_clock.js';
import { fakeManager, type Attached, type FakeManager } from '../support/fake_manager.js';
import type { FakeIdentity } from '../support/fake_authority.js';
import type { Assignment, HelloChanges, Said } from '../support/fake_node.js';
import { fakeStore } from '../support/fake_store.js';
import { refusesAsync } from '../support/refuses.js';

type Revoked = Required<OutputInit<(typeof Control)['method']['revokeSecret']>>;
type Wipe = MessageInitShape<typeof NodeWipeSchema>;

interface Node extends Attached {
  identity: FakeIdentity;
  nodeId: string;
  /** The next assignment that says something; what says nothing is done at once. */
  told(): Promise<Assignment>;
  /** Takes it and says that it is done; with it, receipts. */
  apply(receipts?: Partial<Said>[]): Promise<Assignment>;
  /** Breaks the stream and waits until the manager has seen it. */
  goAway(): Promise<void>;
}

async function cluster(
  t: ExecutionContext,
  options?: Parameters<typeof fakeManager>[0],
): Promise<FakeManager> {
  const m = await fakeManager(options);
  t.teardown(() => m.stop());
  return m;
}

async function attached(m: FakeManager, identity: FakeIdentity, hello: HelloChanges = {}): Promise<Node> {
  const one = m.attach(identity);
  const { node } = one;
  const name = `host-${[...m.view.nodes.keys()].indexOf(identity.nodeId) + 1}`;
  await node.hello({ hostname: name, ...hello });
  node.welcome = (await node.expect('welcome')).value;
  const told = async (): Promise<Assignment> => {
    let assignment = await node.assignment();
    for (; isEmpty(assignment); assignment = await node.assignment()) await node.applied(assignment);
    return assignment;
  };
  return {
    ...one,
    identity,
    nodeId: identity.nodeId,
    told,
    async apply(receipts = []) {
      const assignment = await told();
      if (receipts.length > 0) {
        await node.report(receipts.map((says) => node.receipt(says)));
        await node.taken();
      }
      await node.applied(assignment);
      await settle();
      return assignment;
    },
    async goAway() {
      one.breakOff();
      await one.ended;
      await settle();
    },
  };
}

/** As when the manager only wants to hear that a node is up to date. */
function isEmpty({ complete, tasks, removed, revoked, versions }: Assignment): boolean {
  return !complete && [tasks, removed, revoked, versions].every((changes) => changes.length === 0);
}

async function nodeOf(m: FakeManager, hello?: HelloChanges): Promise<Node> {
  const node = await attached(m, await m.joined(), hello);
  await node.apply();
  return node;
}

/** Secret `db`, on as many nodes, each of which runs a task of service `web`. */
async function scene(t: ExecutionContext, count = 1) {
  const m = await cluster(t);
  const secretId = await m.createSecret('db', 'hunter2');
  const nodes: Node[] = [];
  for (let n = 0; n < count; n++) nodes.push(await nodeOf(m));
  const serviceId = await m.createService('web', { secrets: ['db'], replicas: count });
  for (const node of nodes) await node.apply();
  return { m, secretId, serviceId, nodes, node: nodes[0] as Node };
}

async function revoke(m: FakeManager, version = 0, name = 'db'): Promise<Revoked> {
  return (await m.operate('revokeSecret', { name, version, operator: 'alice as root' })) as Revoked;
}

interface Waiting {
  /** undefined while it waits. */
  nodes: Wipe[] | undefined;
  gone: AbortController;
}

function wait(m: FakeManager, revoked: Revoked, timeoutMs = 30_000): Waiting {
  const waiting: Waiting = { nodes: undefined, gone: new AbortController() };
  const { secretId, version, nodeIds, revokedMs: sinceMs } = revoked;
  const request = { secretId, version, nodeIds, sinceMs, timeoutMs } as Parameters<typeof waitForWipes>[0];
  void waitForWipes(request, m, waiting.gone.signal).then(({ nodes }) => (waiting.nodes = nodes));
  return waiting;
}

const outcomes = ({ nodes }: Waiting): unknown =>
  nodes?.map(({ nodeHostname, outcome }) => `${nodeHostname} ${outcome?.case}`);

async function psOf(m: FakeManager): Promise<string[]> {
  const { tasks = [] } = await m.operate('listTasks', { name: 'web' });
  return tasks.map(({ state = 0, error = '' }) => `${stateOf(state)} ${error}`.trim());
}

test('the node is told to wipe before all else, its task runs on without the file, and its receipt ends the wait', async (t) => {
  const { m, secretId, node } = await scene(t);
  const revoked = await revoke(m);
  t.like(revoked, { secretId, secretName: 'db', version: 1, nodeIds: [node.nodeId] });
  const waiting = wait(m, revoked);
  const { revoked: told, tasks, versions, complete } = await node.told();
  t.false(complete);
  t.like(told, [{ secretId, version: 1 }]);
  t.deepEqual(versions, []);
  t.like(tasks, [{ references: [], notice: 'secret db is revoked: no value to serve' }]);
  await settle();
  t.is(waiting.nodes, undefined);

  await node.node.report([
    node.node.receipt({ secretId, reason: 'revoked', wipedMs: 5_000, durationUs: 84 }),
  ]);
  t.like(await node.node.taken(), { number: 1n });
  await settle();
  t.deepEqual(outcomes(waiting), ['host-1 wiped']);
  t.deepEqual(waiting.nodes?.[0]?.outcome?.value, {
    reason: 'revoked',
    wipedMs: 5_000n,
    durationUs: 84n,
    mapped: false,
  });
  t.is(m.clock.pending, 0);
  t.deepEqual(await psOf(m), ['RUNNING secret db is revoked: no value to serve']);
});

test('what is left of the version is its number, its times and who ordered it', async (t) => {
  const { m, secretId, node } = await scene(t);
  const revokedMs = BigInt(m.clock.now());
  await revoke(m);
  const key = versionKey(secretId, 1);
  t.is(await m.store.get(ciphertextPrefix + key), undefined);
  const { result } = await transact(m.store, (tx) => tx.get(tables.versions, key));
  t.like(result, { version: 1, sizeBytes: 7, revokedMs, revokedBy: 'alice as root' });
  t.is(result?.sealedKey.length, 0);
  const shown = await m.operate('getSecret', { name: 'db' });
  t.like(shown, { version: 1, versions: [{ version: 1, revokedMs, revokedBy: 'alice as root', nodes: 1 }] });
  await node.apply([{ secretId, reason: 'revoked' }]);
  t.is((await m.operate('getSecret', { name: 'db' })).versions?.[0]?.nodes, 0);
});

test('a new version is served again, under the next number', async (t) => {
  const { m, secretId, node } = await scene(t);
  await revoke(m);
  await node.apply([{ secretId, reason: 'revoked' }]);
  t.like(await m.updateSecret(secretId, 'correct horse'), { version: 2 });
  const { tasks, versions, revoked } = await node.apply();
  t.deepEqual(revoked, []);
  t.like(tasks, [{ notice: '', references: [{ version: 2 }] }]);
  t.is(node.node.open(versions[0] as never), 'correct horse');
  t.deepEqual(await psOf(m), ['RUNNING']);
});

test('a superseded version is revoked where it is in its grace, and the current one stays', async (t) => {
  const { m, secretId, node } = await scene(t);
  await m.updateSecret(secretId, 'correct horse');
  await node.apply();
  const revoked = await revoke(m, 1);
  t.deepEqual(revoked.nodeIds, [node.nodeId]);
  const waiting = wait(m, revoked);
  const { revoked: told, tasks } = await node.apply([{ secretId, version: 1, reason: 'superseded' }]);
  t.like(told, [{ secretId, version: 1 }]);
  t.deepEqual(tasks, [], 'nothing changes for the task');
  t.deepEqual(
    outcomes(waiting),
    ['host-1 wiped'],
    'whatever the reason was: the grace may end in the same moment',
  );
  t.deepEqual(await psOf(m), ['RUNNING']);
});

test('a version whose grace is over is on no node, and nobody is waited for', async (t) => {
  const { m, secretId, node } = await scene(t);
  await m.updateSecret(secretId, 'correct horse');
  await node.apply();
  await node.node.report([node.node.receipt({ secretId, version: 1, reason: 'superseded' })]);
  await node.node.taken();
  const revoked = await revoke(m, 1);
  t.deepEqual(revoked.nodeIds, []);
  const waiting = wait(m, revoked);
  await settle();
  t.deepEqual(waiting.nodes, []);
});

test('every node that holds it is asked, and no other', async (t) => {
  const { m, secretId, nodes } = await scene(t, 3);
  const other = await nodeOf(m);
  const waiting = wait(m, await revoke(m));
  let heard = false;
  void other.node.next().then(() => (heard = true));
  for (const [n, node] of nodes.entries()) {
    t.is(waiting.nodes, undefined);
    await node.apply([{ secretId, reason: 'revoked', durationUs: 10 + n }]);
  }
  t.deepEqual(outcomes(waiting), ['host-1 wiped', 'host-2 wiped', 'host-3 wiped']);
  t.false(heard);
});

test('a node that is away is named, with when its lease ends, and wipes when it comes back', async (t) => {
  const { m, secretId, nodes } = await scene(t, 2);
  const [here, away] = nodes as [Node, Node];
  const heardMs = m.clock.now();
  await away.goAway();
  await m.clock.advance(60_000);
  const revoked = await revoke(m);
  const waiting = wait(m, revoked);
  await here.apply([{ secretId, reason: 'revoked' }]);
  await m.clock.advance(30_000);
  t.deepEqual(outcomes(waiting), ['host-1 wiped', 'host-2 missing']);
  t.deepEqual(waiting.nodes?.[1]?.outcome?.value, {
    reason: 'it is not connected',
    leaseEndsMs: BigInt(heardMs + managerLimits.leaseMs + managerLimits.leaseDriftMs),
  });
  t.is((await m.operate('getSecret', { name: 'db' })).versions?.[0]?.nodes, 1);

  const later = wait(m, revoked);
  const ciphertextDigest = new Uint8Array(32);
  const back = await attached(m, away.identity, {
    holdings: [{ secretId, version: 1, ciphertextDigest }],
  });
  const { revoked: told, complete } = await back.apply([{ secretId, reason: 'revoked', durationUs: 9 }]);
  t.true(complete);
  t.like(told, [{ secretId, version: 1 }]);
  t.deepEqual(outcomes(later), ['host-1 wiped', 'host-2 wiped']);
});

test('a node that has not answered is named as such', async (t) => {
  const { m } = await scene(t);
  const waiting = wait(m, await revoke(m), 1_000);
  await m.clock.advance(1_000);
  t.deepEqual(waiting.nodes?.[0]?.outcome, { case: 'missing', value: { reason: 'it has not answered yet' } });
});

test('a node that was started anew holds nothing, and is not waited for any longer', async (t) => {
  const { m, node } = await scene(t);
  await node.goAway();
  const waiting = wait(m, await revoke(m));
  const back = await attached(m, node.identity);
  await settle();
  t.is(waiting.nodes, undefined, 'its hello alone says nothing: a receipt may come');
  await back.apply();
  t.deepEqual(outcomes(waiting), ['host-1 gone']);
});

test('a version that came after the hello, and was replaced before the node has answered, is still there in its grace', async (t) => {
  const { m, node, secretId } = await scene(t);
  await node.goAway();
  const back = m.attach(node.identity);
  await back.node.begin();
  await m.updateSecret(secretId, 'newer');
  const { revision, tasks } = await back.node.assignment();
  await back.node.applied({ revision, tasks });
  await settle();
  t.deepEqual((await revoke(m, 1)).nodeIds, [node.nodeId]);
});

const change = (m: FakeManager, verb: 'referencesAdd' | 'referencesRemove') =>
  m.operate('updateService', {
    name: 'web',
    [verb]:
      verb === 'referencesRemove'
        ? ['db']
        : [{ secretName: 'db', target: 'db', uid: '0', gid: '0', mode: 0o444 }],
  });

test('what a node lacked when it was taken from it is noted there no more; it may have been sent to it again', async (t) => {
  const { m, secretId, node } = await scene(t);
  const absent = [{ secretId, version: 1 }];
  const noted = (): string[] => m.view.holders.of(secretId, 1);
  // It was wiped while the node was to have it: that says nothing of the next copy.
  await node.node.report([node.node.receipt({ secretId })]);
  await node.node.taken();
  t.deepEqual(noted(), [node.nodeId]);

  await change(m, 'referencesRemove');
  const removed = await node.told();
  await change(m, 'referencesAdd');
  await change(m, 'referencesRemove');
  await node.node.applied(removed, 'RUNNING', '', absent);
  await settle();
  t.deepEqual(noted(), [node.nodeId], 'the next copy is on its way');
  for (const last of [false, true]) {
    const told = await node.told();
    await node.node.applied(told, 'RUNNING', '', last ? absent : []);
    await settle();
  }
  t.deepEqual(noted(), []);
});

test('receipts from before are told from what the revocation needs', async (t) => {
  const { m, secretId, node } = await scene(t);
  await change(m, 'referencesRemove');
  await node.apply([{ secretId, reason: 'removed', number: 1, durationUs: 1 }]);
  t.deepEqual(m.view.holders.of(secretId, 1), []);
  await change(m, 'referencesAdd');
  await node.apply();
  await m.clock.advance(1);
  const revoked = await revoke(m);
  const waiting = wait(m, revoked);
  await node.goAway();
  await (await attached(m, node.identity)).apply();
  t.deepEqual(outcomes(waiting), ['host-1 gone'], 'the earlier wipe was of an earlier copy');
});

test('a node whose lease is over serves nothing: it is named, and not waited for', async (t) => {
  const { m, node } = await scene(t);
  await node.goAway();
  const heardMs = m.clock.now();
  await m.clock.advance(managerLimits.leaseMs + managerLimits.leaseDriftMs);
  const waiting = wait(m, await revoke(m));
  await settle();
  t.deepEqual(waiting.nodes?.[0]?.outcome, {
    case: 'expired',
    value: { leaseEndedMs: BigInt(heardMs + managerLimits.leaseMs + managerLimits.leaseDriftMs) },
  });
  t.is((await m.operate('getSecret', { name: 'db' })).versions?.[0]?.nodes, 0);
});

test('who holds what is known over a manager’s restart; nodes it has not heard may serve for a lease from then', async (t) => {
  const store = fakeStore();
  const first = await cluster(t, { store });
  const secretId = await first.createSecret('db', 'hunter2');
  const node = await nodeOf(first);
  await first.createService('web', { secrets: ['db'] });
  await node.apply();
  await first.stop();

  const m = await cluster(t, { store });
  const revoked = await revoke(m);
  t.like(revoked, { secretId, nodeIds: [node.nodeId] });
  const waiting = wait(m, revoked, 1_000);
  await m.clock.advance(1_000);
  const leaseEndsMs = BigInt(m.clock.now() - 1_000 + managerLimits.leaseMs + managerLimits.leaseDriftMs);
  t.deepEqual(waiting.nodes?.[0]?.outcome, {
    case: 'missing',
    value: { reason: 'it is not connected', leaseEndsMs },
  });
});

test('what a node holds without the manager’s knowing, as after a restored backup, is revoked there too', async (t) => {
  const m = await cluster(t);
  const secretId = await m.createSecret('db', 'hunter2');
  await revoke(m);
  const holdings = [
    { secretId, version: 1, ciphertextDigest: new Uint8Array(32), retiring: true },
    { secretId, version: 9, ciphertextDigest: new Uint8Array(32) },
    { secretId: 'x'.repeat(25), version: 1, ciphertextDigest: new Uint8Array(32) },
  ];
  const node = await attached(m, await m.joined(), { holdings });
  const { revoked } = await node.told();
  t.like(revoked, [{ secretId, version: 1 }]);
  t.is(m.view.holders.ofNode(node.nodeId).length, 1, 'what there is not is not noted');
});

test('a hello that could not name everything clears nothing', async (t) => {
  const { m, secretId, node } = await scene(t);
  await node.goAway();
  await m.operate('updateService', { name: 'web', referencesRemove: ['db'] });
  const cut = await attached(m, node.identity, { hasMoreHoldings: true });
  await cut.apply();
  t.deepEqual(m.view.holders.of(secretId, 1), [node.nodeId]);
  await cut.goAway();
  await (await attached(m, node.identity)).apply();
  t.deepEqual(m.view.holders.of(secretId, 1), []);
});

/** What changes are sent to this node, as words. */
function listen({ managerSide }: Node): string[] {
  const told: string[] = [];
  const { send } = managerSide;
  managerSide.send = (message) => {
    const change = message.message?.case === 'change' ? message.message.value.change : undefined;
    if (change?.case === 'putVersion') told.push('value');
    if (change?.case === 'revoke') told.push('revoke');
    if (change?.case === 'putTask') told.push(`task with ${change.value.references?.length} files`);
    return send(message);
  };
  return told;
}

for (const when of ['before', 'after']) {
  test(`revoked just ${when} its ciphertext was read for a node: nothing is delivered, and no task fails`, async (t) => {
    const store = fakeStore();
    const { get } = store;
    let open = (): void => undefined;
    const gate = new Promise<void>((resolve) => (open = resolve));
    let isAtGate = false;
    store.get = async (key) => {
      const isHeld = key.startsWith(ciphertextPrefix) && !isAtGate;
      isAtGate ||= isHeld;
      if (isHeld && when === 'before') await gate;
      const found = await get(key);
      if (isHeld && when === 'after') await gate;
      return found;
    };
    const m = await cluster(t, { store });
    await m.createSecret('db', 'hunter2');
    const node = await nodeOf(m);
    const told = listen(node);
    await m.createService('web', { secrets: ['db'] });
    t.true(isAtGate);
    const { nodeIds } = await revoke(m);
    t.deepEqual(nodeIds, [node.nodeId], 'it was noted before anything was sent');
    open();
    await settle();
    t.deepEqual(told, ['revoke', 'task with 1 files', 'revoke', 'task with 0 files']);
    t.false(m.logged.some(({ msg }) => msg === 'a version cannot be delivered'));
  });
}

test('a delivery that a revocation meets anywhere on its way is followed by the word to wipe it', async (t) => {
  for (let step = 0; step < 6 * 24; step++) {
    const m = await fakeManager();
    await m.createSecret('db', 'hunter2');
    const node = await nodeOf(m);
    const told = listen(node);
    const creating = m.createService('web', { secrets: ['db'] }).catch(() => undefined);
    for (let n = 0; n < Math.floor(step / 24); n++) await new Promise(setImmediate);
    for (let n = 0; n < step % 24; n++) await Promise.resolve();
    await revoke(m);
    await creating;
    await settle();
    await m.stop();
    if (told.includes('value')) t.true(told.lastIndexOf('revoke') > told.lastIndexOf('value'), told.join());
    if (told.length > 0) t.is(told.at(-1), 'task with 0 files', told.join());
  }
});

test('a revocation does not wait until all that is being delivered is out', async (t) => {
  const { m, node } = await scene(t);
  for (const name of ['x', 'y', 'z']) await m.createSecret(name, 'a large value');
  const told = listen(node);
  const { send } = node.managerSide;
  let thereIsRoom = (): void => undefined;
  const room = new Promise<void>((resolve) => (thereIsRoom = resolve));
  node.managerSide.send = async (message) => {
    await send(message);
    if (told.at(-1) === 'value') await room;
  };
  await m.createService('slow', { secrets: ['x', 'y', 'z'] });
  t.deepEqual(told, ['value']);
  await revoke(m);
  thereIsRoom();
  await settle();
  const last = told.pop();
  t.deepEqual(told, ['value', 'revoke', 'value', 'value', 'task with 3 files']);
  t.is(last, 'task with 0 files', 'of the service that used what is revoked');
});

test('new tasks of a service whose secret is revoked run without its file, and say why', async (t) => {
  const { m, secretId, node } = await scene(t);
  await m.createSecret('other', 'stays');
  await m.operate('updateService', {
    name: 'web',
    referencesAdd: [{ secretName: 'other', target: 'other', uid: '0', gid: '0', mode: 0o444 }],
  });
  await node.apply();
  await revoke(m);
  await node.apply([{ secretId, reason: 'revoked' }]);
  await m.operate('updateService', { name: 'web', replicas: 2 });
  await settle();
  let tasks: Assignment['tasks'] = [];
  while (tasks.length === 0) ({ tasks } = await node.apply());
  t.deepEqual(
    tasks[0]?.references.map(({ reference }) => reference?.target),
    ['other'],
  );
  t.deepEqual(await psOf(m), Array(2).fill('RUNNING secret db is revoked: no value to serve'));
});

test('a service cannot begin to use a secret that has no value', async (t) => {
  const m = await cluster(t);
  await m.createSecret('db', 'hunter2');
  await revoke(m);
  const words = /secret "db" is revoked: it has no value to serve/;
  const error = await refusesAsync(t, m.createService('web', { secrets: ['db'] }), 'revoked', words);
  t.regex(error.remedy ?? '', /inro secret update db -/);
  await m.createService('web');
  const referencesAdd = [{ secretName: 'db', target: 'db', uid: '0', gid: '0', mode: 0o444 }];
  await refusesAsync(t, m.operate('updateService', { name: 'web', referencesAdd }), 'revoked', words);
});

test('revoking twice, an unknown version, and an unknown secret are said in words', async (t) => {
  const { m, secretId } = await scene(t);
  await refusesAsync(t, revoke(m, 7), 'not_found', /secret "db" has no version 7/);
  await revoke(m, 1);
  const twice = await refusesAsync(
    t,
    revoke(m),
    'revoked',
    /^version 1 of secret "db" is revoked since 2026-01-02T03:04:05\.000Z, by alice as root$/,
  );
  t.regex(twice.remedy ?? '', /give the secret a new value: inro secret update db -/);
  await m.updateSecret(secretId, 'again');
  const older = await refusesAsync(t, revoke(m, 1), 'revoked');
  t.regex(older.remedy ?? '', /inro secret inspect db/);
  const { remedy } = await refusesAsync(t, revoke(m, 3), 'not_found');
  t.is(remedy, "'inro secret inspect db' shows those that it has");
  await refusesAsync(t, revoke(m, 1, 'nothing'), 'not_found', /no secret "nothing"/);
});

test('what an operator is called cannot upset another one’s terminal', async (t) => {
  const { m } = await scene(t);
  await m.operate('revokeSecret', { name: 'db', operator: `\u001b[2J${'x'.repeat(10_000)}` });
  const [version] = (await m.operate('getSecret', { name: 'db' })).versions ?? [];
  t.false(version?.revokedBy?.includes('\u001b'));
  t.is(version?.revokedBy?.length, managerLimits.maxOperatorChars);
});

test('a caller that goes away ends its wait', async (t) => {
  const { m } = await scene(t);
  const waiting = wait(m, await revoke(m));
  await settle();
  waiting.gone.abort();
  await settle();
  t.not(waiting.nodes, undefined);
  t.is(m.clock.pending, 0);
});

test('a lease’s receipt that comes when the node has the value again leaves it a holder', async (t) => {
  const { m, secretId, node } = await scene(t);
  await node.goAway();
  // Its lease is over meanwhile: it holds nothing, gets all anew, and its receipt is on the way.
  const back = await attached(m, node.identity);
  const { versions } = await back.apply([{ secretId, reason: 'lease' }]);
  t.is(versions.length, 1);
  t.deepEqual(m.view.holders.of(secretId, 1), [node.nodeId]);
  const revoked = await revoke(m);
  t.deepEqual(revoked.nodeIds, [node.nodeId]);
});

test('so does one that comes while the value is on its way again, and is replaced meanwhile', async (t) => {
  const { m, secretId, node } = await scene(t);
  await node.goAway();
  const back = await attached(m, node.identity);
  const anew = await back.told();
  await m.updateSecret(secretId, 'newer');
  await settle();
  await back.node.report([back.node.receipt({ secretId, reason: 'lease' })]);
  await back.node.taken();
  t.deepEqual(m.view.holders.of(secretId, 1), [node.nodeId]);
  t.deepEqual((await revoke(m, 1)).nodeIds, [node.nodeId]);
  // Its next copy is wiped with a receipt of its own.
  await back.node.applied(anew);
  await back.node.report([back.node.receipt({ secretId, number: 2, reason: 'superseded' })]);
  await back.node.taken();
  t.deepEqual(m.view.holders.of(secretId, 1), []);
});

test('a receipt from before the hello says nothing of what that names', async (t) => {
  const { m, secretId, node } = await scene(t);
  const ciphertextDigest = m.view.version(secretId, 1)?.ciphertextDigest ?? new Uint8Array();
  await node.goAway();
  await m.updateSecret(secretId, 'newer');
  const holdings = [{ secretId, version: 1, ciphertextDigest }];
  const back = await attached(m, node.identity, { holdings, lastReceipt: 1n });
  await back.apply([{ secretId, number: 1, reason: 'removed' }]);
  t.deepEqual(m.view.holders.of(secretId, 1), [node.nodeId], 'it holds a later copy');
  await back.node.report([back.node.receipt({ secretId, number: 2, reason: 'superseded' })]);
  await back.node.taken();
  t.deepEqual(m.view.holders.of(secretId, 1), []);
});

test('what an agent wiped at its stop, and could not tell, says nothing of what its successor is sent', async (t) => {
  const { m, secretId, node } = await scene(t);
  await node.goAway();
  const back = await attached(m, node.identity);
  const anew = await back.told();
  await back.node.report([back.node.receipt({ secretId, reason: 'stopped' })]);
  await back.node.taken();
  await back.node.applied(anew);
  await settle();
  t.deepEqual(m.view.holders.of(secretId, 1), [node.nodeId]);
});

test('an agent that has stopped holds nothing any more, by its last receipts', async (t) => {
  const { m, secretId, node } = await scene(t);
  await node.node.report([node.node.receipt({ secretId, reason: 'stopped' })]);
  await node.node.taken();
  t.deepEqual(m.view.holders.of(secretId, 1), []);
  t.deepEqual((await revoke(m)).nodeIds, []);
});

test('notes of who holds what are told to no node', async (t) => {
  const { m, secretId, nodes } = await scene(t, 2);
  const [a, b] = nodes as [Node, Node];
  const listening = m.dispatcher.onProgress(() => undefined); // as while somebody waits
  let heard = 0;
  void (async () => {
    for (let next = await b.node.next(); next !== undefined; next = await b.node.next()) heard += 1;
  })();
  await settle();
  heard = 0;
  for (let number = 1; number <= 5; number++) {
    await a.node.report([a.node.receipt({ secretId, number })]);
    await a.node.taken();
  }
  await settle();
  t.is(heard, 0);
  listening();
});

test('receipts are listed, of one secret or one node, also when they are gone', async (t) => {
  const m = await cluster(t);
  const secretId = await m.createSecret('db', 'hunter2');
  await m.createSecret('other', 'x');
  const a = await attached(m, await m.joined());
  await m.createService('web', { secrets: ['db'] });
  await a.apply();
  await m.operate('revokeSecret', { name: 'db' });
  await a.apply([{ secretId, version: 1, reason: 'revoked', durationUs: 70 }]);
  await settle();
  const list = async (request: { secret?: string; node?: string }) =>
    (await m.operate('listReceipts', request)).receipts ?? [];
  const [receipt] = await list({});
  t.like(receipt, {
    secretId,
    secretName: 'db',
    nodeId: a.nodeId,
    version: 1,
    reason: 'revoked',
    durationUs: 70n,
  });
  t.true((receipt?.signature?.length ?? 0) > 0);
  for (const request of [
    { secret: 'db' },
    { secret: secretId },
    { node: 'host-1' },
    { node: a.nodeId, secret: 'db' },
  ])
    t.is((await list(request)).length, 1);
  for (const request of [{ secret: 'other' }, { node: 'host-2' }]) t.is((await list(request)).length, 0);
  await m.operate('removeService', { name: 'web' });
  await m.operate('removeSecret', { name: 'db' });
  t.is((await list({ secret: 'db' })).length, 1);
});
