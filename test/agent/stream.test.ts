import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { randomBytes } from 'node:crypto';
import test, { type ExecutionContext } from 'ava';
import { pino } from 'pino';
import { HostTasks } from '../../src/agent/host_tasks.js';
import type { Identity } from '../../src/agent/identity.js';
import { Lease } from '../../src/agent/lease.js';
import { agentLimits } from '../../src/agent/limits.js';
import { CountBatches } from '../../src/agent/access/count_batches.js';
import { attach, type StreamParts } from '../../src/agent/stream.js';
import { Attachments } from '../../src/agent/workloads/attachments.js';
import { Vault } from '../../src/agent/vault.js';
import { openArena } from '../../src/crypto/arena.js';
import { drawExchangeKey, sharedKey } from '../../src/crypto/exchange.js';
import { readPrivateKey, verifyBytes } from '../../src/crypto/signing.js';
import { receiptStatement, sessionKeyStatement } from '../../src/crypto/statement.js';
import { InroError, type ErrorCode } from '../../src/model/error.js';
import { readCertificate } from '../../src/pki/certificate.js';
import {
  DeliveredVersionSchema,
  RevokedVersionSchema,
  type AgentMessage,
  type Applied,
  type AssignedTask,
  type AssignmentChangeSchema,
  type DeliveredVersion,
  type Hello,
  type Receipt,
} from '../../src/proto/gen/inro/v1/dispatcher_pb.js';
import { stateOf } from '../../src/proto/task_state.js';
import { delivery, task } from '../support/deliveries.js';
import { sealingNameOf } from '../../src/pki/sealing_name.js';
import { fakeCluster } from '../support/fake_authority.js';
import { fakeStream } from '../support/fake_channel.js';
import { FakeClock, settle } from '../support/fake_clock.js';
import { FakeDriver } from '../support/fake_driver.js';
import { receiptsOf } from '../support/receipts.js';

const dayMs = 86_400_000;
const cluster = fakeCluster({ now: new FakeClock().now() });
const worker = cluster.worker();
const vouching = (clusterId: string, publicKey: Uint8Array): string =>
  cluster.manager({ sealingName: sealingNameOf(clusterId, publicKey) }).certPem;
const identity: Identity = {
  nodeId: worker.nodeId,
  clusterId: cluster.clusterId,
  certificate: readCertificate(worker.certPem),
  key: readPrivateKey(worker.keyPem),
  rootPem: cluster.rootPem,
  certificatePem: worker.certPem,
  keyPem: worker.keyPem,
  managers: ['m1:1'],
};

/** An agent's host that lives on over its streams. */
function host() {
  const clock = new FakeClock();
  const arena = openArena(1 << 20);
  const driver = new FakeDriver();
  const receipts = receiptsOf(identity, 'a-run');
  const vault = new Vault(arena, clock, (wiped) => receipts.add(wiped));
  const log = pino({ level: 'silent' });
  const tasks = new HostTasks({
    vault,
    driver,
    attachments: new Attachments(),
    clock,
    log,
    clusterId: cluster.clusterId,
  });
  const lease = new Lease(clock, () => undefined);
  const applied: number[] = [];
  const parts: Omit<StreamParts, 'onWelcome'> = {
    identity,
    arena,
    vault,
    tasks,
    lease,
    receipts,
    clock,
    log,
    random: (n) => new Uint8Array(n).fill(127), // in the middle: beats come when the period is over
    counts: { current: () => undefined, taken: () => undefined },
    describe: async () => ({ hostname: 'host' }),
    onApplied: (revision) => applied.push(revision),
    onRoots: () => undefined,
  };
  return { ...parts, clock, parts, driver, applied };
}

interface WelcomeChange {
  heartbeatPeriodMs?: number;
  sealingKey?: { clusterId: string; publicKey: Uint8Array; certificatePem: string };
}

