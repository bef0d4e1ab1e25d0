import { randomBytes } from 'node:crypto';
import test, { type ExecutionContext } from 'ava';
import { newId } from '../../src/model/id.js';
import { limits } from '../../src/model/limits.js';
import { Control, type Secret, type Service, type Task } from '../../src/proto/gen/inro/v1/control_pb.js';
import { settle } from '../support/fake_clock.js';
import { fakeManager, type FakeManager } from '../support/fake_manager.js';
import { FakeDisk, fakeStore } from '../support/fake_store.js';
import { refusesAsync } from '../support/refuses.js';

async function cluster(t: ExecutionContext, disk?: FakeDisk): Promise<FakeManager> {
  const m = await fakeManager(disk === undefined ? {} : { store: fakeStore({ disk }) });
  t.teardown(() => m.stop());
  return m;
}

const reference = (secretName: string, change = {}) => ({
  secretName,
  target: secretName,
  uid: '0',
  gid: '0',
  mode: 0o444,
  ...change,
});

async function secret(m: FakeManager, name: string): Promise<Secret> {
  return (await m.operate('getSecret', { name })) as Secret;
}

test('a secret is made, listed, changed and removed', async (t) => {
  const m = await cluster(t);
  const id = await m.createSecret('db', 'hunter2');
  t.like(await secret(m, 'db'), { id, name: 'db', version: 1, sizeBytes: 7, serviceNames: [] });
  const { version } = await m.updateSecret(id, 'a longer value');
  t.is(version, 2);
  const shown = await secret(m, id);
  t.like(shown, { version: 2, sizeBytes: 14 });
  t.deepEqual(
    shown.versions.map((v) => [v.version, v.sizeBytes]),
    [
      [1, 7],
      [2, 14],
    ],
  );
  await m.operate('removeSecret', { name: 'db' });
  await refusesAsync(t, m.operate('getSecret', { name: 'db' }), 'not_found', /no secret "db"/);
  t.deepEqual(await m.operate('listSecrets', {}), { secrets: [] });
});

test('what is removed leaves nothing in the store', async (t) => {
  const disk = new FakeDisk();
  const m = await cluster(t, disk);
  const kept = () => [...disk.entries.keys()].filter((key) => !key.startsWith('audit'));
  const before = kept();
  const id = await m.createSecret('db', 'one');
  await m.updateSecret(id, 'two');
  await m.createService('web', { secrets: ['db'] });
  await m.operate('removeService', { name: 'web' });
  await m.operate('removeSecret', { name: 'db' });
  await settle();
  t.deepEqual(kept(), before);
});

test('a name is given once, and again when it is free', async (t) => {
  const m = await cluster(t);
  await m.createSecret('db', 'x');
  const error = await refusesAsync(
    t,
    m.createSecret('db', 'y'),
    'already_exists',
    /secret "db" exists already/,
  );
  t.regex(error.remedy ?? '', /inro secret update db/);
  await m.createService('web');
  await refusesAsync(t, m.createService('web'), 'already_exists');
  await m.operate('removeSecret', { name: 'db' });
  await t.notThrowsAsync(m.createSecret('db', 'z'));
});

test('of two that create one name at once, one is told that it exists', async (t) => {
  const m = await cluster(t);
  const results = await Promise.allSettled([m.createSecret('db', 'a'), m.createSecret('db', 'b')]);
  t.deepEqual(results.map(({ status }) => status).sort(), ['fulfilled', 'rejected']);
  t.is(m.view.secrets.size, 1);
});

test('of two that update one secret at once, one is told that it changed', async (t) => {
  const m = await cluster(t);
  const id = await m.createSecret('db', 'a');
  const results = await Promise.allSettled([m.updateSecret(id, 'b'), m.updateSecret(id, 'c')]);
  t.deepEqual(results.map(({ status }) => status).sort(), ['fulfilled', 'rejected']);
  t.is(m.view.secrets.get(id)?.currentVersion, 2);
  await refusesAsync(
    t,
    m.operate('updateSecret', { id, version: 2, ...m.seal('d', id, 2) }),
    'conflict',
    /has version 2 now/,
  );
});

