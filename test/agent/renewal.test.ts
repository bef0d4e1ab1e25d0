/** Certificates that renew themselves: over years, without a manager, with clocks that jump, cut off anywhere. */
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import { pino } from 'pino';
import { HeldIdentity } from '../../src/agent/held_identity.js';
import {
  findIdentity,
  loadIdentity,
  saveIdentity,
  saveKey,
  saveRenewed,
  type Identity,
  type KeyPair,
} from '../../src/agent/identity.js';
import { agentLimits } from '../../src/agent/limits.js';
import { Renewal } from '../../src/agent/renewal.js';
import { generateNodeKey } from '../../src/crypto/signing.js';
import { InroError, type ErrorCode } from '../../src/model/error.js';
import { createAuthority, openAuthority } from '../../src/pki/authority.js';
import { createCsr } from '../../src/pki/csr.js';
import { readRoot } from '../../src/pki/root.js';
import { refuses } from '../support/refuses.js';
import { fakeCluster } from '../support/fake_authority.js';
import { FakeClock, settle } from '../support/fake_clock.js';

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const dayMs = 24 * hourMs;

interface Ask {
  atMs: number;
  serial: string;
  manager: string;
}

/** A node that has just joined, on disk, and a CA that can be away. */
function setUp(t: ExecutionContext, { lifetimeMs = 90 * dayMs } = {}) {
  const folder = join(mkdtempSync(join(tmpdir(), 'inro-renewal-')), 'agent');
  t.teardown(() => rmSync(join(folder, '..'), { recursive: true, force: true }));
  const clock = new FakeClock();
  // The manager's own clock, which does not jump with the agent's.
  const skew = { ms: 0 };
  const cluster = fakeCluster({ now: clock.now() });
  const authority = openAuthority(cluster.rootPem, cluster.rootKeyPem, {
    clusterId: cluster.clusterId,
    clock: { now: () => clock.now() - skew.ms },
    random: randomBytes,
  });
  const nodeId = 'n'.repeat(25);
  const issue = (): KeyPair => {
    const { privateKey, privatePem } = generateNodeKey();
    const csr = createCsr(privateKey);
    const issued = authority.issueNode({ csr, nodeId, role: 'worker', lifetimeMs });
    return { certificatePem: issued.pem, keyPem: privatePem };
  };
  const first = issue();
  saveKey(folder, first.keyPem);
  saveIdentity(folder, { rootPem: cluster.rootPem, certificatePem: first.certificatePem, managers: ['m:1'] });
  return { folder, clock, skew, issue, first, authority };
}

/** The agent's part, running. */
function running(t: ExecutionContext, given: ReturnType<typeof setUp>, welcomes = true) {
  const { folder, clock, issue } = given;
  const logged: Record<string, unknown>[] = [];
  const log = pino(
    { level: 'debug' },
    { write: (line: string) => void logged.push(JSON.parse(line) as Record<string, unknown>) },
  );
  const held = HeldIdentity.open(folder, clock.now(), log);
  const asked: Ask[] = [];
  const manager = {
    away: undefined as InroError | undefined,
    /** What a session under a renewed certificate ends with. */
    refusal: undefined as InroError | undefined,
    welcomes,
    ask: async (): Promise<KeyPair> => issue(),
  };
  let sessions = 0;
  const meet = (): void => {
    sessions += 1;
    if (!manager.welcomes) return;
    if (manager.refusal !== undefined && held.isOnTrial) {
      if (held.refused(held.current, manager.refusal, clock.now())) meet();
    } else held.worked(held.current);
  };
  const renewal = new Renewal({
    held,
    managers: () => ['m1:1', 'm2:1'],
    ask: async (identity: Identity, name: string) => {
      asked.push({ atMs: clock.boottimeMs(), serial: identity.certificate.serial, manager: name });
      if (manager.away !== undefined) throw manager.away;
      return manager.ask();
    },
    reconnect: meet,
    clock,
    random: randomBytes,
    log,
  });
  const over = new AbortController();
  const run = renewal.run(over.signal);
  t.teardown(() => over.abort());
  const stop = async (): Promise<void> => {
    over.abort();
    await run;
  };
  return { held, renewal, asked, manager, logged, stop, over, run, sessions: () => sessions, log };
}

