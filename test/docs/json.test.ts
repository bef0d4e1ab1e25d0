/** docs/json.md against the built program: each command that takes --json is run, and every field it prints is in its table. */
import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import type { ExecutionContext } from 'ava';
import test from 'ava';
import { Host } from '../support/host.js';
import { labScenario } from '../support/lab.js';
import { managersOnEtcd, type OneManager } from '../support/managers.js';
import { eventually, inro, program } from '../support/inro.js';

interface Shape {
  isList: boolean;
  /** Type by path, in the page's order: `versions`, `versions[].version`. */
  fields: Map<string, string>;
}

// The compiled test stands in dist/test/docs.
const page = readFileSync(new URL('../../../docs/json.md', import.meta.url), 'utf8');

/** By command, such as `secret ls`. */
const documented = new Map<string, Shape>();
for (const section of page.split(/^## /m).slice(1)) {
  const [heading = '', ...lines] = section.split('\n');
  const rows = lines
    .filter((line) => line.startsWith('| `'))
    .map((line) => line.split('|').map((cell) => cell.trim().replaceAll('`', '')))
    .map(([, path, type]) => [path as string, type as string] as const);
  const [, base = ''] = /has the fields of `inro ([^`]+)`/.exec(section) ?? [];
  const fields = new Map([...(documented.get(base)?.fields ?? []), ...rows]);
  const shape = { isList: lines.some((line) => line.startsWith('A list')), fields };
  for (const [, command] of heading.matchAll(/`inro ([^`]+)`/g)) documented.set(command as string, shape);
}

const isString = (value: unknown): value is string => typeof value === 'string';
const isListOf = (is: (item: unknown) => boolean) => (value: unknown) =>
  Array.isArray(value) && value.length > 0 && value.every(is);
const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const isId = (value: unknown): boolean => isString(value) && /^[0-9a-z]{25}$/.test(value);
const isTime = (value: unknown): boolean =>
  isString(value) && new Date(value).toISOString() === value && Date.parse(value) > 0;

/** The samples below fill every list and map, so an empty one is a wrong sample. */
const types: Record<string, (value: unknown) => boolean> = {
  number: (value) => typeof value === 'number',
  string: isString,
  id: isId,
  'id or empty': (value) => value === '' || isId(value),
  time: isTime,
  'time or null': (value) => value === null || isTime(value),
  integer: Number.isSafeInteger,
  'integer or null': (value) => value === null || Number.isSafeInteger(value),
  boolean: (value) => typeof value === 'boolean',
  'map, may be empty': (value) => isObject(value) && Object.values(value).every(isString),
  map: (value) => isObject(value) && Object.keys(value).length > 0 && Object.values(value).every(isString),
  object: isObject,
  'object or null': (value) => value === null || isObject(value),
  'list of integers, may be empty': (value) => Array.isArray(value) && value.every(Number.isInteger),
  'list of strings': isListOf(isString),
  'list of strings, may be empty': (value) => Array.isArray(value) && value.every(isString),
  'list of objects': isListOf(isObject),
  'list of objects, may be empty': (value) => Array.isArray(value) && value.every(isObject),
};