/** The manager's side of one stream, spoken by hand. */
function streamOf(t: ExecutionContext, h = host()) {
  const { agent, manager, breakOff } = fakeStream();
  const sealingArena = openArena(64 << 20);
  const sealing = drawExchangeKey(sealingArena);
  const incoming = manager.messages[Symbol.asyncIterator]();
  let welcomes = 0;
  let outcome: unknown = 'running';
  const ended = attach(agent, { ...h.parts, onWelcome: () => (welcomes += 1) }).then(
    () => (outcome = 'ended'),
    (error: unknown) => (outcome = error),
  );
  t.teardown(() => manager.close());
  const nonce = randomBytes(32);
  let hello: Hello | undefined;

  async function next(): Promise<AgentMessage['message'] | undefined> {
    const { done, value } = await incoming.next();
    return done === true ? undefined : value.message;
  }
  async function expect<C extends AgentMessage['message']['case']>(wanted: C) {
    const message = await next();
    if (message?.case !== wanted) throw new Error(`got ${message?.case ?? 'the end'} instead of ${wanted}`);
    return message.value as Extract<AgentMessage['message'], { case: C }>['value'];
  }
  const sealingKey = (change: { certificatePem?: string } = {}) => {
    const { clusterId } = cluster;
    const { publicKey } = sealing;
    const { certificatePem = vouching(clusterId, publicKey) } = change;
    return { clusterId, publicKey, certificatePem };
  };
  type Case<M> = M extends { case: infer C } ? C : never;
  const change = (one: MessageInitShape<typeof AssignmentChangeSchema>['change']) =>
    manager.send({
      message: {
        case: 'change',
        value: { change: one as { case: Case<typeof one> & 'putTask'; value: AssignedTask } },
      },
    });

  const stream = {
    ...h,
    manager,
    breakOff,
    ended,
    next,
    expect,
    sealingKey,
    change,
    nonce,
    hello: () => hello,
    outcome: () => outcome,
    welcomes: () => welcomes,
    challenge: (clusterId = cluster.clusterId) =>
      manager.send({ message: { case: 'challenge', value: { nonce, clusterId } } }),
    welcome: (value: WelcomeChange = {}) =>
      manager.send({
        message: {
          case: 'welcome',
          value: { heartbeatPeriodMs: 5_000, leaseMs: BigInt(dayMs), sealingKey: sealingKey(), ...value },
        },
      }),
    /** Up to the welcome. */
    async begin(): Promise<Hello> {
      await stream.challenge();
      hello = await expect('hello');
      await stream.welcome();
      await settle();
      return hello;
    },
    acknowledge: ({ runId, number }: Pick<Receipt, 'runId' | 'number'>) =>
      manager.send({ message: { case: 'receiptsTaken', value: { runId, number } } }),
    sealed(secretId: string, text = `value of ${secretId}`, version = 1): DeliveredVersion {
      const key = sharedKey(hello?.sessionKey ?? new Uint8Array(), sealing.secret, sealingArena);
      return delivery({ clusterId: cluster.clusterId, arena: sealingArena, key }, secretId, text, version);
    },
    async assign({
      complete = false,
      revision,
      tasks = [],
      removed = [],
      revoked = [],
      versions = [],
    }: {
      complete?: boolean;
      revision: number;
      tasks?: AssignedTask[];
      removed?: string[];
      /** Secret and version. */
      revoked?: [string, number][];
      versions?: DeliveredVersion[];
    }): Promise<Applied> {
      await manager.send({ message: { case: 'begin', value: { complete } } });
      for (const [secretId, version] of revoked)
        await change({ case: 'revoke', value: create(RevokedVersionSchema, { secretId, version }) });
      for (const id of removed) await change({ case: 'removeTaskId', value: id });
      for (const version of versions) await change({ case: 'putVersion', value: version });
      for (const one of tasks) await change({ case: 'putTask', value: one });
      await manager.send({ message: { case: 'commit', value: { revision: BigInt(revision) } } });
      return expect('applied');
    },
  };
  return stream;
}

const states = ({ tasks }: Applied): string[] =>
  tasks.map(({ taskId, state }) => `${taskId} ${stateOf(state)}`);

test('it proves its session key over this stream’s nonce, and says what it is and holds', async (t) => {
  const s = streamOf(t);
  const hello = await s.begin();
  const { nodeId, clusterId } = identity;
  const statement = sessionKeyStatement({
    nonce: s.nonce,
    clusterId,
    nodeId,
    bootId: hello.bootId,
    sessionKey: hello.sessionKey,
  });
  t.true(verifyBytes(identity.certificate.publicKey, statement, hello.proof));
  t.is(hello.sessionKey.length, 32);
  t.is(hello.description?.hostname, 'host');
  t.regex(hello.bootId, /^[0-9a-f-]{36}$/);
  t.deepEqual(hello.holdings, []);
  t.is(s.welcomes(), 1);
});

test('each stream has a session key of its own', async (t) => {
  const h = host();
  const [one, two] = [streamOf(t, h), streamOf(t, h)];
  t.notDeepEqual((await one.begin()).sessionKey, (await two.begin()).sessionKey);
});

test('an assignment is applied at its commit, and answered with its revision and states', async (t) => {
  const s = streamOf(t);
  await s.begin();
  const applied = await s.assign({
    complete: true,
    revision: 7,
    tasks: [task('t1', 'web', 'a')],
    versions: [s.sealed('a')],
  });
  t.deepEqual(states(applied), ['t1 RUNNING']);
  t.is(applied.revision, 7n);
  t.deepEqual(s.applied, [7]);
  t.deepEqual(s.driver.shown('t1'), { a: 'value of a' });
});

