import test from 'ava';
import { durationText, parseDuration } from '../../src/model/duration.js';
import { refuses } from '../support/refuses.js';

const hourMs = 3_600_000;

test('durations are understood as Docker writes them, and in days', (t) => {
  const rows: [string, number][] = [
    ['90d', 90 * 24 * hourMs],
    ['2160h', 90 * 24 * hourMs],
    ['2160h0m0s', 90 * 24 * hourMs],
    ['12h', 12 * hourMs],
    ['1h30m', 1.5 * hourMs],
    ['1d12h', 36 * hourMs],
    ['3600s', hourMs],
    ['0s', 0],
  ];
  for (const [text, ms] of rows) t.is(parseDuration(text), ms, text);
});

test('anything else is refused, with how to write one', (t) => {
  for (const text of [
    '',
    '90',
    'd',
    '-1h',
    '1.5h',
    '1h2d',
    '1h 2m',
    '90D',
    '1w',
    ' 1h',
    '1h\n',
    '9999999999d',
  ]) {
    const error = refuses(t, () => parseDuration(text), 'bad_input', /is not a duration/);
    t.regex(error.remedy ?? '', /90d, 2160h, 12h/);
  }
});

test('they are said in words', (t) => {
  const texts = [90 * 24 * hourMs, 24 * hourMs, 12 * hourMs, 1.5 * hourMs, 61_000, 0, 10].map(durationText);
  t.deepEqual(texts, ['90 days', '1 day', '12 h', '1 h 30 min', '1 min 1 s', '0 s', '0 s']);
});