function checkFields(
  t: ExecutionContext,
  command: string,
  fields: Shape['fields'],
  value: Record<string, unknown>,
  prefix = '',
): void {
  const here = [...fields.keys()].filter(
    (path) => path.startsWith(prefix) && !/[.[]/.test(path.slice(prefix.length)),
  );
  t.deepEqual(
    Object.keys(value).map((key) => prefix + key),
    here,
    `fields of inro ${command}`,
  );
  for (const path of here) {
    const type = fields.get(path) as string;
    const field = value[path.slice(prefix.length)];
    t.true(
      types[type]?.(field),
      `inro ${command}: ${path} is ${JSON.stringify(field)}, documented as ${type}`,
    );
    if (isObject(field) && type.startsWith('object')) checkFields(t, command, fields, field, `${path}.`);
    if (type.startsWith('list of objects')) {
      for (const item of field as Record<string, unknown>[])
        checkFields(t, command, fields, item, `${path}[].`);
    }
  }
}

function checkOutput(t: ExecutionContext, command: string, printed: string): unknown {
  const shape = documented.get(command);
  if (shape === undefined) throw new Error(`docs/json.md has no section for inro ${command}`);
  const value: unknown = JSON.parse(printed);
  t.is(
    printed,
    `${JSON.stringify(value, undefined, 2)}\n`,
    `inro ${command}: one value, indented by two spaces`,
  );
  t.is(Array.isArray(value), shape.isList, `inro ${command}: a list or one object`);
  const objects = shape.isList ? (value as Record<string, unknown>[]) : [value as Record<string, unknown>];
  t.not(objects.length, 0, `inro ${command}: a sample that prints something`);
  for (const object of objects) checkFields(t, command, shape.fields, object);
  return value;
}

const takesJsonItself = (help: string): boolean => /^ +--json\b/m.test(help);

test('the page has a section for each command that takes --json, and for no other', async (t) => {
  const help = async (args: string[]): Promise<string> => (await inro([...args, '--help'])).stdout;
  const names = async (args: string[]): Promise<string[]> => {
    const stdout = await help(args);
    return [...(stdout.split('\nCommands:\n')[1] ?? '').matchAll(/^ {2}([a-z-]+)/gm)].map(
      ([, name]) => name as string,
    );
  };
  const takesJson: string[] = [];
  for (const group of await names([])) {
    if (group === 'help') continue;
    if (takesJsonItself(await help([group]))) takesJson.push(group);
    for (const name of await names([group])) {
      if (name !== 'help' && takesJsonItself(await help([group, name]))) takesJson.push(`${group} ${name}`);
    }
  }
  t.deepEqual([...documented.keys()].sort(), takesJson.sort());
});

labScenario('each command prints the fields of its table, with their types', async (t) => {
  const host = await Host.of(t);
  const { manager, nodeId } = await host.startCluster();
  const seen = new Set<string>();
  const check = async (command: string, args: string[], stdin = '', at = host): Promise<unknown> => {
    const { code, stdout, stderr } = await at.inro([...command.split(' '), '--json', ...args], { stdin });
    t.is(code, 0, `inro ${command}: ${stderr}`);
    t.is(stderr, '', `inro ${command}: standard error`);
    seen.add(command);
    return checkOutput(t, command, stdout);
  };

  const several = await managersOnEtcd(t, { count: 1, members: 1 });
  const one = several.managers[0] as OneManager;
  const on = ['--manager', one.socket];
  await check('manager ls', on, '', several.host);
  const joining = ['--token', '-', '--manager', one.address, '--state', '/var/lib/inro/next'];
  const managerToken = await several.ask(one, ['token', 'create', 'manager']);
  const next = (await check('manager join', joining, managerToken, several.host)) as { managerId: string };
  await check('manager rm', [...on, next.managerId], '', several.host);

  await check('status', []);
  await check('manager data-key', []);
  await check('secret create', ['--label', 'tier=db', 'db_password'], 'first');
  await check('secret update', ['db_password', '-'], 'second');
  await check('service create', [
    '--name',
    'web',
    '--secret',
    'db_password',
    '--label',
    'a=b',
    '--constraint',
    `node.id==${nodeId}`,
  ]);
  await check('service update', ['--label-add', 'c=d', 'web']);
  // Something that is attached, and has read.
  const line = 'cat $INRO_SECRETS/db_password; echo; exec sleep 1000';
  const attached = host.spawn([process.execPath, program, 'exec', 'web', '--', 'sh', '-c', line]);
  await attached.printed(/^second$/m);
  for (const command of ['secret ls', 'service ls', 'node ls', 'agent status', 'agent audit', 'doctor'])
    await check(command, []);
  await attached.kill9();
  await eventually('the manager knows who has read', async () => {
    const secrets = await host.json<{ versions: { reads: unknown[] }[] }[]>([
      'secret',
      'inspect',
      'db_password',
    ]);
    return secrets[0]?.versions[1]?.reads.length === 1;
  });
  await check('secret inspect', ['db_password']);
  await check('secret history', ['db_password']);
  await check('secret rollback', ['db_password@1']);
  await check('secret prune', ['--keep', '1', 'db_password']);
  await check('service inspect', ['web']);
  // Nothing needs to run it for this.
  const container = [
    '--env',
    'A=b',
    '--container-label',
    'a=b',
    '--mount',
    'type=tmpfs,target=/tmp',
    'image',
    'word',
  ];
  await host.ask([
    'service',
    'create',
    '--detach',
    '--name',
    'job',
    '--secret',
    'db_password',
    '--label',
    'a=b',
    '--constraint',
    'node.labels.no==where',
    ...container,
  ]);
  await check('service inspect', ['job']);
  await check('service update', ['--detach', '--env-add', 'A=c', 'job']);
  await writeFile(host.outside('/run/apply.yaml'), 'services: {job2: {replicas: 0}}');
  await check('apply', ['-f', '/run/apply.yaml', '--yes']);
  await host.ask(['service', 'rm', 'job2']);
  await writeFile(host.outside('/run/compose.yaml'), 'services: {job3: {deploy: {replicas: 0}}}');
  await check('deploy', ['-f', '/run/compose.yaml', '--yes']);
  await host.ask(['service', 'rm', 'job3']);
  await check('service inspect', ['job']);
  await check('service rollback', ['--detach', 'job']);
  await check('service scale', ['--detach', 'job=2']);
  await host.ask(['service', 'rm', 'job']);
  await check('service ps', ['web']);
  await host.sh('cp -a /var/lib/inro/agent /var/lib/copy');
  const copy = ['--state', '/var/lib/copy', '--mount', '/run/copy', '--socket', '/run/copy.sock'];
  const clone = host.start(['agent', 'run', ...copy]);
  await clone.printed(/two hosts use one identity/);
  await clone.stop();
  await check('node inspect', [nodeId]);
  await check('node clear-alarm', [nodeId]);
  await check('node update', ['--label-add', 'rack=7', '--availability', 'pause', nodeId]);
  await check('secret revoke', ['db_password']);
  await check('receipts', ['--secret', 'db_password']);
  await check('ca inspect', []);
  await check('ca update', ['--cert-expiry', '30d']);
  await check('ca rotate', []);
  const identity = ['--identity', 'bob.pem', '--manager', manager.address];
  await check('operator create', ['--role', 'deployer', '--grant', 'db*', '--out', 'bob.pem', 'bob']);
  await check('operator ls', []);
  await check('operator inspect', ['bob']);
  await check('operator update', ['--grant-add', 'x', 'bob']);
  await check('operator renew', identity);
  await check('operator revoke', ['bob']);
  await check('operator inspect', ['bob']);
  await check('operator rm', ['bob']);
  await check('token show', ['worker']);
  const { token } = (await check('token rotate', ['worker'])) as { token: string };
  await check(
    'agent join',
    ['--token', '-', '--manager', manager.address, '--state', '/var/lib/inro/another'],
    token,
  );
  const { id } = (await check('token create', ['--node-label', 'a=b', 'worker'])) as { id: string };
  await check('token ls', []);
  await check('token revoke', [id]);
  for (const [command, state] of [
    ['node approve', '/var/lib/inro/third'],
    ['node reject', '/var/lib/inro/fourth'],
  ] as const) {
    const waits = await host.ask(['token', 'create', '--require-approval', 'worker']);
    const args = ['agent', 'join', '--token', '-', '--manager', manager.address, '--state', state];
    const joining = host.inro(args, { stdin: waits });
    const pending = await eventually('a host that waits', async () =>
      (await host.json<{ id: string; status: string }[]>(['node', 'ls'])).find((n) => n.status === 'pending'),
    );
    await check('node inspect', [pending.id]);
    await check(command, [pending.id]);
    await joining;
    if (command === 'node approve') await check('node rm', [pending.id]);
  }
  await check('audit', []);
  await check('events', ['--no-follow']);
  await check('service rm', ['web']);
  await check('secret rm', ['db_password']);
  // Without a manager health has a reason to name.
  await manager.stop();
  await eventually('the session is missed', async () => {
    return (await host.inro(['agent', 'health'])).stdout === 'degraded\n';
  });
  await check('agent health', []);
  t.deepEqual([...seen].sort(), [...documented.keys()].sort());
});

labScenario(
  'a node that has never attached, a task without a node, and a failure are as the page says',
  async (t) => {
    const host = await Host.of(t);
    const manager = await host.startManager();
    await host.join(await host.ask(['token', 'show', 'worker']), manager.address);
    const [node] = await host.json<{ lastSeenAt: string | null }[]>(['node', 'ls']);
    t.is(node?.lastSeenAt, null);
    await host.ask(['service', 'create', '--detach', '--name', 'web']);
    const [task] = await host.json(['service', 'ps', 'web']);
    t.like(task, { state: 'NEW', node: '', nodeId: '' });
    const failed = await host.inro(['secret', 'rm', '--json', 'nothing']);
    t.like(failed, { code: 1, stdout: '' });
    t.regex(failed.stderr, /^inro: no secret "nothing"/);
  },
);
