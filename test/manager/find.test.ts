import test from 'ava';
import { find, matcher } from '../../src/manager/find.js';
import { refuses } from '../support/refuses.js';

const record = (id: string, name: string) => ({ id, name });
const records = new Map(
  [
    record('abcd1111', 'web'),
    record('abcd2222', 'api'),
    record('ef001111', 'abcd2222'),
    record('ef002222', 'db'),
    record('ef003333', 'db'),
  ].map((one) => [one.id, one]),
);
const found = (typed: string) => find('service', records, typed, ({ name }) => name).id;

test('a full id, a name, or the beginning of one id', (t) => {
  t.is(found('abcd1111'), 'abcd1111');
  t.is(found('web'), 'abcd1111');
  t.is(found('abcd1'), 'abcd1111');
});

test('a full id goes before a name, a name before a beginning', (t) => {
  t.is(found('abcd2222'), 'abcd2222');
  const named = new Map([
    ['x1', record('x1', 'abcd')],
    ['abcd9', record('abcd9', 'other')],
  ]);
  t.is(find('node', named, 'abcd', ({ name }) => name).id, 'x1');
});

test('what fits several is refused, as is what fits none', (t) => {
  refuses(t, () => found('db'), 'bad_input', /"db" fits 2 services/);
  refuses(t, () => found('abcd'), 'bad_input', /fits 2 services/);
  for (const typed of ['nothing', 'abc', 'ef0', '', 'WEB', 'we']) {
    const error = refuses(t, () => found(typed), 'not_found', /^no service /);
    t.regex(error.remedy ?? '', /inro service ls/);
  }
});

const secret = { id: 'abcd1111', name: 'db_password', labels: { env: 'prod', team: '', 'a=b': 'c' } };

test('name= and id= are beginnings, and alternatives; labels must all hold', (t) => {
  const table: [string[], boolean][] = [
    [[], true],
    [['name=db'], true],
    [['name=db_password'], true],
    [['name=password'], false],
    [['name=x', 'name=db'], true],
    [['id=abcd'], true],
    [['id=abcd', 'name=x'], false],
    [['label=env'], true],
    [['label=env=prod'], true],
    [['label=env=test'], false],
    [['label=env=prod', 'label=team'], true],
    [['label=env=prod', 'label=owner'], false],
    [['label=team='], true],
    [['label=toString'], false],
    [['name='], true],
  ];
  for (const [filters, expected] of table) t.is(matcher(filters)(secret), expected, filters.join(' '));
});

test('a filter that is not understood is refused, never ignored', (t) => {
  for (const filter of [
    '',
    'name',
    'Name=x',
    'status=ready',
    'constructor=x',
    'toString=x',
    '__proto__=x',
    '=x',
  ])
    refuses(t, () => matcher([filter]), 'bad_input', /is not understood/);
});
