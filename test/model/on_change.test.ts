import test from 'ava';
import { canonicalOnChange, onChangeText, parseOnChange } from '../../src/model/on_change.js';
import { parseReference } from '../../src/model/reference.js';

test('each action has one way to be written', (t) => {
  for (const text of ['none', 'restart', 'signal=HUP', 'hook=reload-nginx'])
    t.is(onChangeText(parseOnChange(text)), text);
  t.is(canonicalOnChange('signal=sigusr1'), 'signal=USR1');
  t.is(canonicalOnChange(''), '');
  t.is(parseReference('source=db,on-change=signal=SIGHUP').onChange, 'signal=HUP');
});

for (const text of [
  '',
  'restart=now',
  'signal',
  'signal=',
  'signal=KILL',
  'signal=9',
  'hook',
  'hook=',
  'hook=../x',
  'x',
  'none=',
  'hook=a b',
])
  test(`${JSON.stringify(text)} is refused, with what there is`, (t) => {
    const error = t.throws(() => parseOnChange(text), { name: 'InroError' });
    t.regex((error as { remedy?: string }).remedy ?? '', /signal=HUP|use /);
  });
