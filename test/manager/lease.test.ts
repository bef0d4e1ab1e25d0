/** A value's own lease: what nodes are told of it, and until when the manager takes it for served. */
import test from 'ava';
import { managerLimits } from '../../src/manager/limits.js';
import { neverComesMs } from '../../src/manager/version_lease.js';
import { neverMs } from '../../src/model/lease.js';
import { settle } from '../support/fake_clock.js';
import { fakeManager } from '../support/fake_manager.js';

const hourMs = 3_600_000;

test('nodes are told how much earlier or later than usual a value’s lease ends; operators who holds it until when', async (t) => {
  const m = await fakeManager();
  t.teardown(() => m.stop());
  const identity = await m.joined();
  const { node, breakOff } = m.attach(identity);
  await node.begin({ hostname: 'host-a' });
  const leases = { usual: 0, short: 10_000, week: 7 * 24 * hourMs, never: neverMs };
  for (const [name, leaseMs] of Object.entries(leases))
    await m.createSecret(name, 'x', { leaseMs: BigInt(leaseMs) });
  await m.createService('web', { secrets: Object.keys(leases) });
  const { versions } = await node.assignment();
  const byName = (name: string) =>
    versions.find(({ secretId }) => m.view.secrets.get(secretId)?.name === name)?.leaseShiftMs;
  t.deepEqual(['usual', 'short', 'week'].map(byName), [
    0n,
    10_000n - BigInt(24 * hourMs),
    BigInt(6 * 24 * hourMs),
  ]);
  t.true((byName('never') ?? 0n) > BigInt(100 * 365 * 24 * hourMs));

  const heldFor = async (name: string): Promise<number | undefined> => {
    const [version] = (await m.operate('getSecret', { name })).versions ?? [];
    const [holder] = version?.holders ?? [];
    return holder === undefined
      ? undefined
      : Number(holder.untilMs) && Number(holder.untilMs) - m.clock.now();
  };
  t.is(await heldFor('usual'), managerLimits.leaseMs + managerLimits.leaseDriftMs);
  t.is(await heldFor('short'), 11_007);
  t.is(await heldFor('never'), 0, 'never ends');
  breakOff();
  await m.clock.advance(12_000);
  await settle();
  t.is(await heldFor('short'), undefined, 'nobody holds it any more');
  t.is(await heldFor('never'), 0);
});

test('a removed secret keeps its lease where a node may still hold it: who removes the node hears of it', async (t) => {
  const m = await fakeManager();
  t.teardown(() => m.stop());
  const ends: number[] = [];
  for (const leaseMs of [BigInt(neverMs), BigInt(hourMs)]) {
    const identity = await m.joined();
    const { node, breakOff } = m.attach(identity);
    await node.begin();
    const name = `key-${leaseMs}`;
    await m.createSecret(name, 'x', { leaseMs });
    await m.createService(name, { secrets: [name], constraints: [`node.id==${identity.nodeId}`] });
    await node.assignment();
    breakOff();
    await settle();
    await m.operate('removeService', { name });
    await m.operate('removeSecret', { name });
    const { leaseEndsMs = 0n } = await m.operate('removeNode', { name: identity.nodeId, force: true });
    ends.push(Number(leaseEndsMs));
  }
  t.deepEqual(ends, [neverComesMs, Math.round(m.clock.now() + hourMs + 1_000 + (hourMs * 700) / 1_000_000)]);
});

test('a receipt for a secret that was removed meanwhile says how it was called', async (t) => {
  const m = await fakeManager();
  t.teardown(() => m.stop());
  const { node } = m.attach(await m.joined());
  await node.begin();
  const secretId = await m.createSecret('key', 'x');
  await m.createService('web', { secrets: ['key'] });
  await node.assignment();
  await m.operate('removeService', { name: 'web' });
  await m.operate('removeSecret', { name: 'key' });
  await node.report([node.receipt({ secretId })]);
  await node.taken();
  const { receipts } = await m.operate('listReceipts', { secret: 'key' });
  t.deepEqual(
    receipts?.map((one) => [one.secretName, one.secretId]),
    [['key', secretId]],
  );
});

test('a lease that is none is refused; a new value has the lease of the one before unless it has its own', async (t) => {
  const m = await fakeManager();
  t.teardown(() => m.stop());
  for (const leaseMs of [-2n, 1n, 9_999n, BigInt(366 * 24 * hourMs)])
    await t.throwsAsync(m.createSecret('db', 'x', { leaseMs }), { code: 'bad_input' });
  const id = await m.createSecret('db', 'x', { leaseMs: 60_000n });
  await m.updateSecret(id, 'y');
  await m.updateSecret(id, 'z', { leaseMs: BigInt(neverMs) });
  const { versions } = await m.operate('getSecret', { name: 'db' });
  t.deepEqual(
    versions?.map(({ leaseMs }) => leaseMs),
    [60_000n, 60_000n, BigInt(neverMs)],
  );
});
