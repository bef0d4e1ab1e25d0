/** What `npm run bench` says when it cannot begin. */
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { run } from '../support/inro.js';

/** dist/bench/main.js */
const bench = fileURLToPath(new URL('../../bench/main.js', import.meta.url));
const asAnotherUser = 'data:text/javascript,process.getuid = () => 1000;';

/** title, arguments of node, exit code, words, what comes before node */
const rows: [string, string[], number, RegExp, string[]?][] = [
  [
    'an unknown name',
    [bench, 'write'],
    2,
    /^inro bench: no benchmark is called write\nthere are\n [^]*\n {2}read: .*\n {4}--rounds 20: /,
  ],
  [
    'no name',
    [bench, '--json'],
    2,
    /^inro bench: usage: npm run bench -- NAME .*\nthere are\n [^]*\n {2}read: /,
  ],
  ['an unknown option', [bench, 'read', '--rouns', '1'], 2, /^inro bench: Unknown option '--rouns'/],
  [
    'a number that is none',
    [bench, 'read', '--rounds', '0'],
    2,
    /--rounds takes a whole number from 1, not 0/,
  ],
  [
    'not root',
    ['--import', asAnotherUser, bench, 'read'],
    1,
    /^inro bench: read cannot run here: .*root.*\n$/,
  ],
];

for (const [title, args, code, words, through = []] of rows) {
  test(`${title}: exit code ${code}, words on standard error, nothing on standard output`, async (t) => {
    const ended = await run([process.execPath, ...args], { through });
    t.is(ended.stdout, '');
    t.regex(ended.stderr, words);
    t.is(ended.code, code);
  });
}
