import { randomBytes } from 'node:crypto';
import test from 'ava';
import { limits } from '../../src/pki/limits.js';
import { issuedMs, RenewalPoint } from '../../src/pki/renewal_point.js';
import { FakeClock } from '../support/fake_clock.js';

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;

/** As the CA issues it. */
const issuedAt = (ms: number, lifetimeMs: number) => ({
  notBeforeMs: ms - limits.backdateMs,
  notAfterMs: ms + lifetimeMs,
});
const always = (byte: number) => (n: number) => new Uint8Array(n).fill(byte);

test('it lies between 50 and 80 % of the life, anywhere', (t) => {
  const clock = new FakeClock();
  for (const lifetimeMs of [hourMs, 12 * hourMs, 90 * dayMs, 3650 * dayMs]) {
    const certificate = issuedAt(clock.now(), lifetimeMs);
    const part = (random: (n: number) => Uint8Array): number =>
      (new RenewalPoint(certificate, true, { clock, random }).dueMs - clock.now()) / lifetimeMs;
    t.is(part(always(0)), 0.5);
    t.true(Math.abs(part(always(255)) - 0.8) < 1e-6);
    const drawn = Array.from({ length: 300 }, () => part(randomBytes));
    t.true(drawn.every((one) => one >= 0.5 && one <= 0.8));
    for (const [from, to] of [
      [0.5, 0.6],
      [0.6, 0.7],
      [0.7, 0.8],
    ] as const)
      t.true(
        drawn.some((one) => one >= from && one < to),
        `${from}`,
      );
  }
});

test('the hour before the issue is no part of the life; a shorter one has no such hour', (t) => {
  t.is(issuedMs(issuedAt(10 * hourMs, hourMs)), 10 * hourMs);
  t.is(issuedMs({ notBeforeMs: 5, notAfterMs: 5 + hourMs / 2 }), 5);
});

test('it is over when time has come so far, and not before', async (t) => {
  const clock = new FakeClock();
  const point = new RenewalPoint(issuedAt(clock.now(), 90 * dayMs), true, { clock, random: always(0) });
  await clock.advance(45 * dayMs - 1);
  t.false(point.isOver());
  await clock.advance(1);
  t.true(point.isOver());
});

test('a wall clock that is set back does not make it late, one that is set forward makes it early once', async (t) => {
  const clock = new FakeClock();
  const parts = { clock, random: always(0) };
  const back = new RenewalPoint(issuedAt(clock.now(), 90 * dayMs), true, parts);
  clock.setWall(clock.now() - 3650 * dayMs);
  await clock.advance(45 * dayMs);
  t.true(back.isOver());

  const forward = new RenewalPoint(issuedAt(clock.now(), 90 * dayMs), true, parts);
  await clock.advance(hourMs);
  t.false(forward.isOver());
  clock.setWall(clock.now() + 60 * dayMs);
  t.true(forward.isOver());
});

test('where this clock is ahead of the issuer’s, a fresh one is not due at once', async (t) => {
  const clock = new FakeClock();
  for (const aheadMs of [60 * dayMs, 89 * dayMs, 90 * dayMs - 1000]) {
    const certificate = issuedAt(clock.now() - aheadMs, 90 * dayMs);
    const point = new RenewalPoint(certificate, true, { clock, random: always(0) });
    t.false(point.isOver(), `${aheadMs}`);
    await clock.advance(limits.renewalGapMs - 1);
    t.false(point.isOver(), 'never two at once');
  }
});

test('one that is found on disk late in its life is due at once', (t) => {
  const clock = new FakeClock();
  const certificate = issuedAt(clock.now() - 80 * dayMs, 90 * dayMs);
  t.true(new RenewalPoint(certificate, false, { clock, random: always(255) }).isOver());
});
