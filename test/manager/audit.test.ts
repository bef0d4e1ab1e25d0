/** The control audit: what gets a line, that each is durable and in its place, and what shows when somebody changes it. */
import { randomBytes } from 'node:crypto';
import test, { type ExecutionContext } from 'ava';
import { pino } from 'pino';
import { AuditChain } from '../../src/crypto/audit_chain.js';
import { generateNodeKey } from '../../src/crypto/signing.js';
import { AuditBook } from '../../src/manager/audit_book.js';
import { managerLimits } from '../../src/manager/limits.js';
import { InroError } from '../../src/model/error.js';
import { createCsr } from '../../src/pki/csr.js';
import { makeJoinToken } from '../../src/pki/join_token.js';
import { Control } from '../../src/proto/gen/inro/v1/control_pb.js';
import { Enrollment } from '../../src/proto/gen/inro/v1/enrollment_pb.js';
import type { AuditRecord } from '../../src/proto/gen/inro/v1/records_pb.js';
import { call } from '../../src/rpc/client.js';
import type { Store } from '../../src/store/store.js';
import { auditKey, decodeRecord, tables } from '../../src/store/tables.js';
import { FakeClock } from '../support/fake_clock.js';
import { fakeStore } from '../support/fake_store.js';
import { realManager, type RealManager } from '../support/real_manager.js';
import { refuses } from '../support/refuses.js';

const linesOf = async (m: RealManager): Promise<AuditRecord[]> => (await m.operate('listAudit', {})).records;
const words = ({ actor, action, object, outcome }: AuditRecord) =>
  `${actor || '-'} ${action} ${object} ${outcome}`;

async function operator(m: RealManager, name: string, role: string) {
  const { privateKey, privatePem: keyPem } = generateNodeKey();
  const request = { name, role, grants: [], ttlMs: 86_400_000n, csrPem: createCsr(privateKey) };
  const { certificatePem: certPem } = await m.operate('createOperator', request);
  return m.connect({ nodeId: '', certPem, keyPem });
}

function verify(clusterId: string, records: readonly AuditRecord[]): string {
  const chain = new AuditChain(clusterId);
  return records
    .map((record) => chain.add({ ...record, number: Number(record.number), atMs: Number(record.atMs) }))
    .map((digest) => Buffer.from(digest).toString('hex'))
    .at(-1) as string;
}

test('who changed what, and what was refused: with name, certificate, address and outcome', async (t) => {
  const m = await realManager(t);
  const secretId = await m.createSecret('db', 'a value that stands nowhere');
  const bob = await operator(m, 'bob', 'auditor');
  await t.throwsAsync(m.operate('removeSecret', { name: 'nothing' }));
  await t.throwsAsync(call(bob, Control, 'removeSecret', { name: 'db' }));
  await call(bob, Control, 'listSecrets', {});
  await m.updateSecret(secretId, 2, 'nor does this');
  const { nodeId } = await m.joined();
  const wrong = makeJoinToken(m.authority.root.der, randomBytes).reveal();
  const connection = m.connect();
  const csrPem = createCsr(generateNodeKey().privateKey);
  await t.throwsAsync(call(connection, Enrollment, 'issueCertificate', { csrPem, token: wrong }));
  const token = await m.operate('createJoinToken', { role: 'worker', ttlMs: 60_000n, uses: 1 });
  await m.operate('removeSecret', { name: 'db' });

  const lines = await linesOf(m);
  t.deepEqual(lines.map(words), [
    'socket createSecret db done',
    'socket createOperator bob done',
    'socket removeSecret nothing not_found',
    'bob removeSecret db not_permitted',
    `socket updateSecret ${secretId} done`,
    `- join ${nodeId} done`,
    '- join  bad_token',
    'socket createJoinToken worker done',
    'socket removeSecret db done',
  ]);
  t.deepEqual(
    lines.map(({ number }) => Number(number)),
    [1, 2, 3, 4, 5, 6, 7, 8, 9],
  );
  t.like(lines[3], { role: 'auditor', reason: lines[3]?.reason });
  t.regex(lines[3]?.address ?? '', /^127\.0\.0\.1:\d+$/);
  t.regex(lines[3]?.serial ?? '', /^[0-9a-f]+$/);
  t.regex(lines[3]?.reason ?? '', /is an auditor, who may not call/);
  t.regex(lines[6]?.reason ?? '', /not valid any more, or never was/);
  const text = JSON.stringify(lines, (_, value: unknown) =>
    typeof value === 'bigint' ? String(value) : value,
  );
  for (const secret of ['a value that', 'nor does this', wrong, token.token]) t.false(text.includes(secret));
  t.truthy(verify(m.running.clusterId, lines));

  const later = await m.restarted(async () => undefined);
  await later.createSecret('other', 'x');
  const all = await linesOf(later);
  t.deepEqual(all.slice(0, 9).map(words), lines.map(words), 'over a restart');
  t.is(words(all[9] as AuditRecord), 'socket createSecret other done');
  t.truthy(verify(later.running.clusterId, all));
});

