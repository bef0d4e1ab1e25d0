/**
 * Somebody who can write the store's files, but has no key, moves records about. Whatever he does, no task is
 * ever shown a value that is not its own: it fails and says why. A real manager, and the agent's own code.
 */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { pino } from 'pino';
import { HostTasks } from '../../src/agent/host_tasks.js';
import { Lease } from '../../src/agent/lease.js';
import { attach } from '../../src/agent/stream.js';
import { Attachments } from '../../src/agent/workloads/attachments.js';
import { Vault } from '../../src/agent/vault.js';
import { openArena } from '../../src/crypto/arena.js';
import { readPrivateKey } from '../../src/crypto/signing.js';
import { readCertificate } from '../../src/pki/certificate.js';
import type { Task } from '../../src/proto/gen/inro/v1/control_pb.js';
import type { SecretRecord, VersionRecord } from '../../src/proto/gen/inro/v1/records_pb.js';
import { stateOf } from '../../src/proto/task_state.js';
import { openLmdbStore } from '../../src/store/lmdb.js';
import type { Store } from '../../src/store/store.js';
import { ciphertextPrefix, tables, versionKey } from '../../src/store/tables.js';
import { transact, type Transaction } from '../../src/store/transaction.js';
import { systemClock } from '../../src/system/clock.js';
import type { FakeIdentity } from '../support/fake_authority.js';
import { FakeDriver } from '../support/fake_driver.js';
import { realManager, type RealManager } from '../support/real_manager.js';
import { receiptsOf } from '../support/receipts.js';

/** The agent as it is, with a mount that can be looked into. */
function runAgent(t: ExecutionContext, manager: RealManager, identity: FakeIdentity): FakeDriver {
  const driver = new FakeDriver();
  const arena = openArena(8 << 20);
  const log = pino({ level: 'silent' });
  const clusterId = manager.running.clusterId;
  const own = { nodeId: identity.nodeId, clusterId, key: readPrivateKey(identity.keyPem) };
  const receipts = receiptsOf(own, 'a-run');
  const vault = new Vault(arena, systemClock, (wiped) => receipts.add(wiped));
  const tasks = new HostTasks({
    vault,
    driver,
    attachments: new Attachments(),
    clock: systemClock,
    log,
    clusterId,
  });
  const pems = { rootPem: manager.rootPem, certificatePem: identity.certPem, keyPem: identity.keyPem };
  const whole = {
    ...own,
    ...pems,
    certificate: readCertificate(identity.certPem),
    managers: [manager.running.address],
  };
  const channel = manager.open(manager.connect(identity));
  const ended = attach(channel, {
    identity: whole,
    arena,
    vault,
    tasks,
    receipts,
    log,
    lease: new Lease(systemClock, () => undefined),
    clock: systemClock,
    random: randomBytes,
    counts: { current: () => undefined, taken: () => undefined },
    describe: async () => ({ hostname: 'host' }),
    onWelcome: () => undefined,
    onApplied: () => undefined,
    onRoots: () => undefined,
  }).catch(() => undefined);
  t.teardown(async () => {
    channel.close();
    await ended;
  });
  return driver;
}

