import test from 'ava';
import { Lease } from '../../src/agent/lease.js';
import { FakeClock } from '../support/fake_clock.js';

const dayMs = 86_400_000;

test('without a word from a manager nothing may be served', (t) => {
  const lease = new Lease(new FakeClock(), () => undefined);
  t.false(lease.holds());
  t.is(lease.leftMs(), 0);
});

test('it holds for its time from when the question was sent, not from when the answer came', async (t) => {
  const clock = new FakeClock();
  const lease = new Lease(clock, () => undefined);
  const sentMs = clock.boottimeMs();
  await clock.advance(3_000);
  lease.extend(sentMs, 10_000);
  t.is(lease.leftMs(), 7_000);
  await clock.advance(6_999);
  t.true(lease.holds());
  await clock.advance(1);
  t.false(lease.holds());
  t.is(lease.leftMs(), 0);
});

test('a late answer never shortens it', async (t) => {
  const clock = new FakeClock();
  const lease = new Lease(clock, () => undefined);
  lease.extend(clock.boottimeMs(), 10_000);
  lease.extend(clock.boottimeMs() - 5_000, 10_000);
  lease.extend(clock.boottimeMs(), 1);
  t.is(lease.leftMs(), 10_000);
});

test('setting the wall clock neither lengthens nor ends it', async (t) => {
  const clock = new FakeClock();
  const lease = new Lease(clock, () => undefined);
  lease.extend(clock.boottimeMs(), dayMs);
  clock.setWall(clock.now() + 10 * dayMs);
  t.true(lease.holds());
  clock.setWall(clock.now() - 20 * dayMs);
  await clock.advance(dayMs);
  t.false(lease.holds());
});

test('the manager’s order ends it at once, and its next word begins it anew', (t) => {
  const clock = new FakeClock();
  const lease = new Lease(clock, () => undefined);
  lease.extend(clock.boottimeMs(), dayMs);
  lease.end();
  t.false(lease.holds());
  lease.extend(clock.boottimeMs(), 1_000);
  t.is(lease.leftMs(), 1_000);
});
