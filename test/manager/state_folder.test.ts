import { randomBytes } from 'node:crypto';
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import test, { type ExecutionContext } from 'ava';
import { openArena } from '../../src/crypto/arena.js';
import { openEmbedded } from '../../src/manager/embedded.js';
import { claimStateFolder, makeStateFolder } from '../../src/system/files.js';
import { openManagerState, type ManagerState } from '../../src/manager/state_folder.js';
import { InroError } from '../../src/model/error.js';
import { readCertificate } from '../../src/pki/certificate.js';
import { verifyNodeCertificate } from '../../src/pki/verify.js';
import { tables } from '../../src/store/tables.js';
import { transact } from '../../src/store/transaction.js';
import { FakeClock } from '../support/fake_clock.js';
import { refusesAsync } from '../support/refuses.js';

const dayMs = 86_400_000;
const secretFiles = ['ca.key', 'data.key', 'manager.key', 'sealing.key'];

// A folder's lock lives as long as the process: each opening uses a copy, as a restored backup does.
function folders(t: ExecutionContext) {
  const root = mkdtempSync(join(tmpdir(), 'inro-state-'));
  t.teardown(() => rmSync(root, { recursive: true, force: true }));
  let count = 0;
  return { fresh: () => join(root, String(++count)) };
}

const clock = new FakeClock(Date.now());

async function open(folder: string, at: FakeClock = clock): Promise<ManagerState> {
  const log = pino({ level: 'silent' });
  const surroundings = { arena: openArena(1 << 20), clock: at, random: randomBytes, log };
  makeStateFolder(folder);
  return openManagerState(folder, surroundings, openEmbedded(folder));
}

async function copyOf(from: string, to: string): Promise<string> {
  const { cp } = await import('node:fs/promises');
  await cp(from, to, { recursive: true, filter: (path) => !path.endsWith('lock') });
  return to;
}

/** A manager's folder after its first run. */
async function used(t: ExecutionContext) {
  const { fresh } = folders(t);
  const folder = fresh();
  const state = await open(folder);
  const text = state.keyring.keepText('kept');
  await state.store.close();
  return { folder, state, text, copy: () => copyOf(folder, fresh()) };
}

test('a first start makes a cluster, a later one finds it', async (t) => {
  const { state, text, copy } = await used(t);
  t.true(state.isNew);
  const again = await open(await copy());
  t.false(again.isNew);
  t.is(again.cluster.id, state.cluster.id);
  t.is(again.keyring.readText(text), 'kept');
  t.deepEqual(again.keyring.sealingPublicKey, state.keyring.sealingPublicKey);
  t.is(again.certificatePem, state.certificatePem);
  const { clusterId } = verifyNodeCertificate(again.certificatePem, {
    rootPem: again.authority.root.pem,
    role: 'manager',
    now: clock.now(),
  });
  t.is(clusterId, state.cluster.id);
  await again.store.close();
});

test('nobody else can read the folder or a key in it', async (t) => {
  const { folder } = await used(t);
  t.is(statSync(folder).mode & 0o777, 0o700);
  for (const name of readdirSync(folder)) {
    const { mode } = statSync(join(folder, name));
    t.is(mode & 0o077, 0, name);
  }
  t.deepEqual(
    secretFiles.filter((name) => !existsSync(join(folder, name))),
    [],
  );
});

test('a first start that was cut off is begun anew', async (t) => {
  const { fresh } = folders(t);
  const folder = fresh();
  const first = await open(folder);
  await first.store.close();
  // As if it had been stopped before the cluster record was written.
  const cut = await copyOf(folder, fresh());
  rmSync(join(cut, 'store'), { recursive: true });
  for (const name of ['manager.key', 'manager.crt']) rmSync(join(cut, name));
  const state = await open(cut);
  t.true(state.isNew);
  t.not(state.cluster.id, first.cluster.id);
  await state.store.close();
});

for (const [name, lose] of Object.entries<(folder: string) => void>({
  'was not restored': (folder) => rmSync(join(folder, 'store'), { recursive: true }),
  'is cut to nothing': (folder) => truncateSync(join(folder, 'store', 'data.mdb'), 0),
})) {
  test(`a cluster whose store ${name} is not made anew over its keys`, async (t) => {
    const { copy } = await used(t);
    const folder = await copy();
    lose(folder);
    const keys = (): string[] => secretFiles.map((file) => readFileSync(join(folder, file)).toString('hex'));
    const before = keys();
    const error = await refusesAsync(t, open(folder), 'state_unusable');
    t.regex(error.remedy ?? '', /backup/);
    t.deepEqual(keys(), before, 'with them a restored store can still be opened');
  });
}

