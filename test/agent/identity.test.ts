import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { hasIdentity, loadIdentity, saveIdentity, saveKey, saveManagers } from '../../src/agent/identity.js';
import { generateNodeKey } from '../../src/crypto/signing.js';
import { InroError } from '../../src/model/error.js';
import { fakeCluster, type FakeIdentity } from '../support/fake_authority.js';
import { refuses } from '../support/refuses.js';

const cluster = fakeCluster();

function folderOf(t: ExecutionContext, identity?: FakeIdentity): string {
  const folder = join(mkdtempSync(join(tmpdir(), 'inro-identity-')), 'agent');
  t.teardown(() => rmSync(join(folder, '..'), { recursive: true, force: true }));
  if (identity === undefined) return folder;
  saveKey(folder, identity.keyPem);
  saveIdentity(folder, {
    rootPem: cluster.rootPem,
    certificatePem: identity.certPem,
    managers: ['10.0.0.1:4747'],
  });
  return folder;
}

const load = (folder: string) => loadIdentity(folder, cluster.now);

test('an identity comes back as it was saved', (t) => {
  const worker = cluster.worker();
  const folder = folderOf(t, worker);
  t.true(hasIdentity(folder));
  t.like(load(folder), {
    nodeId: worker.nodeId,
    clusterId: cluster.clusterId,
    managers: ['10.0.0.1:4747'],
    keyPem: worker.keyPem,
  });
});

test('nobody else can read it', (t) => {
  const folder = folderOf(t, cluster.worker());
  const umask = process.umask(0);
  t.teardown(() => process.umask(umask));
  saveManagers(folder, ['10.0.0.2:4747']);
  t.is(statSync(folder).mode & 0o777, 0o700);
  for (const name of readdirSync(folder)) t.is(statSync(join(folder, name)).mode & 0o777, 0o600, name);
});

test('a host that has not joined is told how to', (t) => {
  const folder = folderOf(t);
  t.false(hasIdentity(folder));
  const error = refuses(t, () => load(folder), 'no_identity', /has not joined a cluster/);
  t.regex(error.remedy ?? '', /inro token show worker.*inro agent join/s);
});

test('a join that was cut off before its certificate has not joined', (t) => {
  const folder = folderOf(t);
  saveKey(folder, generateNodeKey().privatePem);
  t.false(hasIdentity(folder));
  refuses(t, () => load(folder), 'no_identity');
});

for (const name of ['node.key', 'ca.crt', 'agent.json']) {
  test(`a folder without ${name} says which file it lacks`, (t) => {
    const folder = folderOf(t, cluster.worker());
    rmSync(join(folder, name));
    const error = refuses(t, () => load(folder), 'state_unusable', new RegExp(`lacks ${name}`));
    t.regex(error.remedy ?? '', /join again/);
  });
}

test('all that is missing is said at once', (t) => {
  const folder = folderOf(t, cluster.worker());
  for (const name of ['node.key', 'ca.crt', 'agent.json']) rmSync(join(folder, name));
  refuses(t, () => load(folder), 'state_unusable', /lacks node\.key, ca\.crt, agent\.json/);
});

test('an expired certificate says since when, and what to do', (t) => {
  const folder = folderOf(t, cluster.expiredWorker());
  const error = refuses(
    t,
    () => load(folder),
    'bad_certificate',
    /expired at \d{4}-\d\d-\d\dT.*; it is now /,
  );
  t.regex(
    error.remedy ?? '',
    /check the clock of this host; if it is right, join again with a fresh token, the node keeps its id/,
  );
});

test('a certificate that is not valid yet points at the clock', (t) => {
  const error = refuses(
    t,
    () => load(folderOf(t, cluster.futureWorker())),
    'bad_certificate',
    /not valid before/,
  );
  t.regex(error.remedy ?? '', /clock/);
});

test('parts that do not belong together are refused', (t) => {
  const [one, two] = [cluster.worker(), cluster.worker()];
  const otherKey = folderOf(t, one);
  saveKey(otherKey, two.keyPem);
  refuses(t, () => load(otherKey), 'bad_certificate', /is for another key/);

  const otherRoot = folderOf(t, one);
  writeFileSync(join(otherRoot, 'ca.crt'), fakeCluster().rootPem);
  refuses(t, () => load(otherRoot), 'foreign_cluster');

  refuses(
    t,
    () => load(folderOf(t, cluster.manager())),
    'bad_certificate',
    /is for a manager, not for a worker/,
  );
});

test('a damaged file is refused, and the words say which it is', (t) => {
  for (const [name, content] of [
    ['node.key', 'damaged'],
    ['node.key', ''],
    ['node.crt', 'damaged'],
    ['node.crt', ''],
    ['ca.crt', 'damaged'],
  ] as const) {
    const folder = folderOf(t, cluster.worker());
    writeFileSync(join(folder, name), content);
    const error = t.throws<InroError>(() => load(folder), { instanceOf: InroError });
    t.true(error.message.includes(name), `${name}: ${error.message}`);
    t.not(error.code, 'bad_input', 'the command was typed right');
    t.truthy(error.remedy);
  }
});

test('a damaged agent.json says what to write into it', (t) => {
  const folder = folderOf(t, cluster.worker());
  for (const text of [
    '',
    '{',
    'null',
    '[]',
    '{}',
    '{"managers": []}',
    '{"managers": [""]}',
    '{"managers": [1]}',
    '{"managers": ["a:1"], "more": 1}',
  ]) {
    writeFileSync(join(folder, 'agent.json'), text);
    const error = refuses(t, () => load(folder), 'state_unusable', /agent\.json is damaged/);
    t.regex(error.remedy ?? '', /\{"managers": \["HOST:PORT"\]\}/);
  }
});

test('an address that cannot be dialled is found when it is read, not when it is dialled', (t) => {
  const folder = folderOf(t, cluster.worker());
  for (const address of ['no port', 'host:99999', 'host:1\n', 'http://host:1']) {
    writeFileSync(join(folder, 'agent.json'), JSON.stringify({ managers: [address] }));
    refuses(t, () => load(folder), 'state_unusable', /agent\.json/);
  }
});

test('files that cannot be read or written say so', (t) => {
  const folder = folderOf(t, cluster.worker());
  rmSync(join(folder, 'node.crt'));
  mkdirSync(join(folder, 'node.crt'));
  refuses(t, () => load(folder), 'state_unusable', /node\.crt cannot be read/);
  const file = join(folder, 'file');
  writeFileSync(file, '');
  refuses(t, () => saveKey(join(file, 'agent'), 'x'), 'state_unusable', /cannot be used/);
  refuses(t, () => saveManagers(join(file, 'agent'), ['a:1']), 'state_unusable', /cannot be written/);
});

test('a folder that was left open is closed', (t) => {
  const folder = folderOf(t);
  mkdirSync(folder, { recursive: true });
  chmodSync(folder, 0o777);
  saveKey(folder, generateNodeKey().privatePem);
  t.is(statSync(folder).mode & 0o777, 0o700);
});
