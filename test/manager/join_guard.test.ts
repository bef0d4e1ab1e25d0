import test from 'ava';
import { JoinGuard } from '../../src/manager/join_guard.js';
import { managerLimits } from '../../src/manager/limits.js';
import { FakeClock } from '../support/fake_clock.js';
import { refuses } from '../support/refuses.js';

const { maxWrongTokens, wrongTokensMs, maxWatchedAddresses } = managerLimits;

function wrong(guard: JoinGuard, address: string, times: number = maxWrongTokens): void {
  for (let n = 0; n < times; n++) guard.noteWrong(address);
}

test('after so many wrong tokens an address is not answered until the time is over; others are', async (t) => {
  const clock = new FakeClock();
  const guard = new JoinGuard(clock);
  wrong(guard, '10.0.0.1:1000', maxWrongTokens - 1);
  guard.check('10.0.0.1:1001');
  wrong(guard, '10.0.0.1:1002', 1);
  const error = refuses(
    t,
    () => guard.check('10.0.0.1:1003'),
    'rate_limited',
    /^too many wrong join tokens came from 10\.0\.0\.1: none is looked at for 60 s$/,
  );
  t.is(error.kind, 'temporary');
  guard.check('10.0.0.2:1000');
  await clock.advance(wrongTokensMs - 1);
  refuses(t, () => guard.check('10.0.0.1:1'), 'rate_limited', /for 1 s$/);
  await clock.advance(1);
  guard.check('10.0.0.1:1');
  t.is(guard.wrong.count, maxWrongTokens);
  t.is(guard.wrong.address, '10.0.0.1:1002');
});

test('a host of IPv6 is its network, and IPv4 in IPv6 is IPv4', (t) => {
  for (const [one, other] of [
    ['[2001:db8:1:2::1]:5', '[2001:db8:1:2:ffff:1:2:3]:6'],
    ['[::1]:5', '[::2]:6'],
    ['[fe80::1]:5', '[fe80:0:0:0:1:2:3:4]:6'],
    ['[::ffff:10.0.0.1]:5', '10.0.0.1:6'],
    ['2001:db8:1:2::1:5', '[2001:db8:1:2::9]:6'],
  ] as const) {
    const guard = new JoinGuard(new FakeClock());
    wrong(guard, one);
    refuses(t, () => guard.check(other), 'rate_limited');
    guard.check('[2001:db8:1:3::1]:5');
    guard.check('10.0.0.2:5');
  }
});

test('the addresses that are watched are bounded: those that were wrong least recently are forgotten', (t) => {
  const guard = new JoinGuard(new FakeClock());
  wrong(guard, '10.0.0.1:1');
  for (let n = 0; n < maxWatchedAddresses - 1; n++) wrong(guard, `h${n}:1`, 1);
  refuses(t, () => guard.check('10.0.0.1:1'), 'rate_limited');
  wrong(guard, 'another:1', 1);
  guard.check('10.0.0.1:1');
  t.pass();
});