const away = (): InroError => new InroError('unreachable', 'the manager does not answer');
const serialOf = (identity: Identity): string => identity.certificate.serial;

/** Days pass, each with a look at the clock at its end. */
async function pass(clock: FakeClock, ms: number, each: () => void = () => undefined): Promise<void> {
  const step = Math.min(ms / 50, 6 * hourMs);
  for (let passed = 0; passed < ms; passed += step) {
    await clock.jump(step);
    await settle();
    each();
  }
}

/** Until it asks a manager. */
async function due(clock: FakeClock, asked: readonly Ask[]): Promise<void> {
  while (asked.length === 0) await clock.jump(hourMs);
}

for (const [name, lifetimeMs, years] of [
  ['90 days', 90 * dayMs, 5],
  ['a year', 365 * dayMs, 12],
] as const) {
  test(`with a life of ${name} it never lapses over years, and each key is new`, async (t) => {
    const s = setUp(t, { lifetimeMs });
    const r = running(t, s);
    const keys = new Set([s.first.keyPem]);
    const renewedAt: number[] = [s.clock.now()];
    await pass(s.clock, years * 365 * dayMs, () => {
      if (r.renewal.expired() !== undefined) t.fail('expired');
      if (keys.has(r.held.current.keyPem)) return;
      keys.add(r.held.current.keyPem);
      renewedAt.push(s.clock.now());
    });
    const parts = renewedAt.slice(1).map((at, n) => (at - (renewedAt[n] as number)) / lifetimeMs);
    t.true(parts.length >= (years * 365 * dayMs) / (0.8 * lifetimeMs) - 2, `${parts.length}`);
    t.true(
      parts.every((part) => part >= 0.5 && part <= 0.8 + 0.01),
      parts.join(),
    );
    t.true(Math.max(...parts) - Math.min(...parts) > 0.02, 'not always at the same point');
    t.is(r.asked.length, parts.length, 'and no more is asked for');
    t.is(loadIdentity(s.folder, s.clock.now()).keyPem, r.held.current.keyPem);
    t.deepEqual(readdirSync(s.folder).sort(), ['agent.json', 'ca.crt', 'node.crt', 'node.key']);
    await r.stop();
    t.is(s.clock.pending, 0);
  });
}

test('with the least life of an hour it has time to spare', async (t) => {
  const s = setUp(t, { lifetimeMs: hourMs });
  const r = running(t, s);
  for (let minute = 0; minute < 24 * 60; minute++) {
    await s.clock.advance(minuteMs);
    if (r.renewal.expired() !== undefined) t.fail('expired');
  }
  t.true(r.asked.length >= 29 && r.asked.length <= 48, `${r.asked.length}`);
});

test('without a manager it tries again, with growing gaps and others than the last, until the end, and then no more', async (t) => {
  const s = setUp(t, { lifetimeMs: 10 * dayMs });
  const r = running(t, s);
  r.manager.away = away();
  const { notAfterMs } = r.held.current.certificate;
  await s.clock.jump(5 * dayMs - hourMs);
  while (r.renewal.expired() === undefined) await s.clock.advance(6 * hourMs);
  const gaps = r.asked.slice(1).map(({ atMs }, n) => atMs - (r.asked[n] as Ask).atMs);
  t.true((gaps[0] as number) <= agentLimits.renewalBackoffBaseMs + 1);
  const max = agentLimits.renewalBackoffMaxMs;
  t.true(gaps.every((gap) => gap <= max));
  t.true(gaps.slice(15).every((gap) => gap >= max / 2));
  t.true(new Set(gaps.slice(15)).size > 10, 'with jitter');
  t.deepEqual([...new Set(r.asked.map(({ manager }) => manager))].sort(), ['m1:1', 'm2:1']);
  const lastMs = s.clock.now() - s.clock.boottimeMs() + (r.asked.at(-1) as Ask).atMs;
  t.true(lastMs <= notAfterMs && lastMs > notAfterMs - 2 * max, 'until the end');
  t.is(r.renewal.status.lastFailure, 'the manager does not answer');

  const count = r.asked.length;
  await pass(s.clock, 10 * dayMs);
  t.is(r.asked.length, count, 'nothing pointless');
  const told = r.logged.filter(({ msg }) => msg === 'the certificate has expired');
  t.is(told.length, 1);
  t.regex(String(told[0]?.['remedy']), /fresh token.*inro agent join --token -/);
  t.regex(String(r.renewal.status.expired), /expired at .*inro agent join --token -/);
});

