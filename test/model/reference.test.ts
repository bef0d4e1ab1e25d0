import test from 'ava';
import fc from 'fast-check';
import { InroError } from '../../src/model/error.js';
import { hasControl } from '../../src/model/name.js';
import { checkReference, checkTargetsDiffer, parseMode, parseReference } from '../../src/model/reference.js';
import { anyText } from '../support/any_text.js';
import { refuses } from '../support/refuses.js';

const plain = {
  source: 'db',
  version: 0,
  target: 'db',
  uid: '0',
  gid: '0',
  mode: 0o444,
  mmap: false,
  onChange: '',
};

test('the short form: a name, and Docker’s defaults', (t) => {
  t.deepEqual(parseReference('db'), plain);
});

test('the long form, in any order, with Docker’s short keys', (t) => {
  t.deepEqual(parseReference('source=db'), plain);
  t.deepEqual(parseReference('source=db,target=password.txt,uid=999,gid=postgres,mode=0440'), {
    source: 'db',
    version: 0,
    target: 'password.txt',
    uid: '999',
    gid: 'postgres',
    mode: 0o440,
    mmap: false,
    onChange: '',
  });
  t.deepEqual(parseReference('mode=400,dst=x,src=db'), { ...plain, target: 'x', mode: 0o400 });
});

test('mmap is a word alone, or true or false', (t) => {
  t.true(parseReference('source=db,mmap').mmap);
  t.true(parseReference('mmap,source=db').mmap);
  t.true(parseReference('source=db,mmap=true').mmap);
  t.false(parseReference('source=db,mmap=false').mmap);
  refuses(t, () => parseReference('source=db,mmap=1'), 'bad_input', /mmap="?1"? is neither true nor false/);
  refuses(t, () => parseReference('source=db,target'), 'bad_input', /"target" is not understood/);
});

test('mode is octal, with or without a zero in front: 400 is not Docker’s decimal 0620', (t) => {
  t.is(parseMode('400'), 0o400);
  t.is(parseMode('0400'), 0o400);
  t.is(parseMode('0o400'), 0o400);
  t.is(parseMode('777'), 0o777);
  t.is(parseMode('0000'), 0);
});

test('a mode that is not octal, or has more than permission bits, is refused', (t) => {
  for (const text of [
    '',
    '8',
    '999',
    '0x1ff',
    'rw-r--r--',
    '-444',
    '+444',
    ' 444',
    '444 ',
    '4.44',
    '1e2',
    '４４４',
  ])
    refuses(t, () => parseMode(text), 'bad_input', /is not an octal number/);
  for (const text of ['7777', '1000', '4755', '01777', '77777'])
    refuses(t, () => parseMode(text), 'bad_input', /is not between 0 and 0777/);
});

test('a target is one file name', (t) => {
  for (const target of [
    'a',
    'a.txt',
    '.hidden',
    'with space',
    'é',
    'a=b',
    'x'.repeat(255),
    'é'.repeat(127),
    'a..b',
    'a..',
    '~',
    '-rf',
  ])
    t.is(checkReference({ ...plain, target }).target, target);
  const bad = [
    '',
    '.',
    '..',
    '../x',
    '..data',
    '..1',
    'a/b',
    '/a',
    'a/',
    'a\0',
    'a\n',
    '\u007f',
    'a\u0085',
    'x'.repeat(256),
    'é'.repeat(128),
    '\ud800',
    'a\udfff',
  ];
  for (const target of bad) {
    const error = refuses(t, () => checkReference({ ...plain, target }), 'bad_input', /is not a file name/);
    t.false(hasControl(error.message));
  }
});

test('an owner is a number or a name that a node can look up', (t) => {
  for (const owner of ['0', '999', '4294967294', 'postgres', '_apt', 'systemd-network', 'host$'])
    t.is(checkReference({ ...plain, uid: owner, gid: owner }).uid, owner);
  for (const owner of [
    '',
    '-1',
    '4294967295',
    '99999999999',
    '1.5',
    'a b',
    'a:b',
    '9lives',
    'root\n',
    '$x',
    'x'.repeat(65),
  ]) {
    refuses(t, () => checkReference({ ...plain, uid: owner }), 'bad_input', /^uid /);
    refuses(t, () => checkReference({ ...plain, gid: owner }), 'bad_input', /^gid /);
  }
});

test('a reference from the wire is checked as one from a terminal', (t) => {
  for (const mode of [-1, 0o1000, 0o7777, 1.5, Number.NaN, Infinity])
    refuses(t, () => checkReference({ ...plain, mode }), 'bad_input', /^mode /);
});

test('what is not understood is named, not ignored', (t) => {
  const table: [string, RegExp][] = [
    ['source=db,target', /"target" is not understood/],
    ['source=db,target=', /"target=" is not understood/],
    ['source=db,owner=root', /"owner=root" is not understood/],
    ['source=db, mode=400', /" mode=400" is not understood/],
    ['source=db,', /"" is not understood/],
    ['SOURCE=db', /"SOURCE=db" is not understood/],
    ['source=db,__proto__=x', /"__proto__=x" is not understood/],
    ['target=x', /has no source/],
    ['source=db,mode=0444,mode=0400', /gives mode twice/],
    ['source=a,source=b', /gives source twice/],
    ['source=a/b', /secret name "a\/b" is not valid/],
    ['', /secret name "" is not valid/],
  ];
  for (const [text, words] of table) refuses(t, () => parseReference(text), 'bad_input', words);
});

test('one thing said twice under two keys is said twice', (t) => {
  refuses(t, () => parseReference('source=a,src=b'), 'bad_input', /twice/);
  refuses(t, () => parseReference('source=a,target=x,dst=y'), 'bad_input', /twice/);
});

test('two references with one target are refused with both names', (t) => {
  const ok = [plain, { ...plain, target: 'other' }];
  t.notThrows(() => checkTargetsDiffer(ok));
  const error = refuses(t, () => checkTargetsDiffer([...ok, { source: 'api', target: 'db' }]), 'bad_input');
  t.regex(error.message, /"db" and "api" have one target "db"/);
});

test('any text is a reference that a node can show, or is refused with bad_input', (t) => {
  const part = fc.oneof(
    anyText(['=', ',']),
    fc.constantFrom('db', '..', '0440', '7777', 'a/b', '-1', 'root', '\ud800', '\u009b'),
  );
  const key = fc.constantFrom('source', 'src', 'target', 'dst', 'uid', 'gid', 'mode', 'x', '');
  const long = fc
    .array(fc.tuple(key, part), { maxLength: 7 })
    .map((fields) => fields.map((f) => f.join('=')).join(','));
  fc.assert(
    fc.property(fc.oneof(part, long), (text) => {
      try {
        const reference = parseReference(text);
        checkReference(reference);
        return !/[/\0]/.test(reference.target) && reference.mode <= 0o777;
      } catch (error) {
        return error instanceof InroError && error.code === 'bad_input' && !hasControl(error.message);
      }
    }),
    { numRuns: 2_000 },
  );
  t.pass();
});

test('a version can be named; the file is called as without it', (t) => {
  t.deepEqual(parseReference('db@3'), { ...plain, version: 3 });
  t.deepEqual(parseReference('source=db@12,target=x'), { ...plain, version: 12, target: 'x' });
  for (const bad of ['db@', 'db@0', 'db@x', 'db@1@2', '@1', 'source=db@-1'])
    refuses(t, () => parseReference(bad), 'bad_input', /version|names no/);
});
