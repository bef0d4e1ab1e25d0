/** The table of compose-spec's 12-interpolation, and what is none of it. */
import test from 'ava';
import { interpolate } from '../../../src/cli/compose/interpolate.js';

const set: Record<string, string> = { TAG: '7', EMPTY: '', FOO: 'foo' };
const missing: string[] = [];
const variables = { get: (name: string) => set[name], missing: (name: string) => void missing.push(name) };

for (const [text, value] of [
  ['plain', 'plain'],
  ['$TAG', '7'],
  ['${TAG}', '7'],
  ['redis:${TAG}-alpine', 'redis:7-alpine'],
  ['$TAG.$FOO', '7.foo'],
  ['${TAG:-1}', '7'],
  ['${NONE:-1}', '1'],
  ['${EMPTY:-1}', '1'],
  ['${EMPTY-1}', ''],
  ['${NONE-1}', '1'],
  ['${NONE-}', ''],
  ['${NONE:-a:b-c?d}', 'a:b-c?d'],
  ['${NONE:-${FOO}}', 'foo'],
  ['${NONE:-${NONE2:-deep}}', 'deep'],
  ['${NONE:-a${FOO}b}c', 'afoobc'],
  ['${TAG:?must}', '7'],
  ['${EMPTY?must}', ''],
  ['${TAG:+there}', 'there'],
  ['${EMPTY:+there}', ''],
  ['${EMPTY+there}', 'there'],
  ['${NONE+there}', ''],
  ['$$TAG', '$TAG'],
  ['$${TAG}', '${TAG}'],
  ['$$$TAG', '$7'],
  ['${NONE:-$$}', '$'],
  ['cost: $5', 'cost: $5'],
  ['a$', 'a$'],
  ['a$ b', 'a$ b'],
] as const)
  test(`${text} is ${JSON.stringify(value)}`, (t) => {
    t.is(interpolate(text, variables), value);
  });

test('what is not set stands for nothing, and is told', (t) => {
  missing.length = 0;
  t.is(interpolate('a${NOT_SET}b$ALSO_NOT', variables), 'ab');
  t.deepEqual(missing, ['NOT_SET', 'ALSO_NOT']);
});

for (const [text, why] of [
  ['${', /is not understood/],
  ['${TAG', /is not understood/],
  ['${}', /is not understood/],
  ['${1}', /is not understood/],
  ['${TAG/7/8}', /is not understood/],
  ['${NONE:?is needed}', /variable NONE must be set: is needed/],
  ['${EMPTY:?}', /variable EMPTY must be set$/],
  ['${NONE?}', /variable NONE must be set/],
] as const)
  test(`${text} is refused`, (t) => {
    t.regex(t.throws(() => interpolate(text, variables)).message, why);
  });