test('a manager that comes back at the very end is in time, and the failure is forgotten', async (t) => {
  const s = setUp(t, { lifetimeMs: 10 * dayMs });
  const r = running(t, s);
  r.manager.away = away();
  const { notAfterMs } = r.held.current.certificate;
  await s.clock.jump(7 * dayMs);
  await s.clock.advance(notAfterMs - s.clock.now() - 2 * hourMs);
  t.not(r.renewal.status.failedMs, 0n);
  r.manager.away = undefined;
  await s.clock.advance(2 * hourMs);
  t.is(r.renewal.expired(), undefined);
  t.like(r.renewal.status, { lastFailure: '', failedMs: 0n, onTrial: false, expired: '' });
});

test('a clock that is set back neither loses a renewal nor brings a storm', async (t) => {
  const s = setUp(t, { lifetimeMs: 10 * dayMs });
  const r = running(t, s);
  s.clock.setWall(s.clock.now() - 3650 * dayMs);
  s.skew.ms = -3650 * dayMs; // the manager's is right
  await pass(s.clock, 4 * dayMs);
  t.is(r.asked.length, 0);
  await pass(s.clock, 4.2 * dayMs);
  t.true(r.asked.length > 0, 'it is due by the other clock');
  t.regex(r.renewal.status.lastFailure ?? '', /not valid before/, 'and says why it is not taken');
  const tries = r.asked.length;
  await s.clock.advance(12 * hourMs);
  t.true(r.asked.length - tries < 40, 'at the longest gap');
  s.clock.setWall(s.clock.now() + 3650 * dayMs);
  s.skew.ms = 0;
  await s.clock.advance(hourMs + minuteMs);
  t.is(r.renewal.status.lastFailure, '');
  t.true(r.held.current.certificate.notAfterMs > s.clock.now() + 9 * dayMs);
});

test('a clock that runs ahead of the manager’s renews a little more often, not without end', async (t) => {
  const s = setUp(t);
  const r = running(t, s);
  s.clock.setWall(s.clock.now() + 70 * dayMs);
  s.skew.ms = 70 * dayMs;
  await pass(s.clock, 10 * dayMs);
  t.is(r.asked.length, 2 - Number(r.asked.length === 1), 'one as it jumps, and at most one more');
  s.clock.setWall(s.clock.now() - 70 * dayMs);
  s.skew.ms = 0;
  const count = r.asked.length;
  await pass(s.clock, 30 * dayMs);
  t.true(r.asked.length - count <= 1);
});

test('a clock that jumps beyond the end asks for nothing until it is back', async (t) => {
  const s = setUp(t);
  const r = running(t, s);
  const now = s.clock.now();
  s.clock.setWall(now + 3650 * dayMs);
  await s.clock.advance(hourMs);
  t.is(r.asked.length, 0);
  t.not(r.renewal.status.expired, '');
  s.clock.setWall(now + hourMs);
  await s.clock.advance(hourMs);
  t.is(r.asked.length, 0);
  t.is(r.renewal.status.expired, '');
  for (let time = 0; time < 100; time++) {
    s.clock.setWall(s.clock.now() + (time % 2 === 0 ? 75 : -75) * dayMs);
    await s.clock.advance(minuteMs);
  }
  t.true(r.asked.length <= 100 / 10 + 1, `one that swings to and fro: ${r.asked.length}`);
});