test('nothing is done before the commit', async (t) => {
  const s = streamOf(t);
  await s.begin();
  await s.manager.send({ message: { case: 'begin', value: { complete: true } } });
  await s.change({ case: 'putVersion', value: s.sealed('a') });
  await s.change({ case: 'putTask', value: task('t1', 'web', 'a') });
  await settle();
  t.deepEqual(s.driver.calls, []);
  t.is(s.vault.size, 0);
});

test('an incremental assignment changes what was said before, a complete one replaces it', async (t) => {
  const s = streamOf(t);
  await s.begin();
  await s.assign({
    complete: true,
    revision: 1,
    tasks: [task('t1', 'web', 'a'), task('t2', 'api', 'b')],
    versions: [s.sealed('a'), s.sealed('b')],
  });
  await s.assign({ revision: 2, tasks: [task('t3', 'new', 'a')] });
  t.deepEqual(
    s.tasks.list().map(({ assigned }) => assigned.id),
    ['t1', 't2', 't3'],
  );
  t.deepEqual(states(await s.assign({ revision: 3, removed: ['t1', 'never there'] })).sort(), [
    't1 SHUTDOWN',
    't2 RUNNING',
    't3 RUNNING',
  ]);
  const applied = await s.assign({ complete: true, revision: 4, tasks: [task('t3', 'new', 'a')] });
  t.true(states(applied).includes('t2 SHUTDOWN'));
  t.deepEqual(s.driver.shown('t2'), undefined);
  t.deepEqual(s.driver.shown('t3'), { a: 'value of a' });
});

test('what it lacks when it is taken from it, it says so, once: no receipt will', async (t) => {
  const s = streamOf(t);
  await s.begin();
  const applied = [
    await s.assign({
      complete: true,
      revision: 1,
      tasks: [task('t1', 'web', 'fits'), task('t2', 'api', 'wiped'), task('t3', 'big', 'too large')],
      versions: [s.sealed('fits'), s.sealed('wiped'), s.sealed('too large', 'x'.repeat(1 << 20))],
    }),
  ];
  s.tasks.report('t2', 'FAILED', 'exit code 1');
  const { receipts, tasks, absent } = await s.expect('applied');
  t.deepEqual([receipts.length, tasks.length, absent.length], [1, 1, 0]);
  applied.push(await s.assign({ revision: 2, removed: ['t2', 't3'] }));
  applied.push(await s.assign({ revision: 3, removed: ['t1'] }));
  t.deepEqual(
    applied.map(({ absent }) => absent.map(({ secretId, version }) => `${secretId}@${version}`)),
    [[], ['wiped@1', 'too large@1'], []],
  );
});

test('after a lost stream it says what it holds, and needs it not again', async (t) => {
  const h = host();
  const first = streamOf(t, h);
  await first.begin();
  const version = first.sealed('a');
  await first.assign({ complete: true, revision: 1, tasks: [task('t1', 'web', 'a')], versions: [version] });
  first.breakOff();
  await first.ended;
  t.deepEqual(h.driver.shown('t1'), { a: 'value of a' }, 'it serves on');

  const second = streamOf(t, h);
  const { holdings } = await second.begin();
  t.like(holdings, [{ secretId: 'a', version: 1 }]);
  t.deepEqual(Buffer.from(holdings[0]?.ciphertextDigest ?? []), Buffer.from(version.ciphertextDigest));
  const named = create(DeliveredVersionSchema, {
    secretId: 'a',
    version: 1,
    ciphertextDigest: version.ciphertextDigest,
  });
  await second.assign({ complete: true, revision: 2, tasks: [task('t1', 'web', 'a')], versions: [named] });
  t.deepEqual(h.driver.calls, ['open web', 'publish t1 1'], 'nothing was published anew');
});

test('what was to be removed while the stream was lost is removed with the first assignment', async (t) => {
  const h = host();
  const first = streamOf(t, h);
  await first.begin();
  await first.assign({
    complete: true,
    revision: 1,
    tasks: [task('t1', 'web', 'a')],
    versions: [first.sealed('a')],
  });
  first.breakOff();
  await first.ended;
  const second = streamOf(t, h);
  await second.begin();
  const applied = await second.assign({ complete: true, revision: 2 });
  t.deepEqual(states(applied), ['t1 SHUTDOWN']);
  t.like(applied.receipts, [{ secretId: 'a', version: 1, reason: 'removed' }]);
  t.is(h.arena.facts().pieces, 2, 'this stream’s two keys');
});

