import test from 'ava';
import fc from 'fast-check';
import { parseConstraint, satisfies } from '../../src/model/constraint.js';
import { InroError } from '../../src/model/error.js';
import { hasControl } from '../../src/model/name.js';
import { anyText } from '../support/any_text.js';
import { refuses } from '../support/refuses.js';

test('node.id is or is not', (t) => {
  t.deepEqual(parseConstraint('node.id==abc'), { key: 'node.id', operator: '==', value: 'abc' });
  t.deepEqual(parseConstraint(' node.id != abc '), { key: 'node.id', operator: '!=', value: 'abc' });
});

test('a constraint that is not understood is refused, never ignored', (t) => {
  const bad = [
    '',
    'node.id',
    'node.id==',
    'node.id=abc',
    'node.id>abc',
    'node.hostname==a',
    'node.labels.x==y',
    '==a',
    'node.id==a b',
    'NODE.ID==a',
  ];
  for (const text of bad) {
    const error = refuses(t, () => parseConstraint(text), 'bad_input', /is not understood/);
    t.regex(error.remedy ?? '', /node\.id==ID/);
  }
});

test('all constraints must hold', (t) => {
  const all = (...texts: string[]) => texts.map(parseConstraint);
  t.true(satisfies({ id: 'a' }, []));
  t.true(satisfies({ id: 'a' }, all('node.id==a')));
  t.false(satisfies({ id: 'b' }, all('node.id==a')));
  t.true(satisfies({ id: 'b' }, all('node.id!=a', 'node.id!=c')));
  t.false(satisfies({ id: 'c' }, all('node.id!=a', 'node.id!=c')));
  t.false(satisfies({ id: 'a' }, all('node.id==a', 'node.id!=a')));
});

test('any text is a constraint or is refused with bad_input', (t) => {
  fc.assert(
    fc.property(anyText(['node.id', '==', '!=', ' ']), (text) => {
      try {
        return parseConstraint(text).value !== '';
      } catch (error) {
        return error instanceof InroError && error.code === 'bad_input' && !hasControl(error.message);
      }
    }),
  );
  t.pass();
});