test('who asks for what comes hears of it', async (t) => {
  const m = await realManager(t);
  const heard = m.operate('listAudit', { waitMs: 20_000 });
  await new Promise((resolve) => setTimeout(resolve, 200));
  const identity = await m.joined();
  t.deepEqual((await heard).records.map(words), [`- join ${identity.nodeId} done`]);
});

test('wrong tokens from many addresses do not push out what others did: beyond some they are counted', async (t) => {
  const m = await realManager(t);
  const tries = managerLimits.strangerLines + 20;
  const connection = m.connect();
  const ask = () =>
    call(connection, Enrollment, 'issueCertificate', {
      csrPem: createCsr(generateNodeKey().privateKey),
      token: makeJoinToken(m.authority.root.der, randomBytes).reveal(),
    }).catch(() => undefined);
  // Each minute so many of one address are answered.
  for (let n = 0; n < tries; n++) await ask();
  t.true((await linesOf(m)).length <= managerLimits.strangerLines);
});

/** A book over a store that can be made to refuse. */
function book(t: ExecutionContext, maxLines?: number) {
  const store = fakeStore();
  let isFull = false;
  const commit: Store['commit'] = (one) =>
    isFull ? Promise.reject(new InroError('store_full', 'no room')) : store.commit(one);
  const logged: string[] = [];
  const log = pino({ level: 'info' }, { write: (line: string) => void logged.push(line) });
  const clock = new FakeClock();
  const parts = { clusterId: 'c', store: { ...store, commit }, clock, log };
  const audit = new AuditBook(maxLines === undefined ? parts : { ...parts, maxLines });
  t.teardown(() => audit.stop());
  return {
    audit,
    clock,
    logged,
    full: (so: boolean) => (isFull = so),
    async lines(): Promise<AuditRecord[]> {
      const found = await store.list(tables.audit.prefix);
      return found.map(({ key, value }) => decodeRecord(tables.audit, key, value));
    },
  };
}

const entry = (n: number) => ({ action: 'a', object: String(n), outcome: 'done' });
const objects = (lines: readonly AuditRecord[]): string[] => lines.map(({ object }) => object);

test('strangers have only so many lines in a minute, and the next one says how many are left out', async (t) => {
  const b = book(t);
  for (let n = 0; n < managerLimits.strangerLines + 7; n++)
    await b.audit.appendStranger({ action: 'join', outcome: 'bad_token', reason: 'no' });
  await b.audit.append(entry(1));
  t.is((await b.lines()).length, managerLimits.strangerLines + 1);
  await b.clock.advance(managerLimits.strangerLinesMs);
  await b.audit.appendStranger({ action: 'join', outcome: 'bad_token', reason: 'no' });
  t.is((await b.lines()).at(-1)?.reason, 'no (and 7 others before it)');
});