test('a manager of another cluster is told nothing', async (t) => {
  const s = streamOf(t);
  await s.challenge('another');
  await s.ended;
  t.like(s.outcome(), { code: 'foreign_cluster' });
  t.is(await s.next(), undefined);
});

const falseKeys: Record<string, (s: ReturnType<typeof streamOf>) => WelcomeChange> = {
  'nobody vouches for': (s) => ({ sealingKey: s.sealingKey({ certificatePem: '' }) }),
  'another CA vouches for': (s) => {
    const { clusterId, publicKey } = s.sealingKey();
    const { certPem } = fakeCluster({ clusterId }).manager({
      sealingName: sealingNameOf(clusterId, publicKey),
    });
    return { sealingKey: s.sealingKey({ certificatePem: certPem }) };
  },
  'this node vouches for': (s) => ({ sealingKey: s.sealingKey({ certificatePem: identity.certificatePem }) }),
  'a manager without its name vouches for': (s) => ({
    sealingKey: s.sealingKey({ certificatePem: cluster.manager().certPem }),
  }),
  'the CA vouches for in another cluster': (s) => ({
    sealingKey: s.sealingKey({ certificatePem: vouching('another', s.sealingKey().publicKey) }),
  }),
  'takes the place of the one that the CA vouches for': (s) => ({
    sealingKey: { ...s.sealingKey(), publicKey: randomBytes(32) },
  }),
};
for (const [name, welcome] of Object.entries(falseKeys)) {
  test(`a sealing key that ${name} is refused: nothing can be delivered under it`, async (t) => {
    const s = streamOf(t);
    await s.challenge();
    await s.expect('hello');
    await s.welcome(welcome(s));
    await s.ended;
    t.like(s.outcome(), { code: 'unauthenticated' });
    t.regex((s.outcome() as InroError).remedy ?? '', /somebody may stand between/);
    t.is(s.welcomes(), 0);
    t.false(s.lease.holds());
    t.is(s.arena.facts().pieces, 0);
  });
}

test('a sealing key of low order is refused, though the CA vouches for it', async (t) => {
  const s = streamOf(t);
  await s.challenge();
  await s.expect('hello');
  const publicKey = new Uint8Array(32);
  const { clusterId } = cluster;
  const certificatePem = vouching(clusterId, publicKey);
  await s.welcome({ sealingKey: { clusterId, publicKey, certificatePem } });
  await s.ended;
  t.like(s.outcome(), { code: 'envelope' });
});

const breaches: Record<
  string,
  { act: (s: ReturnType<typeof streamOf>) => Promise<unknown>; code: ErrorCode; words: RegExp }
> = {
  'a commit outside of an assignment': {
    act: (s) => s.manager.send({ message: { case: 'commit', value: { revision: 1n } } }),
    code: 'protocol',
    words: /commit outside/,
  },
  'a change outside of an assignment': {
    act: (s) => s.change({ case: 'removeTaskId', value: 'x' }),
    code: 'protocol',
    words: /change outside/,
  },
  'an assignment inside another': {
    act: async (s) => {
      await s.manager.send({ message: { case: 'begin', value: { complete: true } } });
      await s.manager.send({ message: { case: 'begin', value: { complete: false } } });
    },
    code: 'protocol',
    words: /began inside another/,
  },
  'a change that this version does not know': {
    act: async (s) => {
      await s.manager.send({ message: { case: 'begin', value: { complete: true } } });
      await s.manager.send({ message: { case: 'change', value: {} } });
    },
    code: 'protocol',
    words: /does not know/,
  },
  'a second challenge': { act: (s) => s.challenge(), code: 'protocol', words: /sent challenge/ },
  'a second welcome': { act: (s) => s.welcome(), code: 'protocol', words: /sent welcome/ },
  'a message that this version does not know': {
    act: (s) => s.manager.send({}),
    code: 'protocol',
    words: /does not know/,
  },
  'more tasks than a node can have': {
    act: async (s) => {
      await s.manager.send({ message: { case: 'begin', value: { complete: true } } });
      for (let n = 0; n <= agentLimits.maxTasks; n++)
        await s.change({ case: 'putTask', value: task(`t${n}`, 'web') });
    },
    code: 'too_large',
    words: /more than 10000 tasks/,
  },
};
for (const [name, { act, code, words }] of Object.entries(breaches)) {
  test(`${name} ends the stream, and what is served stays`, async (t) => {
    const s = streamOf(t);
    await s.begin();
    await s.assign({
      complete: true,
      revision: 1,
      tasks: [task('t1', 'web', 'a')],
      versions: [s.sealed('a')],
    });
    await act(s).catch(() => undefined);
    await s.ended;
    const error = s.outcome() as InroError;
    t.is(error.code, code);
    t.regex(error.message, words);
    t.deepEqual(s.driver.shown('t1'), { a: 'value of a' });
    t.is(s.arena.facts().pieces, 1, 'the value, and no key');
    t.is(s.clock.pending, 0);
  });
}

