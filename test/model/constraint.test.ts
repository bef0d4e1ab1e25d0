import test from 'ava';
import fc from 'fast-check';
import {
  canShareNode,
  checkAttractsNothing,
  parseConstraint,
  satisfies,
} from '../../src/model/constraint.js';
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
    'node.hostnames==a',
    'node.labels.==y',
    'node.labels==y',
    'engine.labels.x==y',
    'node.labels.a b==y',
    '==a',
    'node.id==a b',
    'NODE.ID==a',
  ];
  for (const text of bad) {
    const error = refuses(t, () => parseConstraint(text), 'bad_input', /is not understood/);
    t.regex(error.remedy ?? '', /node\.id==ID/);
  }
});

test('labels of a node are or are not; what a host says of itself is no constraint', (t) => {
  t.deepEqual(parseConstraint('node.labels.rack == 7'), {
    key: 'node.labels.rack',
    operator: '==',
    value: '7',
  });
  t.is(parseConstraint('node.labels.a.b-c!=x=y').value, 'x=y');
  const at = (labels: Record<string, string>, ...texts: string[]) =>
    satisfies({ id: 'a', hostname: '', role: '', labels }, texts.map(parseConstraint));
  t.true(at({ rack: '7' }, 'node.labels.rack==7'));
  t.false(at({ rack: '8' }, 'node.labels.rack==7'));
  t.false(at({}, 'node.labels.rack==7'));
  t.true(at({}, 'node.labels.rack!=7'));
  t.false(at({ rack: '7' }, 'node.labels.rack!=7'));
  t.false(at({}, 'node.labels.constructor==x'));
  for (const text of ['node.platform.os==linux', 'engine.labels.x==y']) {
    const error = refuses(t, () => parseConstraint(text), 'bad_input');
    t.regex(error.remedy ?? '', /what a host says of itself decides nothing/);
  }
});

test('whether two services may meet on a node', (t) => {
  const meet = (these: string[], those: string[]) =>
    canShareNode(these.map(parseConstraint), those.map(parseConstraint));
  t.true(meet([], []));
  t.true(meet(['node.id==a'], []));
  t.false(meet(['node.id==a'], ['node.id==b']));
  t.false(meet(['node.id==a'], ['node.id!=a']));
  t.true(meet(['node.id==a'], ['node.labels.rack==7']));
  t.false(meet(['node.labels.rack==7'], ['node.labels.rack==8']));
  t.false(meet(['node.labels.rack==7'], ['node.labels.rack!=7']));
  t.true(meet(['node.labels.rack!=7'], ['node.labels.rack!=8']));
});

test('what a host says of itself may say where a service without secrets runs, and one with secrets not', (t) => {
  const node = { id: 'a', hostname: 'web-1', role: 'worker', labels: {} };
  const at = (...texts: string[]) => satisfies(node, texts.map(parseConstraint));
  t.true(at('node.hostname==web-1', 'node.role!=manager'));
  t.false(at('node.hostname!=web-1'));
  t.false(at('node.role==manager'));
  t.notThrows(() => checkAttractsNothing(['node.id==a', 'node.labels.rack!=7']));
  for (const text of ['node.hostname==web-1', 'node.role!=manager']) {
    const error = refuses(t, () => checkAttractsNothing(['node.id==a', text]), 'bad_input', /with secrets/);
    t.regex(error.remedy ?? '', /what a host says of itself decides nothing/);
  }
});

test('all constraints must hold', (t) => {
  const place = (id: string) => ({ id, hostname: '', role: '', labels: {} });
  const all = (...texts: string[]) => texts.map(parseConstraint);
  t.true(satisfies(place('a'), []));
  t.true(satisfies(place('a'), all('node.id==a')));
  t.false(satisfies(place('b'), all('node.id==a')));
  t.true(satisfies(place('b'), all('node.id!=a', 'node.id!=c')));
  t.false(satisfies(place('c'), all('node.id!=a', 'node.id!=c')));
  t.false(satisfies(place('a'), all('node.id==a', 'node.id!=a')));
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
