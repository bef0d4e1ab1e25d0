import test from 'ava';
import { parseVersionedName } from '../../src/model/versioned_name.js';
import { refuses } from '../support/refuses.js';

test('a name alone means the current version; one version is named behind an @', (t) => {
  t.deepEqual(parseVersionedName('db'), { name: 'db', version: undefined });
  t.deepEqual(parseVersionedName('db@1'), { name: 'db', version: 1 });
  t.deepEqual(parseVersionedName('db@4294967295'), { name: 'db', version: 4_294_967_295 });
  t.deepEqual(parseVersionedName('kp5dhenv3slg@2'), { name: 'kp5dhenv3slg', version: 2 });
});

for (const text of [
  'db@0',
  'db@01',
  'db@',
  'db@-1',
  'db@1.5',
  'db@1e3',
  'db@latest',
  'db@ 1',
  'db@4294967296',
])
  test(`${JSON.stringify(text)} names no version`, (t) => {
    const { remedy } = refuses(
      t,
      () => parseVersionedName(text),
      'bad_input',
      /is not a whole number from 1$/,
    );
    t.regex(remedy ?? '', /NAME@VERSION/);
  });

for (const text of ['', '@', '@1', 'db@1@2'])
  test(`${JSON.stringify(text)} names no secret`, (t) => {
    refuses(t, () => parseVersionedName(text), 'bad_input', /names no version of a secret/);
  });

test('control characters in it do not reach the terminal', (t) => {
  const { message } = refuses(t, () => parseVersionedName('db@\u001b[2J'), 'bad_input');
  t.false(message.includes('\u001b'));
});
