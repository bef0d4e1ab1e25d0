import test from 'ava';
import { canShareNode, parseConstraint } from '../../src/model/constraint.js';
import { InroError } from '../../src/model/error.js';
import { checkAskable, templateOf, unitName } from '../../src/model/unit.js';

const badInput = { instanceOf: InroError, code: 'bad_input' };

test('a unit has its full name', (t) => {
  const names = [
    ['nginx', 'nginx.service'],
    ['nginx.service', 'nginx.service'],
    ['app@1', 'app@1.service'],
    ['app@', 'app@.service'],
    ['a.b-c_d:e', 'a.b-c_d:e.service'],
    ['dev-disk\\x2dlabel.swap', 'dev-disk\\x2dlabel.swap'],
    ['sshd.socket', 'sshd.socket'],
  ] as const;
  for (const [typed, name] of names) t.is(unitName(typed), name);
});

test('what systemd has no unit for is refused', (t) => {
  for (const typed of [
    '',
    '.service',
    '@',
    '@1.service',
    'a b',
    'a/b',
    'a\nb',
    'é',
    'x.timer',
    'x.target',
    'a'.repeat(256),
  ])
    t.throws(() => unitName(typed), badInput, typed);
});

test('an instance has a template', (t) => {
  t.is(templateOf('app@1.service'), 'app@.service');
  t.is(templateOf('app@a@b.service'), 'app@.service');
  t.is(templateOf('app@.service'), undefined);
  t.is(templateOf('app.service'), undefined);
});

test('unit and target fit the address that systemd asks under', (t) => {
  const unit = 'nginx.service';
  t.notThrows(() => checkAskable(unit, ['a'.repeat(83 - unit.length), 'b']));
  t.throws(() => checkAskable(unit, ['b', 'a'.repeat(84 - unit.length)]), badInput);
  t.throws(() => checkAskable(unit, ['é'.repeat(40)]), badInput);
  t.notThrows(() => checkAskable('', ['a'.repeat(255)]));
});

test('whether two services can meet on a node', (t) => {
  const can = (these: string[], those: string[]) => {
    const result = canShareNode(these.map(parseConstraint), those.map(parseConstraint));
    t.is(canShareNode(those.map(parseConstraint), these.map(parseConstraint)), result);
    return result;
  };
  t.true(can([], []));
  t.true(can(['node.id==a'], []));
  t.true(can(['node.id==a'], ['node.id==a', 'node.id!=b']));
  t.true(can(['node.id!=a'], ['node.id!=b']));
  t.false(can(['node.id==a'], ['node.id==b']));
  t.false(can(['node.id==a'], ['node.id!=a']));
  t.false(can(['node.id==a', 'node.id==b'], []), 'one that runs nowhere meets nobody');
});
