/** docs/errors.md and the list of codes in src/model/error.ts say the same. */
import { readFileSync } from 'node:fs';
import test from 'ava';
import { errorCodes } from '../../src/model/error.js';

// The compiled test stands in dist/test/docs.
const page = readFileSync(new URL('../../../docs/errors.md', import.meta.url), 'utf8');
const rows = page
  .split('\n')
  .filter((line) => line.startsWith('| `'))
  .map((line) =>
    line
      .slice(1, -1)
      .split('|')
      .map((cell) => cell.trim()),
  );

test('the page has every code with its kind, in order, and no other', (t) => {
  const documented = rows.map(([code, kind]) => [code?.replaceAll('`', ''), kind]);
  t.deepEqual(
    documented,
    Object.entries(errorCodes).sort(([a], [b]) => (a < b ? -1 : 1)),
  );
});

test('each code has a meaning and says what to do', (t) => {
  for (const [code, , ...words] of rows) {
    t.is(words.length, 2, code);
    for (const text of words) t.true(text.length > 10, `${code}: ${text}`);
  }
});
