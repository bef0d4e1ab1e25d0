/** Each way in which a configuration file can be wrong is said with its line, and each that is right is taken as it stands. */
import test from 'ava';
import { agentKeys, managerKeys } from '../../src/config/keys.js';
import { parseConfig } from '../../src/config/parse.js';
import type { InroError } from '../../src/model/error.js';

const path = '/etc/inro/agent.yaml';

const good: [what: string, text: string, settings: object][] = [
  ['nothing', '', {}],
  ['a remark alone', '# nothing yet\n', {}],
  ['a document that says nothing', '---\n...\n', {}],
  [
    'every key',
    'state: /s\nmount: /m\nsocket: /k\ndriver: fuse-native\nmanagers: [a:1, "[2001:db8::1]:4747"]\nlogLevel: debug\n',
    {
      state: '/s',
      mount: '/m',
      socket: '/k',
      driver: 'fuse-native',
      managers: ['a:1', '[2001:db8::1]:4747'],
      logLevel: 'debug',
    },
  ],
  ['a list over several lines', 'managers:\n  - a:1\n  - b:2\n', { managers: ['a:1', 'b:2'] }],
  ['a byte order mark, CRLF', '\ufeffstate: /s\r\nmount: /m\r\n', { state: '/s', mount: '/m' }],
  ['spaces in a path', 'state: /with some spaces\n', { state: '/with some spaces' }],
  ['JSON', '{"state": "/s"}', { state: '/s' }],
  // YAML 1.1 would make 22:22 the number 1342.
  [
    'the core schema whatever it says',
    '%YAML 1.1\n---\nmanagers: [localhost:22]\n',
    { managers: ['localhost:22'] },
  ],
];

for (const [what, text, settings] of good) {
  test(`good: ${what}`, (t) => t.deepEqual(parseConfig(text, path, agentKeys), settings));
}