for (const name of ['ca.crt', 'ca.key', 'sealing.key', 'data.key']) {
  test(`a folder without ${name} says so`, async (t) => {
    const { copy } = await used(t);
    const folder = await copy();
    rmSync(join(folder, name));
    const error = await refusesAsync(t, open(folder), 'state_unusable', new RegExp(name));
    t.regex(error.remedy ?? '', /backup/);
  });
}

test('a folder whose parts are of two clusters says so', async (t) => {
  const [ours, theirs] = [await used(t), await used(t)];
  const folder = await ours.copy();
  for (const name of ['ca.crt', 'ca.key'])
    writeFileSync(join(folder, name), readFileSync(join(theirs.folder, name)));
  await refusesAsync(t, open(folder), 'state_unusable', /ca.crt is not the CA that signs for cluster/);
});

test('a CA key of another root says so', async (t) => {
  const [ours, theirs] = [await used(t), await used(t)];
  const folder = await ours.copy();
  writeFileSync(join(folder, 'ca.key'), readFileSync(join(theirs.folder, 'ca.key')));
  await refusesAsync(t, open(folder), 'bad_certificate', /CA key does not belong/);
});

test('a store of a later format is left alone', async (t) => {
  const { folder } = await used(t);
  const { fresh } = folders(t);
  const changed = await copyOf(folder, fresh());
  const state = await open(changed);
  await transact(state.store, async (tx) => tx.put(tables.cluster, 'self', { ...state.cluster, format: 2 }));
  await state.store.close();
  const error = await refusesAsync(
    t,
    open(await copyOf(changed, fresh())),
    'state_unusable',
    /has format 2, and this version knows 1/,
  );
  t.regex(error.remedy ?? '', /version/);
});

test('two managers never share a folder', async (t) => {
  const { folder } = await used(t);
  const { execFileSync } = await import('node:child_process');
  t.teardown(claimStateFolder(folder, 'manager'));
  const script = `import { startManager } from ${JSON.stringify(new URL('../../src/manager/manager.js', import.meta.url).href)};
    await startManager({ stateFolder: process.argv[1] }).catch((error) => console.log(error.code, '-', error.message));`;
  const said = execFileSync(process.execPath, ['--input-type=module', '-e', script, folder], {
    encoding: 'utf8',
  });
  t.regex(said, /^already_running - another manager uses/);
});

test('the manager’s certificate is made anew when half of its life is over, with a new key for the same node', async (t) => {
  const { state, copy } = await used(t);
  const later = async (days: number) => {
    const again = await open(await copy(), new FakeClock(clock.now() + days * dayMs));
    await again.store.close();
    return again;
  };
  t.is((await later(40)).certificatePem, state.certificatePem);
  const renewed = await later(50);
  t.not(renewed.certificatePem, state.certificatePem);
  t.not(renewed.keyPem, state.keyPem);
  t.is(readCertificate(renewed.certificatePem).nodeId, readCertificate(state.certificatePem).nodeId);
  t.is((await later(200)).cluster.id, state.cluster.id, 'long expired, too');
});

test('a certificate without its key, or with another one, is made anew', async (t) => {
  const [ours, theirs] = [await used(t), await used(t)];
  for (const change of [
    (folder: string) => rmSync(join(folder, 'manager.key')),
    (folder: string) =>
      writeFileSync(join(folder, 'manager.key'), readFileSync(join(theirs.folder, 'manager.key'))),
    (folder: string) => rmSync(join(folder, 'manager.crt')),
  ]) {
    const folder = await ours.copy();
    change(folder);
    const state = await open(folder);
    t.not(state.certificatePem, ours.state.certificatePem);
    t.notThrows(() =>
      verifyNodeCertificate(state.certificatePem, { rootPem: state.authority.root.pem, now: clock.now() }),
    );
    await state.store.close();
  }
});

test('a damaged certificate or key of its own says which file it is', async (t) => {
  const { copy } = await used(t);
  for (const name of ['manager.crt', 'manager.key', 'ca.crt', 'ca.key']) {
    const folder = await copy();
    writeFileSync(join(folder, name), 'damaged');
    const error = await t.throwsAsync<InroError>(open(folder), { instanceOf: InroError });
    t.true(error.message.includes(name), `${name}: ${error.message}`);
  }
});