for (const [name, act] of Object.entries<(s: ReturnType<typeof streamOf>) => Promise<unknown>>({
  'a welcome': (s) => s.welcome(),
  nothing: (s) => s.manager.send({}),
})) {
  test(`${name} instead of a challenge is refused`, async (t) => {
    const s = streamOf(t);
    await act(s);
    await s.ended;
    t.like(s.outcome(), { code: 'protocol' });
  });
}

test('a stream that ends before it has begun is a manager that does not answer', async (t) => {
  const s = streamOf(t);
  s.manager.close();
  await s.ended;
  t.like(s.outcome(), { code: 'unreachable', kind: 'temporary' });
});

test('a stream that the manager ends later is no error', async (t) => {
  const s = streamOf(t);
  await s.begin();
  s.manager.close();
  await s.ended;
  t.is(s.outcome(), 'ended');
  t.is(s.clock.pending, 0);
});

test('a manager that takes too long to welcome is given up', async (t) => {
  const s = streamOf(t);
  await s.challenge();
  await s.clock.advance(agentLimits.welcomeMs - 1);
  t.is(s.outcome(), 'running');
  await s.clock.advance(1);
  await s.ended;
  t.like(s.outcome(), { code: 'unreachable' });
});

test('more than an arena of ciphertext is not held back: those tasks fail and say so, the others run', async (t) => {
  const s = streamOf(t);
  await s.begin();
  const good = s.sealed('good');
  const garbage = Buffer.alloc(1_000_000, 0x5a);
  await s.manager.send({ message: { case: 'begin', value: { complete: true } } });
  await s.change({ case: 'putVersion', value: good });
  const count = Math.ceil(agentLimits.maxPendingBytes / garbage.length) + 1;
  for (let n = 0; n < count; n++)
    await s.change({
      case: 'putVersion',
      value: create(DeliveredVersionSchema, { secretId: `s${n}`, version: 1, ciphertext: garbage }),
    });
  await s.change({ case: 'putTask', value: task('t1', 'web', 'good') });
  await s.change({ case: 'putTask', value: task('t2', 'last', `s${count - 1}`) });
  await s.manager.send({ message: { case: 'commit', value: { revision: 1n } } });
  const applied = await s.expect('applied');
  t.deepEqual(states(applied), ['t1 RUNNING', 't2 REJECTED']);
  t.regex(applied.tasks[1]?.error ?? '', /s\d+@1/);
});

test('beats come each period, and each answer extends the lease from when the beat was sent', async (t) => {
  const s = streamOf(t);
  await s.begin();
  const begunMs = s.clock.boottimeMs();
  const periodMs = 5_000 * (1 + ((127 / 255) * 2 - 1) * agentLimits.heartbeatJitter);
  for (let sequence = 1; sequence <= 3; sequence++) {
    await s.clock.advance(5_000);
    t.is((await s.expect('heartbeat')).sequence, sequence);
    await s.manager.send({ message: { case: 'heartbeatAck', value: { sequence } } });
    await settle();
    const sentMs = begunMs + sequence * periodMs;
    t.is(Math.round(s.lease.leftMs()), Math.round(sentMs + dayMs - s.clock.boottimeMs()));
  }
});

test('counts go with each beat until a manager has taken them, in the next stream too', async (t) => {
  const h = host();
  const count = { secretId: 'a', version: 1, taskId: 't1', uid: 0, workload: 'exec sh' };
  const pending = [{ ...count, opened: 2, refused: 0, openedMs: 5, refusedMs: 0 }];
  h.parts.counts = new CountBatches({ pending: () => pending, taken: () => void pending.pop() }, 'run');
  const told = async (s: ReturnType<typeof streamOf>) => {
    await s.clock.advance(5_000);
    const { sequence, accesses } = await s.expect('heartbeat');
    await s.manager.send({ message: { case: 'heartbeatAck', value: { sequence } } });
    await settle();
    return accesses && [accesses.runId, accesses.number, accesses.counts.map((one) => one.opened)];
  };
  const one = streamOf(t, h);
  await one.begin();
  t.deepEqual(
    [await told(one), await told(one)],
    [
      ['run', 1n, [2n]],
      ['run', 1n, [2n]],
    ],
  );
  one.breakOff();
  await one.ended;
  const two = streamOf(t, h);
  await two.begin();
  t.deepEqual(await told(two), ['run', 1n, [2n]]);
  await two.manager.send({ message: { case: 'accessesTaken', value: { runId: 'run', number: 1n } } });
  t.is(await told(two), undefined);
  await two.manager.send({ message: { case: 'accessesTaken', value: { runId: 'run', number: 2n } } });
  await two.ended;
  t.like(two.outcome(), { code: 'protocol' });
});