test('a ciphertext or content key that is for something else is refused, and nothing is stored', async (t) => {
  const m = await cluster(t);
  const [id, other] = [newId(randomBytes), newId(randomBytes)];
  const [mine, theirs] = [m.seal('hunter2', id, 1), m.seal('hunter3', other, 1)];
  const table = {
    'sealed for another secret': { ...theirs },
    'with another ciphertext': { ...mine, ciphertext: theirs.ciphertext },
    'with another content key': { ...mine, sealedKey: theirs.sealedKey },
    'for another version': m.seal('hunter2', id, 2),
    'not sealed at all': { ...mine, sealedKey: randomBytes(mine.sealedKey.length) },
    'without a key': { ...mine, sealedKey: new Uint8Array() },
    'with a key that is cut': { ...mine, sealedKey: mine.sealedKey.slice(0, 40) },
    'with a low-order key': {
      ...mine,
      sealedKey: Buffer.concat([new Uint8Array(32), mine.sealedKey.slice(32)]),
    },
  };
  const stored = async () => (await m.store.list('')).filter(({ key }) => !key.startsWith('audit'));
  const before = await stored();
  for (const [name, sealed] of Object.entries(table)) {
    await refusesAsync(t, m.operate('createSecret', { id, name: 'db', ...sealed }), 'envelope');
    t.deepEqual(await stored(), before, name);
  }
  await t.notThrowsAsync(m.operate('createSecret', { id, name: 'db', ...mine }));
});

test('empty and too large values, ids that are none and names that are none are refused', async (t) => {
  const m = await cluster(t);
  const id = newId(randomBytes);
  const sealed = m.seal('x', id, 1);
  await refusesAsync(
    t,
    m.operate('createSecret', { id, name: 'db', ...sealed, ciphertext: new Uint8Array() }),
    'bad_input',
    /empty/,
  );
  await refusesAsync(
    t,
    m.operate('createSecret', { id, name: 'db', ...sealed, ciphertext: new Uint8Array(41) }),
    'bad_input',
    /empty/,
  );
  const large = new Uint8Array(limits.maxSecretBytes + 42);
  await refusesAsync(
    t,
    m.operate('createSecret', { id, name: 'db', ...sealed, ciphertext: large }),
    'too_large',
  );
  for (const bad of ['', '../../x', id.toUpperCase().padStart(26, 'A'), `${id}x`])
    await refusesAsync(
      t,
      m.operate('createSecret', { id: bad, name: 'db', ...sealed }),
      'bad_input',
      /is not an id/,
    );
  for (const name of ['', 'a/b', '..', 'a\nb'])
    await refusesAsync(t, m.operate('createSecret', { id, name, ...sealed }), 'bad_input');
  t.is(m.view.secrets.size, 0);
});

test('an id that is taken is not given again', async (t) => {
  const m = await cluster(t);
  const id = await m.createSecret('db', 'x');
  await refusesAsync(
    t,
    m.operate('createSecret', { id, name: 'other', ...m.seal('y', id, 1) }),
    'already_exists',
  );
});

test('labels change without a new version', async (t) => {
  const m = await cluster(t);
  const id = await m.createSecret('db', 'x');
  await m.operate('updateSecret', { id, labelsAdd: { env: 'prod', team: 'a' } });
  await m.operate('updateSecret', { id, labelsAdd: { team: 'b' }, labelsRemove: ['env'] });
  t.like(await secret(m, 'db'), { version: 1, labels: { team: 'b' } });
  await refusesAsync(t, m.operate('updateSecret', { id, labelsAdd: { 'a\n': '' } }), 'bad_input');
  await refusesAsync(
    t,
    m.operate('updateSecret', { id: newId(randomBytes), labelsAdd: { a: '' } }),
    'not_found',
  );
});

test('a secret in use is not removed, and says by whom', async (t) => {
  const m = await cluster(t);
  await m.createSecret('db', 'x');
  await m.createService('web', { secrets: ['db'] });
  await m.createService('api', { secrets: ['db'] });
  const error = await refusesAsync(
    t,
    m.operate('removeSecret', { name: 'db' }),
    'in_use',
    /in use by services web, api/,
  );
  t.regex(error.remedy ?? '', /inro service update --secret-rm db web/);
  await m.operate('updateService', { name: 'web', referencesRemove: ['db'] });
  await refusesAsync(t, m.operate('removeSecret', { name: 'db' }), 'in_use', /in use by service api/);
  await m.operate('removeService', { name: 'api' });
  await t.notThrowsAsync(m.operate('removeSecret', { name: 'db' }));
});