test('the new pair is on disk before it is used, and the old one until the new one has worked', async (t) => {
  const s = setUp(t);
  const r = running(t, s, false);
  await pass(s.clock, 81 * dayMs);
  t.is(r.sessions(), 1);
  t.true(r.held.isOnTrial);
  t.is(r.renewal.status.onTrial, true);
  const found = findIdentity(s.folder, s.clock.now());
  t.is(found.identity.keyPem, r.held.current.keyPem);
  t.is(found.former?.keyPem, s.first.keyPem);
  t.is(readFileSync(join(s.folder, 'node.key'), 'utf8'), s.first.keyPem);

  // An agent that is started now goes on with the trial.
  const next = HeldIdentity.open(s.folder, s.clock.now(), r.log);
  t.true(next.isOnTrial);
  next.worked(next.current);
  t.false(next.isOnTrial);
  t.is(readFileSync(join(s.folder, 'node.key'), 'utf8'), r.held.current.keyPem);
  t.false(existsSync(join(s.folder, 'renewed.pem')));
});

for (const code of ['unauthenticated', 'not_permitted', 'bad_certificate', 'foreign_cluster'] as const) {
  test(`refused with ${code}, it goes back to the old one, says so, and tries again`, async (t) => {
    const s = setUp(t);
    const r = running(t, s);
    r.manager.refusal = new InroError(code, 'no such certificate');
    const old = serialOf(r.held.current);
    await due(s.clock, r.asked);
    t.is(serialOf(r.held.current), old);
    t.false(r.held.isOnTrial);
    t.is(loadIdentity(s.folder, s.clock.now()).keyPem, s.first.keyPem);
    t.false(existsSync(join(s.folder, 'renewed.pem')));
    t.is(r.renewal.status.lastFailure, 'no such certificate');
    t.true(r.logged.some(({ msg }) => /going back to the one before/.test(String(msg))));
    await s.clock.advance(dayMs);
    t.true(r.asked.length > 1 && r.asked.length < 70, `no storm: ${r.asked.length}`);
    t.true(r.asked.every(({ serial }) => serial === old));

    r.manager.refusal = undefined;
    await s.clock.advance(2 * hourMs);
    t.not(serialOf(r.held.current), old);
    t.is(r.renewal.status.lastFailure, '');
    t.is(loadIdentity(s.folder, s.clock.now()).keyPem, r.held.current.keyPem);
  });
}

test('a manager that is only away or busy refuses nothing, and without an old one there is no way back', (t) => {
  const s = setUp(t);
  const held = HeldIdentity.open(s.folder, s.clock.now(), pino({ level: 'silent' }));
  const now = s.clock.now();
  t.false(held.refused(held.current, new InroError('unauthenticated', 'x'), now), 'it is no trial');
  held.take(s.issue(), now);
  const { current } = held;
  t.false(held.refused(current, away(), now));
  t.false(held.refused(current, new InroError('conflict', 'x'), now));
  t.false(
    held.refused(current, new InroError('unauthenticated', 'x'), now + 100 * dayMs),
    'the old one is over',
  );
  t.is(held.current, current);
  t.true(held.refused(current, new InroError('unauthenticated', 'x'), now));
});

test('a disk that cannot be written changes nothing', async (t) => {
  const s = setUp(t);
  const r = running(t, s);
  const old = serialOf(r.held.current);
  renameSync(s.folder, `${s.folder}-away`);
  await due(s.clock, r.asked);
  t.is(serialOf(r.held.current), old);
  t.regex(r.renewal.status.lastFailure ?? '', /cannot be written/);
  t.is(r.sessions(), 0);
  renameSync(`${s.folder}-away`, s.folder);
  await s.clock.advance(2 * hourMs);
  t.not(serialOf(r.held.current), old);
});

test('stopped while it asks, or after the folder is another’s, it writes nothing', async (t) => {
  const s = setUp(t);
  const r = running(t, s);
  let answer: (pair: KeyPair) => void = () => undefined;
  r.manager.ask = () => new Promise((resolve) => (answer = resolve));
  await due(s.clock, r.asked);
  answer(s.issue());
  await r.stop();
  t.false(existsSync(join(s.folder, 'renewed.pem')));
  const held = HeldIdentity.open(s.folder, s.clock.now(), r.log);
  held.letGo();
  held.take(s.issue(), s.clock.now());
  t.false(existsSync(join(s.folder, 'renewed.pem')));
});