test('an answer to a beat that was never sent extends nothing', async (t) => {
  const s = streamOf(t);
  await s.begin();
  await s.clock.advance(4_000);
  const left = s.lease.leftMs();
  await s.manager.send({ message: { case: 'heartbeatAck', value: { sequence: 99 } } });
  await settle();
  t.is(s.lease.leftMs(), left);
});

test('a manager that answers no beat is given up after three, with its stream', async (t) => {
  const s = streamOf(t);
  await s.begin();
  await s.clock.advance(3 * 5_500);
  t.is(s.outcome(), 'running');
  await s.clock.advance(5_500);
  await s.ended;
  t.like(s.outcome(), { code: 'unreachable' });
  t.regex((s.outcome() as InroError).message, /silent for 3 heartbeats/);
  t.true(s.manager.closed.aborted);
  t.is(s.clock.pending, 0);
});

test('a period that makes no sense is brought into bounds', async (t) => {
  for (const [period, expectedMs] of [
    [0, 100],
    [2 ** 31, 60_000],
  ] as const) {
    const s = streamOf(t);
    await s.challenge();
    await s.expect('hello');
    await s.welcome({ heartbeatPeriodMs: period });
    await s.clock.advance(expectedMs * 0.98);
    let beaten = false;
    void s.next().then((message) => (beaten = message?.case === 'heartbeat'));
    await settle();
    t.false(beaten, `${period}: not before`);
    await s.clock.advance(expectedMs * 0.04);
    t.true(beaten, `${period}: after ${expectedMs} ms`);
  }
});

test('the first lease counts from before the hello was sent, however long that took', async (t) => {
  const h = host();
  const { agent, manager } = fakeStream();
  const slow = {
    ...agent,
    send: async (message: Parameters<typeof agent.send>[0]) => {
      await h.clock.sleep(3_000); // no room in the stream for so long
      return agent.send(message);
    },
  };
  const sealing = drawExchangeKey(openArena(1 << 16));
  const { clusterId } = cluster;
  const { publicKey } = sealing;
  const certificatePem = vouching(clusterId, publicKey);
  const ended = attach(slow, { ...h.parts, onWelcome: () => undefined }).catch(() => undefined);
  await manager.send({ message: { case: 'challenge', value: { nonce: randomBytes(32), clusterId } } });
  await manager.send({
    message: {
      case: 'welcome',
      value: {
        heartbeatPeriodMs: 60_000,
        leaseMs: 10_000n,
        sealingKey: { clusterId, publicKey, certificatePem },
      },
    },
  });
  await h.clock.advance(3_000);
  t.true(h.lease.leftMs() <= 7_000, `${h.lease.leftMs()} ms are left`);
  manager.close();
  await h.clock.advance(10_000);
  await ended;
});

test('wipes at the end of a grace are reported as they come', async (t) => {
  const s = streamOf(t);
  await s.begin();
  await s.assign({ complete: true, revision: 1, tasks: [task('t1', 'web', 'a')], versions: [s.sealed('a')] });
  await s.assign({
    revision: 2,
    tasks: [task('t1', 'web', { secretId: 'a', version: 2 })],
    versions: [s.sealed('a', 'new', 2)],
  });
  const messages: AgentMessage['message'][] = [];
  void (async () => {
    for (let next = await s.next(); next !== undefined; next = await s.next()) messages.push(next);
  })();
  await s.clock.advance(agentLimits.graceMs);
  const receipts = messages.flatMap((message) => (message.case === 'applied' ? message.value.receipts : []));
  t.like(receipts, [{ runId: 'a-run', number: 1n, secretId: 'a', version: 1, reason: 'superseded' }]);
  const [receipt] = receipts as [Receipt];
  const { clusterId, nodeId } = identity;
  const { runId, secretId, version, taskIds, reason, wipedMs, durationUs, mapped } = receipt;
  t.deepEqual(taskIds, ['t1']);
  const statement = receiptStatement({
    clusterId,
    nodeId,
    runId,
    number: 1,
    secretId,
    version,
    taskIds,
    reason,
    wipedMs: Number(wipedMs),
    durationUs: Number(durationUs),
    mapped,
  });
  t.true(verifyBytes(identity.certificate.publicKey, statement, receipt.signature));
});