test('a service that wants what is not there, or cannot be shown, is refused as a whole', async (t) => {
  const m = await cluster(t);
  await m.createSecret('db', 'x');
  await m.createSecret('api', 'x');
  const make = (references: ReturnType<typeof reference>[], more = {}) =>
    m.operate('createService', { name: 'web', references, replicas: 1, ...more });
  await refusesAsync(t, make([reference('db'), reference('gone')]), 'not_found', /no secret "gone"/);
  await refusesAsync(
    t,
    make([reference('db'), reference('api', { target: 'db' })]),
    'bad_input',
    /one target "db"/,
  );
  await refusesAsync(t, make([reference('db', { target: '../x' })]), 'bad_input', /not a file name/);
  await refusesAsync(t, make([reference('db', { mode: 0o7777 })]), 'bad_input', /mode 7777/);
  await refusesAsync(t, make([reference('db', { uid: '-1' })]), 'bad_input', /uid/);
  await refusesAsync(t, make([], { replicas: limits.maxReplicas + 1 }), 'bad_input', /replicas/);
  await refusesAsync(
    t,
    make([reference('db')], { constraints: ['node.hostname==y'] }),
    'bad_input',
    /with secrets/,
  );
  await refusesAsync(
    t,
    make([], { constraints: Array.from({ length: 17 }, () => 'node.id==a') }),
    'bad_input',
    /17 constraints/,
  );
  const many = Array.from({ length: limits.maxReferencesPerService + 1 }, (_, n) =>
    reference('db', { target: `t${n}` }),
  );
  await refusesAsync(t, make(many), 'bad_input', /257 references/);
  await refusesAsync(t, make([], { name: 'a/b' }), 'bad_input');
  t.is(m.view.services.size, 0);
  t.deepEqual((await secret(m, 'db')).serviceNames, []);
});

test('one secret may be used twice by a service, under two names', async (t) => {
  const m = await cluster(t);
  await m.createSecret('db', 'x');
  await m.operate('createService', {
    name: 'web',
    references: [reference('db'), reference('db', { target: 'again' })],
    replicas: 1,
  });
  t.deepEqual((await secret(m, 'db')).serviceNames, ['web']);
  await m.operate('updateService', { name: 'web', referencesRemove: ['db'] });
  t.deepEqual(((await m.operate('getService', { name: 'web' })) as Service).references, []);
  t.deepEqual((await secret(m, 'db')).serviceNames, []);
});

test('a service takes a secret away and gets it back under another name in one step', async (t) => {
  const m = await cluster(t);
  await m.createSecret('db', 'x');
  await m.createService('web', { secrets: ['db'] });
  await m.operate('updateService', {
    name: 'web',
    referencesRemove: ['db'],
    referencesAdd: [reference('db', { target: 'new' })],
  });
  const { references } = (await m.operate('getService', { name: 'web' })) as Service;
  t.deepEqual(
    references.map(({ target }) => target),
    ['new'],
  );
  t.deepEqual((await secret(m, 'db')).serviceNames, ['web']);
  await refusesAsync(
    t,
    m.operate('updateService', { name: 'web', referencesAdd: [reference('db', { target: 'new' })] }),
    'bad_input',
    /one target/,
  );
  await refusesAsync(
    t,
    m.operate('updateService', { name: 'web', referencesRemove: ['gone'] }),
    'not_found',
    /does not use secret "gone"/,
  );
});

