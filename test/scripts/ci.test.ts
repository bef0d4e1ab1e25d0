/** .ci/run with a stand-in for npm: what it makes of what the tests say. */
import test from 'ava';
import { checkout } from './checkout.js';

/** `npm run --silent lint` ends with $LINT; `npm test --silent -- --tap` says the file tap, waits for $WAIT, ends with $TESTS. */
const npm = `#!/bin/sh
case "$*" in
  'run --silent lint') exit "$LINT" ;;
  'test --silent -- --tap') [ "$INRO_TEST_LAB" = 1 ] && cat tap; sleep "$WAIT"; exit "$TESTS" ;;
  *) exit 9 ;;
esac
`;

const good = 'TAP version 13\nok 1 - a\nok 2 - b\n\n1..2\n# tests 2\n# pass 2\n# fail 0\n\n';
const oneFailed = 'TAP version 13\nok 1 - a\nnot ok 2 - b\n\n1..2\n# tests 2\n# pass 1\n# fail 1\n\n';
const oneSkipped =
  'TAP version 13\nok 1 - a\nok 2 - b # SKIP\n\n1..2\n# tests 2\n# pass 1\n# skip 1\n# fail 0\n\n';
const crashed =
  'TAP version 13\nok 1 - a\nok 2 - b # SKIP\nnot ok 3 - c\nTypeError: the reporter does not survive a time-out\n';

const rows: [string, { tap: string; tests?: number; lint?: number }, string][] = [
  ['all is well', { tap: good }, '2 passed, 0 failed'],
  ['a test fails', { tap: oneFailed, tests: 1 }, '1 passed, 1 failed'],
  ['a test is skipped', { tap: oneSkipped }, '1 passed, 1 failed'],
  ['lint fails', { tap: good, lint: 1 }, '2 passed, 1 failed'],
  ['the tests leave something behind', { tap: good, tests: 1 }, '2 passed, 1 failed'],
  ['the reporter crashes', { tap: crashed, tests: 1 }, '1 passed, 3 failed'],
  ['nothing comes', { tap: '', tests: 1, lint: 1 }, '0 passed, 2 failed'],
];

for (const [title, { tap, tests = 0, lint = 0 }, last] of rows) {
  test(`${title}: ${last}`, async (t) => {
    const here = checkout(t, ['.ci/run'], { 'bin/npm': npm, tap });
    const { code, stdout } = await here.run('/bin/sh', ['-c', 'cd / && exec "$0"', here.at('.ci/run')], {
      WAIT: '0',
      TESTS: String(tests),
      LINT: String(lint),
    });
    t.true(stdout.startsWith(tap), 'the output stays visible');
    t.is(stdout.trimEnd().split('\n').at(-1), last);
    t.is(code === 0, last.endsWith(' 0 failed'));
  });
}

test('a TERM reaches the tests, and the last line still comes', async (t) => {
  const here = checkout(t, ['.ci/run'], { 'bin/npm': npm, tap: good });
  const running = here.start(here.at('.ci/run'), [], { WAIT: '60', TESTS: '0', LINT: '0' });
  await running.said('# fail 0');
  running.kill('SIGTERM');
  const { code, stdout } = await running.ended;
  t.regex(stdout, /\n2 passed, [1-9] failed\n$/);
  t.is(code, 1);
});