test('receipts that could not be sent wait for the next stream', async (t) => {
  const h = host();
  const first = streamOf(t, h);
  await first.begin();
  await first.assign({
    complete: true,
    revision: 1,
    tasks: [task('t1', 'web', 'a')],
    versions: [first.sealed('a')],
  });
  // The removal arrives, and the connection breaks before its answer is out.
  await first.manager.send({ message: { case: 'begin', value: { complete: false } } });
  await first.change({ case: 'removeTaskId', value: 't1' });
  await first.manager.send({ message: { case: 'commit', value: { revision: 2n } } });
  first.breakOff();
  await first.ended;
  t.is(h.vault.size, 0, 'it is wiped');

  // At once, whatever the manager has to say.
  const second = streamOf(t, h);
  await second.begin();
  const { receipts, revision } = await second.expect('applied');
  t.like(receipts, [{ number: 1n, secretId: 'a', version: 1, reason: 'removed' }]);
  t.is(revision, 0n);
});

test('receipts are sent in each stream until they are acknowledged, and in no stream twice', async (t) => {
  const h = host();
  const first = streamOf(t, h);
  await first.begin();
  await first.assign({
    complete: true,
    revision: 1,
    tasks: [task('t1', 'web', 'a', 'b')],
    versions: [first.sealed('a'), first.sealed('b')],
  });
  const answer = await first.assign({ revision: 2, tasks: [task('t1', 'web')] });
  t.deepEqual(
    answer.receipts.map(({ number }) => number),
    [1n, 2n],
  );
  t.deepEqual((await first.assign({ revision: 3 })).receipts, [], 'not again in this stream');
  first.breakOff();
  await first.ended;

  const second = streamOf(t, h);
  await second.begin();
  const again = (await second.expect('applied')).receipts;
  t.deepEqual(again, answer.receipts, 'byte for byte');
  await second.acknowledge({ runId: 'a-run', number: 1n });
  await settle();
  t.is(h.receipts.pending, 1);
  second.breakOff();
  await second.ended;

  const third = streamOf(t, h);
  await third.begin();
  t.like((await third.expect('applied')).receipts, [{ number: 2n }]);
  await third.acknowledge({ runId: 'a-run', number: 2n });
  await settle();
  t.is(h.receipts.pending, 0);
  third.breakOff();
  await third.ended;

  const fourth = streamOf(t, h);
  await fourth.begin();
  t.deepEqual((await fourth.assign({ complete: true, revision: 4 })).receipts, []);
});

test('an acknowledgement of what was never sent ends the stream, and the receipt stays', async (t) => {
  const s = streamOf(t);
  await s.begin();
  await s.assign({ complete: true, revision: 1, tasks: [task('t1', 'web', 'a')], versions: [s.sealed('a')] });
  await s.assign({ revision: 2, removed: ['t1'] });
  await s.acknowledge({ runId: 'another', number: 1n });
  await s.ended;
  t.like(s.outcome(), { code: 'protocol' });
  t.is(s.receipts.pending, 1);
});

test('a revoked version is wiped when the word of it arrives, and its receipt goes out before the commit', async (t) => {
  const s = streamOf(t);
  await s.begin();
  await s.assign({
    complete: true,
    revision: 1,
    tasks: [task('t1', 'web', 'a', 'b')],
    versions: [s.sealed('a'), s.sealed('b')],
  });
  const descriptor = s.driver.open('t1', 'a');
  await s.manager.send({ message: { case: 'begin', value: { complete: false } } });
  await s.change({ case: 'revoke', value: create(RevokedVersionSchema, { secretId: 'a', version: 1 }) });
  const early = await s.expect('applied');
  t.is(early.revision, 0n);
  t.like(early.receipts, [{ secretId: 'a', version: 1, reason: 'revoked' }]);
  t.is(descriptor(), 'ESTALE');
  t.deepEqual(s.driver.shown('t1'), { a: 'ESTALE', b: 'value of b' });

  await s.change({ case: 'putTask', value: task('t1', 'web', 'b') });
  await s.manager.send({ message: { case: 'commit', value: { revision: 2n } } });
  t.deepEqual(states(await s.expect('applied')), ['t1 RUNNING']);
  t.deepEqual(s.driver.shown('t1'), { b: 'value of b' });
});

test('a superseded version that is revoked has no grace any more', async (t) => {
  const s = streamOf(t);
  await s.begin();
  await s.assign({ complete: true, revision: 1, tasks: [task('t1', 'web', 'a')], versions: [s.sealed('a')] });
  const descriptor = s.driver.open('t1', 'a');
  await s.assign({
    revision: 2,
    tasks: [task('t1', 'web', { secretId: 'a', version: 2 })],
    versions: [s.sealed('a', 'new', 2)],
  });
  t.is(descriptor(), 'value of a');
  const { receipts } = await s.assign({ revision: 3, revoked: [['a', 1]] });
  t.like(receipts, [{ secretId: 'a', version: 1, reason: 'revoked' }]);
  t.is(descriptor(), 'ESTALE');
  t.deepEqual(s.driver.shown('t1'), { a: 'new' });
  await s.clock.advance(2 * agentLimits.graceMs);
  t.is(s.receipts.pending, 1, 'it is wiped once');
});