/** The service's newest task, when it has come to rest. */
async function atRest(
  manager: RealManager,
  service: string,
): Promise<{ state: string; error: string; id: string }> {
  for (let attempt = 0; attempt < 200; attempt++) {
    const { tasks } = await manager.operate('listTasks', { name: service });
    const [newest] = tasks as [Task?];
    const state = newest === undefined ? 'NEW' : stateOf(newest.state);
    if (newest !== undefined && !['NEW', 'ASSIGNED', 'READY'].includes(state))
      return { state, error: newest.error, id: newest.id };
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  throw new Error(`${service} does not come to rest`);
}

const values = { red: 'value of red: one', blue: 'value of blue: two', green: 'value of green: untouched' };
interface Ids {
  red: string;
  blue: string;
}

async function ciphertextOf(tx: Transaction, id: string, version = 1): Promise<Uint8Array> {
  return (await tx.getBytes(ciphertextPrefix + versionKey(id, version))) ?? new Uint8Array();
}

async function recordOf(tx: Transaction, id: string, version = 1): Promise<VersionRecord> {
  const record = await tx.get(tables.versions, versionKey(id, version));
  if (record === undefined) throw new Error('no such version');
  return record;
}

async function swapCiphertexts(tx: Transaction, { red, blue }: Ids): Promise<void> {
  const [a, b] = [await ciphertextOf(tx, red), await ciphertextOf(tx, blue)];
  tx.putBytes(ciphertextPrefix + versionKey(red, 1), b);
  tx.putBytes(ciphertextPrefix + versionKey(blue, 1), a);
}

async function swapRecords(
  tx: Transaction,
  { red, blue }: Ids,
  fields: readonly ('sealedKey' | 'ciphertextDigest')[],
): Promise<void> {
  const [a, b] = [await recordOf(tx, red), await recordOf(tx, blue)];
  const [forRed, forBlue] = [{ ...a }, { ...b }];
  for (const field of fields) [forRed[field], forBlue[field]] = [b[field], a[field]];
  tx.put(tables.versions, versionKey(red, 1), forRed);
  tx.put(tables.versions, versionKey(blue, 1), forBlue);
}

/** Red and blue must fail after each of these. */
const tamperings: Record<string, (tx: Transaction, ids: Ids) => Promise<void>> = {
  'ciphertexts are swapped': swapCiphertexts,
  'sealed keys are swapped': (tx, ids) => swapRecords(tx, ids, ['sealedKey']),
  'ciphertexts and their digests are swapped': async (tx, ids) => {
    await swapCiphertexts(tx, ids);
    await swapRecords(tx, ids, ['ciphertextDigest']);
  },
  'everything is swapped: ciphertexts, digests and sealed keys': async (tx, ids) => {
    await swapCiphertexts(tx, ids);
    await swapRecords(tx, ids, ['ciphertextDigest', 'sealedKey']);
  },
  'a bit of each ciphertext is flipped': async (tx, ids) => {
    for (const id of Object.values(ids) as string[]) {
      const flipped = Uint8Array.from(await ciphertextOf(tx, id));
      flipped[50] = (flipped[50] as number) ^ 1;
      tx.putBytes(ciphertextPrefix + versionKey(id, 1), flipped);
    }
  },
  'the ciphertexts are cut, and their digests removed': async (tx, ids) => {
    for (const id of Object.values(ids) as string[]) {
      tx.putBytes(ciphertextPrefix + versionKey(id, 1), (await ciphertextOf(tx, id)).slice(0, 20));
      tx.put(tables.versions, versionKey(id, 1), {
        ...(await recordOf(tx, id)),
        ciphertextDigest: new Uint8Array(),
      });
    }
  },
  'the ciphertexts are gone': async (tx, { red, blue }) => {
    tx.deleteBytes(ciphertextPrefix + versionKey(red, 1));
    tx.deleteBytes(ciphertextPrefix + versionKey(blue, 1));
  },
  'the version records are gone': async (tx, { red, blue }) => {
    tx.delete(tables.versions, versionKey(red, 1));
    tx.delete(tables.versions, versionKey(blue, 1));
  },
  'the first version is shown as the second': async (tx, ids) => {
    for (const id of Object.values(ids) as string[]) {
      tx.put(tables.versions, versionKey(id, 2), { ...(await recordOf(tx, id)), version: 2 });
      tx.putBytes(ciphertextPrefix + versionKey(id, 2), await ciphertextOf(tx, id));
      const secret = (await tx.get(tables.secrets, id)) as SecretRecord;
      tx.put(tables.secrets, id, { ...secret, currentVersion: 2 });
    }
  },
};

for (const [name, tamper] of Object.entries(tamperings)) {
  test(`when ${name}, no task is shown a wrong value, and the others do not suffer`, async (t) => {
    const before = await realManager(t);
    const identity = await before.joined();
    const ids = {
      red: await before.createSecret('red', values.red),
      blue: await before.createSecret('blue', values.blue),
    };
    await before.createSecret('green', values.green);
    for (const colour of ['red', 'blue', 'green']) await before.createService(`${colour}-service`, [colour]);

    const manager = await before.restarted(async (folder) => {
      const store: Store = openLmdbStore(join(folder, 'store'));
      await transact(store, (tx) => tamper(tx, ids));
      await store.close();
    });
    const driver = runAgent(t, manager, identity);

    const green = await atRest(manager, 'green-service');
    t.is(green.state, 'RUNNING');
    t.deepEqual(driver.shown(green.id), { green: values.green });
    for (const colour of ['red', 'blue'] as const) {
      const { state, error, id } = await atRest(manager, `${colour}-service`);
      t.is(state, 'REJECTED');
      t.true(error.length > 20, `in words: ${error}`);
      t.is(driver.shown(id), undefined);
    }
    t.deepEqual(
      driver.calls.filter((call) => call.startsWith('publish')),
      [`publish ${green.id} 1`],
    );
  });
}

test('untouched, all of them run: the restart alone changes nothing', async (t) => {
  const before = await realManager(t);
  const identity = await before.joined();
  const id = await before.createSecret('red', values.red);
  await before.updateSecret(id, 2, 'value of red: newer');
  await before.createService('red-service', ['red']);
  const manager = await before.restarted(async () => undefined);
  const driver = runAgent(t, manager, identity);
  const red = await atRest(manager, 'red-service');
  t.is(red.state, 'RUNNING', red.error);
  t.deepEqual(driver.shown(red.id), { red: 'value of red: newer' });
});