const bad: [what: string, text: string, message: string | RegExp][] = [
  // Keys.
  [
    'a slip',
    '\n\nstatee: /s\n',
    "unknown key 'statee' in /etc/inro/agent.yaml line 3: did you mean 'state'?",
  ],
  [
    'two letters swapped',
    'sokcet: /s',
    "unknown key 'sokcet' in /etc/inro/agent.yaml line 1: did you mean 'socket'?",
  ],
  [
    'an option',
    'log-level: info',
    "unknown key 'log-level' in /etc/inro/agent.yaml line 1: did you mean 'logLevel'?",
  ],
  ['capitals', 'MOUNT: /m', "unknown key 'MOUNT' in /etc/inro/agent.yaml line 1: did you mean 'mount'?"],
  [
    'one of several',
    'manager: [a:1]',
    "unknown key 'manager' in /etc/inro/agent.yaml line 1: did you mean 'managers'?",
  ],
  ['far from any', 'frobnicate: 1', "unknown key 'frobnicate' in /etc/inro/agent.yaml line 1"],
  ["the manager's", 'listen: a:1', "unknown key 'listen' in /etc/inro/agent.yaml line 1"],
  ['a number', '1: x', "unknown key '1' in /etc/inro/agent.yaml line 1"],
  ['an empty one', '"": x', 'unknown key "" in /etc/inro/agent.yaml line 1'],
  ['one that terminals obey', '"\\e[2J": x', 'unknown key "\\u001b[2J" in /etc/inro/agent.yaml line 1'],
  ['the prototype', '__proto__: {state: /s}', "unknown key '__proto__' in /etc/inro/agent.yaml line 1"],
  ['a merge', '<<: {state: /s}', 'unknown key "<<" in /etc/inro/agent.yaml line 1'],
  ['the first, when there are two', 'a: 1\nstate: 2', "unknown key 'a' in /etc/inro/agent.yaml line 1"],
  [
    'twice',
    'state: /a\nmount: /m\nstate: /b',
    /^\/etc\/inro\/agent\.yaml line 3 column 1 is not right: .*unique/,
  ],
  ['a list as key', '? [state]\n: /s', /^\/etc\/inro\/agent\.yaml line 1 column 3 is not right: /],
  // Values.
  [
    'no value',
    'state:\n',
    "'state' in /etc/inro/agent.yaml line 1 must be an absolute path, but nothing stands there",
  ],
  [
    'null',
    'state: ~',
    "'state' in /etc/inro/agent.yaml line 1 must be an absolute path, but nothing stands there",
  ],
  [
    'a number',
    '\nstate: 0x10',
    "'state' in /etc/inro/agent.yaml line 2 must be an absolute path, not the number 16",
  ],
  [
    'a boolean',
    'state: true',
    "'state' in /etc/inro/agent.yaml line 1 must be an absolute path, not the boolean true",
  ],
  [
    'a list',
    'state: [/s]',
    "'state' in /etc/inro/agent.yaml line 1 must be an absolute path, not a list of 1",
  ],
  [
    'keys and values',
    'state: {a: b}',
    "'state' in /etc/inro/agent.yaml line 1 must be an absolute path, not keys and values",
  ],
  [
    'a relative path',
    'mount: run/inro',
    '\'mount\' in /etc/inro/agent.yaml line 1 must be an absolute path, not "run/inro"',
  ],
  [
    'what a shell expands',
    'mount: ~/inro',
    '\'mount\' in /etc/inro/agent.yaml line 1 must be an absolute path, not "~/inro"',
  ],
  [
    'a zero byte',
    'mount: "/run\\0"',
    '\'mount\' in /etc/inro/agent.yaml line 1 must be an absolute path, not "/run\\u0000"',
  ],
  [
    'two lines',
    'mount: |\n  /run\n  /x',
    '\'mount\' in /etc/inro/agent.yaml line 1 must be an absolute path, not "/run\\n/x\\n"',
  ],
  [
    'an unknown driver',
    'driver: kernal',
    '\'driver\' in /etc/inro/agent.yaml line 1 must be kernel or fuse-native, not "kernal"',
  ],
  [
    'an unknown level',
    'logLevel: loud',
    '\'logLevel\' in /etc/inro/agent.yaml line 1 must be one of trace, debug, info, warn, error, fatal, silent, not "loud"',
  ],
  [
    'one address, no list',
    'managers: a:1',
    '\'managers\' in /etc/inro/agent.yaml line 1 must be a list of 1 to 16 addresses HOST:PORT, not "a:1"',
  ],
  [
    'no address',
    'managers: []',
    "'managers' in /etc/inro/agent.yaml line 1 must be a list of 1 to 16 addresses HOST:PORT, not a list of 0",
  ],
  [
    'too many addresses',
    `managers: [${Array.from({ length: 17 }, (_, i) => `a:${i}`).join(', ')}]`,
    "'managers' in /etc/inro/agent.yaml line 1 must be a list of 1 to 16 addresses HOST:PORT, not a list of 17",
  ],
  [
    'an address without a port',
    'state: /s\nmanagers:\n  - a:1\n  - b\n',
    'item 2 of \'managers\' in /etc/inro/agent.yaml line 4 must be HOST:PORT, not "b"',
  ],
  [
    'a port out of range',
    'managers: [a:70000]',
    'item 1 of \'managers\' in /etc/inro/agent.yaml line 1 must be HOST:PORT, not "a:70000"',
  ],
  [
    'a number for an address',
    'managers: [4747]',
    "item 1 of 'managers' in /etc/inro/agent.yaml line 1 must be HOST:PORT, not the number 4747",
  ],
  [
    'an address without quotes',
    'managers:\n  - a: 1',
    "item 1 of 'managers' in /etc/inro/agent.yaml line 2 must be HOST:PORT, not keys and values",
  ],
  [
    'the first, when several are wrong',
    'mount: m\nstate: s',
    '\'mount\' in /etc/inro/agent.yaml line 1 must be an absolute path, not "m"',
  ],
  // YAML.
  ['a text', 'state', '/etc/inro/agent.yaml does not say KEY: VALUE'],
  ['a list', '- state', '/etc/inro/agent.yaml does not say KEY: VALUE'],
  ['a number', '17', '/etc/inro/agent.yaml does not say KEY: VALUE'],
  ['a tab', 'state: /s\n\tmount: /m', /^\/etc\/inro\/agent\.yaml line 2 column 1 is not right: /],
  ['an open list', 'managers: [a:1\n', /^\/etc\/inro\/agent\.yaml line 2 column 1 is not right: /],
  [
    'an open quote',
    'state: "/s\n',
    /^\/etc\/inro\/agent\.yaml line 2 column 1 is not right: Missing closing "quote/,
  ],
  ['two keys on a line', 'state: /s: /m', /^\/etc\/inro\/agent\.yaml line 1 column 8 is not right: /],
  [
    'a second document',
    'state: /s\n---\nstate: /t',
    '/etc/inro/agent.yaml line 2 column 1 is not right: a second document begins here',
  ],
  [
    'an unknown directive',
    '%FROB x\n---\nstate: /s',
    /^\/etc\/inro\/agent\.yaml line 1 column 1 is not right: Unknown directive/,
  ],
  [
    'an unknown tag',
    'state: !path /s',
    /^\/etc\/inro\/agent\.yaml line 1 column 8 is not right: Unresolved tag: !path/,
  ],
  ['a tag', 'state: !!str /s', '/etc/inro/agent.yaml line 1 has a tag, which has no place in such a file'],
  [
    'a tag on the whole',
    '!!map\nstate: /s',
    '/etc/inro/agent.yaml line 2 has a tag, which has no place in such a file',
  ],
  [
    'an anchor',
    'state: /s\nmount: &m /m',
    '/etc/inro/agent.yaml line 2 has an anchor, which has no place in such a file',
  ],
  ['an alias', 'state: *nowhere', /^\/etc\/inro\/agent\.yaml line 1 /],
  [
    'aliases that multiply',
    'a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n',
    '/etc/inro/agent.yaml line 1 has an anchor, which has no place in such a file',
  ],
  ['deep nesting', `state: ${'['.repeat(30_000)}`, /^\/etc\/inro\/agent\.yaml /],
];

for (const [what, text, message] of bad) {
  test(`bad: ${what}: ${text.slice(0, 40)}`, (t) => {
    const error = t.throws<InroError>(() => parseConfig(text, path, agentKeys), { message });
    t.is(error?.code, 'bad_config');
    t.truthy(error?.remedy);
    t.notRegex(`${error?.message}${error?.remedy}`, /\n/, 'one line each');
  });
}

test("the manager's file has keys of its own", (t) => {
  const text = 'state: /s\nlisten: 127.0.0.1:0\nsocket: /k\nlogLevel: silent\n';
  t.deepEqual(parseConfig(text, '/m.yaml', managerKeys), {
    state: '/s',
    listen: '127.0.0.1:0',
    socket: '/k',
    logLevel: 'silent',
  });
  t.throws(() => parseConfig('lisen: a:1', '/m.yaml', managerKeys), {
    message: "unknown key 'lisen' in /m.yaml line 1: did you mean 'listen'?",
  });
  t.throws(() => parseConfig('listen: 4747', '/m.yaml', managerKeys), {
    message: "'listen' in /m.yaml line 1 must be HOST:PORT, not the number 4747",
  });
});
