import test from 'ava';
import fc from 'fast-check';
import { InroError } from '../../src/model/error.js';
import { limits } from '../../src/model/limits.js';
import { checkLabels, checkName, hasControl, quoted } from '../../src/model/name.js';
import { anyText } from '../support/any_text.js';
import { refuses } from '../support/refuses.js';

test('names as Swarm has them', (t) => {
  for (const name of ['a', '0', 'db_password', 'a.b-c_d', 'A9', 'x'.repeat(64), 'a..b', 'a--b'])
    t.is(checkName('secret', name), name);
});

test('what is no name is refused, quoted, with the rule', (t) => {
  const bad = [
    '',
    'x'.repeat(65),
    '-a',
    'a-',
    '.a',
    'a.',
    '_a',
    'a/b',
    '..',
    '.',
    '../etc',
    'a\0b',
    'a\n',
    'a\nb',
  ];
  const worse = [
    ' a',
    'a b',
    'é',
    '名',
    'a\u200b',
    'a%00',
    'A\u0301',
    '\ud800',
    'a\r',
    'a;b',
    '$(id)',
    'a\u202eb',
  ];
  for (const name of [...bad, ...worse]) {
    const error = refuses(t, () => checkName('secret', name), 'bad_input');
    t.regex(error.message, /^secret name ".*" is not valid$/s);
    t.regex(error.remedy ?? '', /1 to 64 characters/);
  }
});

test('any text is a name by the rule or refused in words that a terminal can show', (t) => {
  fc.assert(
    fc.property(anyText(['_']), (name) => {
      try {
        return /^[a-zA-Z0-9](?:[a-zA-Z0-9_.-]{0,62}[a-zA-Z0-9])?$/.test(checkName('service', name));
      } catch (error) {
        return error instanceof InroError && error.code === 'bad_input' && !hasControl(error.message);
      }
    }),
  );
  t.pass();
});

test('what is quoted has no control character left, no line break, and a bound', (t) => {
  fc.assert(
    fc.property(anyText([], 300), (text) => {
      const shown = quoted(text);
      return !hasControl(shown) && shown.length <= 82 * 6 && shown.startsWith('"') && shown.endsWith('"');
    }),
  );
  t.is(quoted('plain "text"'), String.raw`"plain \"text\""`);
  // ESC, and the one-byte forms of CSI and OSC that some terminals obey.
  t.is(
    quoted('\u001b[31m\u009b31m\u009d0;title\u0007\u007f'),
    String.raw`"\u001b[31m\u009b31m\u009d0;title\u0007\u007f"`,
  );
  t.true(quoted('x'.repeat(10_000)).length < 100);
});

test('labels: keys and values as typed, with bounds', (t) => {
  const labels = { env: 'prod', 'com.example.team': 'a b', empty: '', ключ: 'значение', quote: `"'` };
  t.deepEqual(checkLabels(labels), labels);
  t.deepEqual(checkLabels({}), {});
  const many = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, n) => [`k${n}`, '']));
  t.notThrows(() => checkLabels(many(limits.maxLabels)));
  refuses(t, () => checkLabels(many(limits.maxLabels + 1)), 'bad_input', /65 labels are more than 64/);
});

test('a label that cannot be shown or filtered for is refused', (t) => {
  const bad: [string, string][] = [
    ['', 'x'],
    ['a=b', 'x'],
    ['a\n', 'x'],
    ['k'.repeat(limits.maxLabelKeyChars + 1), 'x'],
    ['key', 'a\nb'],
    ['key', '\u001b[31m'],
    ['key', '\u009b31m'],
    ['key', 'v'.repeat(limits.maxLabelValueChars + 1)],
  ];
  for (const [key, value] of bad) refuses(t, () => checkLabels({ [key]: value }), 'bad_input', /label/);
});

test('any labels are taken as they are or refused with bad_input', (t) => {
  const any = fc.dictionary(anyText(['=']), anyText());
  fc.assert(
    fc.property(any, (labels) => {
      try {
        return checkLabels(labels) === labels && !Object.entries(labels).flat().some(hasControl);
      } catch (error) {
        return error instanceof InroError && error.code === 'bad_input' && !hasControl(error.message);
      }
    }),
  );
  t.pass();
});