test('no call gives a value back, or anything that opens one', async (t) => {
  const m = await cluster(t);
  const id = await m.createSecret('db', 'hunter2-hunter2-hunter2');
  await m.createService('web', { secrets: ['db'] });
  const answers: unknown[] = [];
  const named = { getSecret: 'db', getService: 'web', listTasks: 'web' } as const;
  for (const [call, name] of Object.entries(named))
    answers.push(await m.operate(call as keyof typeof named, { name }));
  for (const call of ['getCluster', 'listSecrets', 'listServices', 'listNodes'] as const)
    answers.push(await m.operate(call, {}));
  const stored = (await m.store.get(`version/${id}/0000000001`))?.value ?? new Uint8Array();
  const ciphertext = (await m.store.get(`ciphertext/${id}/0000000001`))?.value ?? new Uint8Array();
  const text = JSON.stringify([answers, m.logged], (_, value: unknown) =>
    typeof value === 'bigint'
      ? String(value)
      : value instanceof Uint8Array
        ? Buffer.from(value).toString('hex')
        : value,
  );
  t.false(text.includes('hunter2'));
  t.false(text.includes(Buffer.from('hunter2').toString('hex')));
  t.true(stored.length > 0 && ciphertext.length > 0);
  t.false(text.includes(Buffer.from(ciphertext.slice(30)).toString('hex')), 'no ciphertext');
  t.false(
    text.includes(Buffer.from(m.view.version(id, 1)?.sealedKey ?? []).toString('hex')),
    'no sealed key',
  );
});

test('the fields of answers have no room for a value', (t) => {
  const bytes = new Set<string>();
  const walk = (
    message: { fields: readonly { name: string; scalar?: number; message?: never }[] },
    path: string,
    depth = 0,
  ): void => {
    for (const field of message.fields) {
      if (field.scalar === 12) bytes.add(`${path}.${field.name}`);
      if (field.message !== undefined && depth < 4) walk(field.message, `${path}.${field.name}`, depth + 1);
    }
  };
  for (const [name, { output }] of Object.entries(Control.method)) walk(output as never, name);
  t.deepEqual([...bytes].sort(), [
    'getCluster.sealing_key.public_key',
    'getSecret.versions.ciphertext_digest',
    'listAudit.records.previous',
    'listReceipts.receipts.signature',
    'listSecrets.secrets.versions.ciphertext_digest',
  ]);
});

test('a join token is shown and rotated for workers', async (t) => {
  const m = await cluster(t);
  t.regex(
    ((await m.operate('getJoinToken', { role: 'worker' })) as { token: string }).token,
    /^INRO-JOIN-1-/,
  );
  await refusesAsync(
    t,
    m.operate('getJoinToken', { role: 'manager' }),
    'bad_input',
    /no standing join token for managers/,
  );
  await refusesAsync(t, m.operate('getJoinToken', { role: 'x' }), 'bad_input', /no join token for role "x"/);
  const ttlMs = 60_000n;
  await refusesAsync(
    t,
    m.operate('createJoinToken', { role: 'manager', ttlMs, uses: 1 }),
    'not_supported',
    /on its own host, for itself alone/,
  );
});

test('nodes show what they said of themselves', async (t) => {
  const m = await cluster(t);
  const identity = await m.joined();
  await m.attach(identity).node.begin({ hostname: 'alpha' });
  await m.createService('web', { replicas: 2 });
  t.like(await m.operate('getNode', { name: 'alpha' }), {
    id: identity.nodeId,
    status: 'ready',
    tasks: 2,
    address: 'test',
  });
  t.is((await m.operate('listNodes', { filters: ['name=al'] })).nodes?.length, 1);
  t.is((await m.operate('listNodes', { filters: ['name=be'] })).nodes?.length, 0);
});

test('a filter that is not understood is refused, even when there is nothing to filter', async (t) => {
  const m = await cluster(t);
  for (const call of ['listSecrets', 'listServices', 'listNodes'] as const)
    await refusesAsync(
      t,
      m.operate(call, { filters: ['colour=red'] }),
      'bad_input',
      /"colour=red" is not understood/,
    );
});

test('tasks are listed by slot, the newest first', async (t) => {
  const m = await cluster(t);
  const { node } = m.attach(await m.joined());
  await node.begin();
  await m.createService('web', { replicas: 2 });
  const { revision, tasks } = await node.assignment();
  await m.clock.advance(1_000);
  await node.applied({ revision, tasks: tasks.filter(({ slot }) => slot === 1) }, 'FAILED', 'no');
  await m.clock.advance(10_000);
  const listed = ((await m.operate('listTasks', { name: 'web' })) as { tasks: Task[] }).tasks;
  t.deepEqual(
    listed.map(({ slot, error }) => [slot, error]),
    [
      [1, ''],
      [1, 'no'],
      [2, ''],
    ],
  );
});
