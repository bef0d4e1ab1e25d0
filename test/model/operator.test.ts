import test from 'ava';
import fc from 'fast-check';
import { checkGrants, checkOperatorRole, isGranted, operatorRoles } from '../../src/model/operator.js';
import { refuses } from '../support/refuses.js';

for (const [grant, name, fits] of [
  ['db', 'db', true],
  ['db', 'db2', false],
  ['db', 'DB', false],
  ['db', '', false],
  ['*', 'anything', true],
  ['*', '', true],
  ['web_*', 'web_', true],
  ['web_*', 'web_key', true],
  ['web_*', 'a_web_key', false],
  ['*_key', 'web_key', true],
  ['*_key', 'web_key2', false],
  ['w?b', 'web', true],
  ['w?b', 'wb', false],
  ['a*b*c', 'a1b2b3c', true],
  ['a*b*c', 'a1b2b3', false],
  ['a.c', 'abc', false],
  ['**', 'x', true],
  ['', 'x', false],
] as const) {
  test(`${grant || '(empty)'} ${fits ? 'fits' : 'does not fit'} ${name || '(empty)'}`, (t) => {
    t.is(isGranted([grant], name), fits);
  });
}

test('one of several grants is enough, and none is none', (t) => {
  t.true(isGranted(['a', 'b*'], 'bc'));
  t.false(isGranted([], 'a'));
});

test('a glob fits what the same regular expression fits', (t) => {
  const text = fc.string({ unit: fc.constantFrom('a', 'b', '.'), maxLength: 12 });
  const glob = fc.string({ unit: fc.constantFrom('a', 'b', '.', '*', '?'), maxLength: 8 });
  t.notThrows(() =>
    fc.assert(
      fc.property(glob, text, (pattern, name) => {
        const like = pattern.replaceAll('.', '\\.').replaceAll('?', '.').replaceAll('*', '.*');
        return isGranted([pattern], name) === new RegExp(`^${like}$`).test(name);
      }),
    ),
  );
});

test('a glob that would keep a backtracking matcher for years is answered', (t) => {
  t.false(isGranted([`${'*a'.repeat(31)}b`], 'a'.repeat(64)));
});

test('a deployer alone has grants, each once, and each must fit some name', (t) => {
  t.deepEqual(checkGrants('deployer', ['a*', 'a*', 'b']), ['a*', 'b']);
  t.deepEqual(checkGrants('admin', []), []);
  refuses(t, () => checkGrants('auditor', ['a']), 'bad_input', /an auditor has no grants/);
  for (const grant of ['', 'a b', 'a/b', '[ab]', 'a\n', 'ä', 'a'.repeat(65)])
    refuses(t, () => checkGrants('deployer', [grant]), 'bad_input', /fits no name/);
  const many = Array.from({ length: 65 }, (_, n) => `g${n}`);
  refuses(t, () => checkGrants('deployer', many), 'bad_input', /65 grants are more than 64/);
});

test('there are three roles', (t) => {
  for (const role of operatorRoles) t.is(checkOperatorRole(role), role);
  for (const role of ['', 'Admin', 'root', 'worker', 'manager', '__proto__'])
    refuses(t, () => checkOperatorRole(role), 'bad_input', /no operator's role/);
});
