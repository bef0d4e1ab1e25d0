import test from 'ava';
import { durationText, parseDuration } from '../../src/model/duration.js';
import { refuses } from '../support/refuses.js';

test('lengths of time', (t) => {
  t.deepEqual(['90s', '10m', '24h', '7d'].map(parseDuration), [90_000, 600_000, 86_400_000, 604_800_000]);
});

test('what is none is refused with words', (t) => {
  for (const text of [
    '',
    '10',
    'm',
    '0s',
    '-1s',
    '1.5h',
    '10 m',
    '10M',
    '1h30m',
    '9999999s',
    '1e3s',
    '10m\n',
  ])
    refuses(t, () => parseDuration(text), 'bad_input', /is not a length of time/);
});

test('they are said in words', (t) => {
  const hourMs = 3_600_000;
  const texts = [90 * 24 * hourMs, 24 * hourMs, 12 * hourMs, 1.5 * hourMs, 61_000, 0, 10].map(durationText);
  t.deepEqual(texts, ['90 days', '1 day', '12 h', '1 h 30 min', '1 min 1 s', '0 s', '0 s']);
});
