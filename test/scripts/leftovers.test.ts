/** What the test script takes away after a run, with a stand-in for ava that leaves things behind. */
import { existsSync, readdirSync } from 'node:fs';
import { userInfo } from 'node:os';
import test, { type ExecutionContext } from 'ava';
import { checkout, type Checkout, type Ended } from './checkout.js';

/** Runs the shell commands in its arguments and ends with the exit code of the last. */
const ava = `import { spawnSync } from 'node:child_process';
console.log('run', process.env.INRO_TEST_RUN, process.env.TMPDIR);
process.exitCode = spawnSync('sh', ['-c', process.argv.slice(2).join('\\n')], { stdio: 'inherit' }).status ?? 1;
`;

const left = (what: string, things = 1): RegExp =>
  new RegExp(
    `^(inro test: left behind: ${what}\\n){${things}}inro test: the tests passed, but left ${things} things? behind: that is a failure\\n$`,
  );

function small(t: ExecutionContext): Checkout {
  return checkout(t, ['scripts'], {
    'node_modules/ava/entrypoints/cli.mjs': ava,
    'package.json': '{ "type": "module" }',
  });
}

/** The run's directory, from what the stand-in said. */
function directoryOf({ stdout }: Pick<Ended, 'stdout'>): string {
  const [, id, directory] = /^run (\w+) (\S+)$/m.exec(stdout) ?? [];
  if (id === undefined || directory !== `/tmp/inro-test-${id}`) throw new Error(`no run in: ${stdout}`);
  return directory;
}

const note = (file: string, seconds: number): string =>
  `echo '${JSON.stringify({ file, seconds, cpuSeconds: 1 })}' >> $TMPDIR/.durations`;

const rows: [string, string, number, RegExp][] = [
  ['a clean run', 'true', 0, /^$/],
  ['a failing run', 'exit 3', 3, /^$/],
  ['files in its directory are no leak', 'touch $TMPDIR/file', 0, /^$/],
  [
    'several files: the longest ones are said first',
    [note('a.test.ts', 2), note('b.test.ts', 70.4), 'exit 3'].join('\n'),
    3,
    /^inro test: the longest files:\n {3}70 s, {4}1 s of a processor: b\.test\.ts\n {4}2 s, .*: a\.test\.ts\n$/,
  ],
  ['a single file says its own', note('a.test.ts', 2), 0, /^$/],
  ['a process that ends by itself in time is no leak', 'setsid sleep 0.2 > /dev/null 2>&1 &', 0, /^$/],
  ['a daemon', 'setsid sleep 600 > /dev/null 2>&1 &', 1, left('process \\d+ \\(sleep 600\\)')],
  [
    'a daemon that ignores TERM',
    "setsid sh -c 'trap : TERM; sleep 600; sleep 600' > /dev/null 2>&1 &",
    1,
    left('process \\d+ \\(.*sleep 600\\)', 2),
  ],
  [
    'a daemon with an empty environment that names the directory',
    'setsid env -i tail -f $TMPDIR/.owner > /dev/null 2>&1 &',
    1,
    left('process \\d+ \\(tail -f /tmp/inro-test-\\w+/\\.owner\\)'),
  ],
];

for (const [title, command, code, stderr] of rows) {
  test(`${title}: exit code ${code}`, async (t) => {
    const ended = await small(t).run('node', ['scripts/test.mjs', command]);
    t.regex(ended.stderr, stderr);
    t.is(ended.code, code);
    t.false(existsSync(directoryOf(ended)));
  });
}

test('a run that takes too long is ended', async (t) => {
  const ended = await small(t).run('node', ['scripts/test.mjs', 'sleep 600'], { INRO_TEST_LIMIT_S: '0.5' });
  t.true(ended.stderr.startsWith('inro test: not done after 0.5 s: ended\n'), ended.stderr);
  t.is(ended.code, 1);
});

test('a file that does not end is ended, with words on what it waits for, and the run goes on', async (t) => {
  const begun = `echo '{"file":"a.test.ts","pid":'$!',"beganMs":1}' >> $TMPDIR/.durations`;
  const command = ['sh -c "sleep 600; true" &', begun, 'wait $!', 'echo went on'].join('\n');
  const ended = await small(t).run('node', ['scripts/test.mjs', command], { INRO_TEST_FILE_LIMIT_S: '0.5' });
  t.regex(
    ended.stderr,
    /^inro test: a\.test\.ts is not done after 0\.5 s: ended\n( {2}\d+ \(of \d+\) S .*\n.*sleep 600.*\n){2}/,
  );
  t.regex(ended.stdout, /went on/);
  t.is(ended.code, 0);
});

test('a run that is ended says which files were under way', async (t) => {
  const begun = `echo '{"file":"a.test.ts","pid":'$!',"beganMs":1}' >> $TMPDIR/.durations`;
  const ended = await small(t).run('node', ['scripts/test.mjs', `sleep 600 & ${begun}; wait $!`], {
    INRO_TEST_LIMIT_S: '3',
  });
  t.regex(
    ended.stderr,
    /ended\ninro test: under way: a\.test\.ts\n {2}\d+ \(of \d+\) S .*sleep\n {4}sleep 600\n/,
  );
});

test('a signal ends the run and clears up', async (t) => {
  const running = small(t).start('node', ['scripts/test.mjs', 'setsid sleep 600 &', 'sleep 600']);
  await running.said('run ');
  running.kill('SIGTERM');
  const ended = await running.ended;
  t.is(ended.code, 143);
  t.false(existsSync(directoryOf(ended)));
});

test('--keep leaves everything in place; the next run finds that its owner is gone and clears it', async (t) => {
  const here = small(t);
  const kept = await here.run('node', ['scripts/test.mjs', '--keep', 'setsid sleep 600 > /dev/null 2>&1 &']);
  t.is(kept.code, 0);
  t.true(existsSync(directoryOf(kept)));
  const next = await here.run('node', ['scripts/test.mjs', 'true']);
  t.is(next.code, 0);
  t.true(next.stderr.includes(`inro test: an earlier run was killed: clearing ${directoryOf(kept)}\n`));
  t.false(existsSync(directoryOf(kept)));
});

const root = userInfo().uid === 0 ? test : test.skip;
root('mounts, also one below another and one with a space in its name (needs root)', async (t) => {
  const commands =
    'cd $TMPDIR; mkdir "a b"; mount -t tmpfs none "a b"; mkdir "a b/etc"; mount --bind /etc "a b/etc"';
  const ended = await small(t).run('node', ['scripts/test.mjs', commands]);
  t.regex(ended.stderr, left('\\w+ mount /tmp/inro-test-\\w+/a b(/etc)?', 2));
  t.is(ended.code, 1);
  t.false(existsSync(directoryOf(ended)));
  t.true(readdirSync('/etc').length > 0);
});

const network =
  userInfo().uid === 0 && ['/sbin/ip', '/usr/sbin/ip'].some((path) => existsSync(path)) ? test : test.skip;
network('network namespaces and links (needs root and ip)', async (t) => {
  const name = 'inro-$INRO_TEST_RUN';
  const commands = `ip netns add ${name}-a; ip link add ${name}-v0 type veth peer name ${name}-v1`;
  const ended = await small(t).run('node', ['scripts/test.mjs', commands]);
  t.regex(ended.stderr, left('(network namespace|link) inro-\\w+-\\w+', 3));
  t.is(ended.code, 1);
  t.deepEqual(
    [...readdirSync('/sys/class/net'), ...readdirSync('/run/netns')].filter((each) =>
      directoryOf(ended).endsWith(each.split('-')[1] ?? '-'),
    ),
    [],
  );
});