test('many at once each have their place', async (t) => {
  const b = book(t);
  await Promise.all(Array.from({ length: 500 }, (_, n) => b.audit.append(entry(n))));
  const lines = await b.lines();
  t.deepEqual(
    objects(lines),
    Array.from({ length: 500 }, (_, n) => String(n)),
  );
  t.truthy(verify('c', lines));
});

test('the oldest go when there are too many, and what is left is whole', async (t) => {
  const b = book(t, 100);
  for (let n = 0; n < 10; n++)
    await Promise.all(Array.from({ length: 25 }, (_, k) => b.audit.append(entry(n * 25 + k))));
  const lines = await b.lines();
  t.is(lines.length, 100);
  t.deepEqual(await b.audit.head(), { first: 151, last: 250 });
  t.is(lines[0]?.object, '150');
  t.truthy(verify('c', lines));
});

test('on a full disk nothing is lost: it is logged, and written when there is room', async (t) => {
  const b = book(t);
  await b.audit.append(entry(1));
  b.full(true);
  await b.audit.append(entry(2));
  await b.audit.append(entry(3));
  t.is(b.logged.filter((line) => /could not be written yet/.test(line)).length, 2);
  b.full(false);
  await b.audit.append(entry(4));
  const lines = await b.lines();
  t.deepEqual(objects(lines), ['1', '2', '3', '4']);
  t.truthy(verify('c', lines));
});

test('of more than can be remembered meanwhile it is said how many are lost', async (t) => {
  const b = book(t);
  b.full(true);
  for (let n = 0; n < managerLimits.maxUnwrittenAuditLines + 5; n++) await b.audit.append(entry(n));
  b.full(false);
  for (let n = 0; n < 10; n++) await b.audit.append(entry(10_000 + n));
  const lines = await b.lines();
  t.is(lines.filter(({ outcome }) => outcome === 'store_full')[0]?.reason, '5 lines could not be written');
  t.is(objects(lines).filter((object) => object !== '').length, managerLimits.maxUnwrittenAuditLines + 10);
  t.truthy(verify('c', lines));
});

test('what is odd in a name is read as it was hashed', async (t) => {
  const b = book(t);
  await b.audit.append({
    action: 'a',
    object: `${'x'.repeat(299)}\u{1F5DD}`,
    outcome: 'done',
    reason: '\ud800\u0000',
  });
  await b.audit.append(entry(2));
  t.truthy(verify('c', await b.lines()));
});

test('a line that somebody changes or takes out in the store shows', async (t) => {
  const m = await realManager(t);
  for (const name of ['a', 'b', 'c']) await m.createSecret(name, 'x');
  const { openLmdbStore } = await import('../../src/store/lmdb.js');
  const changed = async (key: string, change: (value: Uint8Array) => Uint8Array | undefined) => {
    const later = await m.restarted(async (folder) => {
      const store = openLmdbStore(`${folder}/store`);
      const found = await store.get(tables.audit.prefix + key);
      const value = change(found?.value ?? new Uint8Array());
      await store.commit({
        checks: [],
        puts: value === undefined ? [] : [{ key: tables.audit.prefix + key, value }],
        deletes: value === undefined ? [tables.audit.prefix + key] : [],
      });
      await store.close();
    });
    return linesOf(later);
  };
  const flip = (value: Uint8Array): Uint8Array => {
    const at = Buffer.from(value).indexOf('createSecret');
    return Buffer.from(value).fill('removeSecret', at, at + 12);
  };
  const other = await changed(auditKey(2), flip);
  refuses(t, () => verify(m.running.clusterId, other), 'store_corrupt', /line 2 is not what it was/);
  const less = await changed(auditKey(2), () => undefined);
  refuses(t, () => verify(m.running.clusterId, less), 'store_corrupt', /line 2 is missing/);
});
