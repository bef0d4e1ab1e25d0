/** A value's own lease: what nodes are told of it, and until when the manager takes it for served. */
import test from 'ava';
import { managerLimits } from '../../src/manager/limits.js';
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