test('a renewed file that is damaged, foreign, over or older does not keep the old pair from its work', (t) => {
  const s = setUp(t);
  const path = join(s.folder, 'renewed.pem');
  const now = s.clock.now();
  const serves = (words?: RegExp): void => {
    const found = findIdentity(s.folder, now);
    t.is(found.identity.keyPem, s.first.keyPem);
    t.is(found.former, undefined);
    if (words === undefined) t.is(found.refused, undefined);
    else t.regex(found.refused?.message ?? '', words);
  };
  for (const text of ['', 'nonsense', s.first.keyPem, s.first.certificatePem]) {
    writeFileSync(path, text);
    serves(/renewed\.pem is damaged/);
  }
  const other = fakeCluster({ now }).worker();
  saveRenewed(s.folder, { certificatePem: other.certPem, keyPem: other.keyPem });
  serves(/cluster/);
  saveRenewed(s.folder, { certificatePem: s.issue().certificatePem, keyPem: s.first.keyPem });
  serves(/for another key/);
  s.skew.ms = 30 * dayMs;
  saveRenewed(s.folder, s.issue());
  serves();
});

// Each change to the disk is a point at which the process can be killed.
for (const way of ['settle', 'go back'] as const) {
  test(`killed at any point of a renewal that is to ${way}, one of the two pairs is whole`, (t) => {
    const script = fileURLToPath(new URL('../support/cut_off_renewal.js', import.meta.url));
    const seen = new Set<string>();
    for (let n = 1; ; n++) {
      const s = setUp(t);
      const pair = s.issue();
      const pairFile = join(s.folder, '..', 'pair.json');
      writeFileSync(pairFile, JSON.stringify(pair));
      const now = s.clock.now();
      const args = [script, s.folder, pairFile, String(now), way, String(n)];
      const { signal, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
      t.is(stderr, '');
      const found = findIdentity(s.folder, now);
      const isNew = found.identity.keyPem === pair.keyPem;
      t.true(isNew || found.identity.keyPem === s.first.keyPem);
      seen.add(`${isNew ? 'new' : 'old'}${found.former === undefined ? '' : ', old kept'}`);
      if (stdout === '')
        t.true(!isNew || found.former?.keyPem === s.first.keyPem, `${n}: not without the old`);
      if (stdout === 'taken\n' && way === 'settle') t.true(isNew, `${n}: what was taken is not lost`);
      // What was cut off is no hindrance.
      const held = HeldIdentity.open(s.folder, now, pino({ level: 'silent' }));
      const third = s.issue();
      held.worked(held.current);
      held.take(third, now);
      held.worked(held.current);
      t.is(loadIdentity(s.folder, now).keyPem, third.keyPem);
      t.deepEqual(
        readdirSync(s.folder)
          .filter((file) => !file.endsWith('.new'))
          .sort(),
        ['agent.json', 'ca.crt', 'node.crt', 'node.key'],
      );
      if (signal === null) {
        t.is(stdout, 'taken\ndone\n');
        t.is(isNew, way === 'settle');
        t.true(n > (way === 'settle' ? 15 : 6), `${n} points`);
        break;
      }
      t.is(signal, 'SIGKILL');
    }
    t.deepEqual(
      [...seen].sort(),
      way === 'settle' ? ['new', 'new, old kept', 'old'] : ['new, old kept', 'old'],
    );
  });
}

test('a host that joins anew leaves no remainder of a renewal behind', (t) => {
  const s = setUp(t);
  saveRenewed(s.folder, s.issue());
  const { rootPem } = loadIdentity(s.folder, s.clock.now());
  const { certificatePem } = s.issue();
  saveIdentity(s.folder, { rootPem, certificatePem, managers: ['m:1'] });
  t.false(existsSync(join(s.folder, 'renewed.pem')));
});

test('wanted now, it is renewed whenever it is due; what fails is tried again with its gaps', async (t) => {
  const given = setUp(t);
  const { clock, first } = given;
  const { held, renewal, asked, manager, stop } = running(t, given);
  await settle();
  t.is(asked.length, 0);
  manager.away = away();
  renewal.renewNow();
  await settle();
  t.is(asked.length, 1);
  renewal.renewNow();
  await settle();
  t.is(asked.length, 1, 'wanted already: it does not come sooner');
  manager.away = undefined;
  await clock.advance(10_000);
  t.is(asked.length, 2);
  t.not(held.current.certificatePem, first.certificatePem);
  await clock.advance(hourMs);
  t.is(asked.length, 2, 'that was all');
  await stop();
});

test('roots: those that a trusted one vouches for, on disk first', async (t) => {
  const { folder, clock } = setUp(t);
  const log = pino({ level: 'silent' });
  const held = HeldIdentity.open(folder, clock.now(), log);
  const { rootPem: old, clusterId } = held.current;
  const surroundings = { clusterId, clock, random: randomBytes };
  const stranger = createAuthority({ ...surroundings, isNext: true });
  const disk = (): string => readFileSync(join(folder, 'ca.crt'), 'utf8');
  const now = clock.now();
  const unchanged = (act: () => void, code: ErrorCode): void => {
    refuses(t, act, code);
    t.is(held.current.rootPem, old);
    t.is(disk(), old);
  };
  // Nobody vouches for it; or another CA does.
  unchanged(() => held.trust({ rootsPem: stranger.certPem, crossPem: '' }, now), 'unauthenticated');
  const other = openAuthority(stranger.certPem, stranger.keyPem, surroundings);
  const self = other.crossSign(other.root).pem;
  unchanged(() => held.trust({ rootsPem: stranger.certPem, crossPem: self }, now), 'unauthenticated');
  unchanged(() => held.trust({ rootsPem: 'x', crossPem: '' }, now), 'bad_certificate');
  unchanged(() => held.trust({ rootsPem: '', crossPem: '' }, now), 'bad_certificate');
  unchanged(() => held.trust({ rootsPem: old.repeat(5), crossPem: '' }, now), 'bad_certificate');
  // Beside one that is trusted it is left out.
  held.trust({ rootsPem: stranger.certPem + old, crossPem: '' }, now);
  t.is(held.current.rootPem, old);
});

test('roots: a new one, then that alone once the certificate is of it', async (t) => {
  const { folder, clock, authority } = setUp(t);
  const log = pino({ level: 'silent' });
  const held = HeldIdentity.open(folder, clock.now(), log);
  const { rootPem: old, clusterId, nodeId } = held.current;
  const surroundings = { clusterId, clock, random: randomBytes };
  const next = createAuthority({ ...surroundings, isNext: true });
  const crossPem = authority.crossSign(readRoot(next.certPem)).pem;
  const disk = (): string => readFileSync(join(folder, 'ca.crt'), 'utf8');
  held.trust({ rootsPem: next.certPem + old, crossPem }, clock.now());
  t.is(held.current.rootPem, next.certPem + old);
  t.is(disk(), next.certPem + old);
  // Its own certificate is of the one before: without that it would be nobody.
  refuses(t, () => held.trust({ rootsPem: next.certPem, crossPem }, clock.now()), 'bad_certificate');
  t.is(disk(), next.certPem + old);
  const { privateKey, privatePem } = generateNodeKey();
  const signer = openAuthority(next.certPem, next.keyPem, { ...surroundings, crossPem });
  const issued = signer.issueNode({ csr: createCsr(privateKey), nodeId, role: 'worker' });
  held.take({ certificatePem: issued.pem + signer.intermediatesPem, keyPem: privatePem }, clock.now());
  held.worked(held.current);
  held.trust({ rootsPem: next.certPem, crossPem }, clock.now());
  t.is(disk(), next.certPem);
  const again = loadIdentity(folder, clock.now());
  t.is(again.rootPem, next.certPem);
  t.is(again.nodeId, nodeId);
});