test('a reference to a version that is revoked in the same assignment shows no file, and fails no task', async (t) => {
  const s = streamOf(t);
  await s.begin();
  const applied = await s.assign({
    complete: true,
    revision: 1,
    revoked: [['a', 1]],
    tasks: [task('t1', 'web', 'a', 'b')],
    versions: [s.sealed('b')],
  });
  t.deepEqual(states(applied), ['t1 RUNNING']);
  t.deepEqual(applied.receipts, [], 'there was nothing to wipe');
  t.deepEqual(s.driver.shown('t1'), { b: 'value of b' });
  t.deepEqual(states(await s.assign({ revision: 2 })), ['t1 RUNNING'], 'nor with the next one');
});

test('a revocation is carried out though the values beside it are no good, and though the stream breaks then', async (t) => {
  const s = streamOf(t);
  await s.begin();
  await s.assign({ complete: true, revision: 1, tasks: [task('t1', 'web', 'a')], versions: [s.sealed('a')] });
  await s.manager.send({ message: { case: 'begin', value: { complete: false } } });
  await s.change({ case: 'revoke', value: create(RevokedVersionSchema, { secretId: 'a', version: 1 }) });
  await s.change({
    case: 'putVersion',
    value: create(DeliveredVersionSchema, { secretId: 'x', version: 1, ciphertext: randomBytes(99) }),
  });
  await settle();
  s.breakOff();
  await s.ended;
  t.is(s.vault.size, 0);
  t.is(s.receipts.pending, 1);
});

test('what is in its grace is named in the hello, as what will not last', async (t) => {
  const h = host();
  const first = streamOf(t, h);
  await first.begin();
  await first.assign({
    complete: true,
    revision: 1,
    tasks: [task('t1', 'web', 'a')],
    versions: [first.sealed('a')],
  });
  await first.assign({
    revision: 2,
    tasks: [task('t1', 'web', { secretId: 'a', version: 2 })],
    versions: [first.sealed('a', 'new', 2)],
  });
  first.breakOff();
  await first.ended;
  const { holdings, hasMoreHoldings } = await streamOf(t, h).begin();
  t.deepEqual(
    holdings.map(({ version, retiring }) => ({ version, retiring })),
    [
      { version: 1, retiring: true },
      { version: 2, retiring: false },
    ],
  );
  t.false(hasMoreHoldings);
});

test('once the agent is stopping no assignment is applied, and the stream lives on for the last receipts', async (t) => {
  const s = streamOf(t);
  await s.begin();
  await s.assign({ complete: true, revision: 1, tasks: [task('t1', 'web', 'a')], versions: [s.sealed('a')] });
  s.tasks.wipeAll('stopped');
  t.like((await s.expect('applied')).receipts, [{ secretId: 'a', reason: 'stopped' }]);
  for (const revision of [2n, 3n]) {
    await s.manager.send({ message: { case: 'begin', value: { complete: false } } });
    await s.change({ case: 'putVersion', value: s.sealed('b') });
    await s.change({ case: 'putTask', value: task('t2', 'api', 'b') });
    await s.manager.send({ message: { case: 'commit', value: { revision } } });
  }
  await s.acknowledge({ runId: 'a-run', number: 1n });
  await settle();
  t.is(s.outcome(), 'running');
  t.is(s.vault.size, 0);
  t.deepEqual(s.applied, [1]);
  t.is(s.receipts.pending, 0);
});

test('what it says at once is bounded: many states go out in several messages, the revision in the last', async (t) => {
  const s = streamOf(t);
  await s.begin();
  const count = 2 * agentLimits.maxStatusesPerMessage + 1;
  const many = Array.from({ length: count }, (_, n) => task(`t${n}`, 'web'));
  const answers = [await s.assign({ complete: true, revision: 5, tasks: many })];
  while (answers.at(-1)?.revision === 0n) answers.push(await s.expect('applied'));
  t.deepEqual(
    answers.map(({ revision }) => Number(revision)),
    [0, 0, 5],
  );
  t.is(answers.flatMap(({ tasks: statuses }) => statuses).length, count);
  t.true(answers.every(({ tasks: statuses }) => statuses.length <= agentLimits.maxStatusesPerMessage));
});
