import test from 'ava';
import { Vault, type Wiped } from '../../src/agent/vault.js';
import { openArena } from '../../src/crypto/arena.js';
import { drawKey } from '../../src/crypto/exchange.js';
import { delivery } from '../support/deliveries.js';
import { FakeClock } from '../support/fake_clock.js';
import { refuses } from '../support/refuses.js';

function newVault() {
  const clock = new FakeClock();
  const arena = openArena(1 << 20);
  const sealing = openArena(1 << 20);
  const key = drawKey(sealing);
  const wiped: Wiped[] = [];
  const vault = new Vault(arena, clock, (one) => wiped.push(one));
  const put = (secretId: string, text = 'value', version = 1): void =>
    vault.put(delivery({ clusterId: 'c', arena: sealing, key }, secretId, text, version), 'c', key);
  return { clock, arena, sealing, key, vault, wiped, put };
}

test('what was put is there, once, with what is known of it', (t) => {
  const { vault, arena, put } = newVault();
  put('a', 'hunter2', 3);
  t.is(vault.size, 1);
  t.deepEqual(vault.keys(), ['a@3']);
  const held = vault.get('a@3');
  t.like(held, { secretId: 'a', version: 3, createdMs: 1_000 });
  t.is(new TextDecoder().decode(held?.value.expose()), 'hunter2');
  t.is(arena.facts().pieces, 1, 'neither the content key nor its wrapping stays');
});

test('what does not belong is refused, and nothing of it stays', (t) => {
  const { vault, arena, sealing, key } = newVault();
  const good = delivery({ clusterId: 'c', arena: sealing, key }, 'a', 'value');
  refuses(t, () => vault.put(good, 'another cluster', key), 'envelope');
  refuses(
    t,
    () => vault.put({ ...good, ciphertextDigest: new Uint8Array(32) }, 'c', key),
    'envelope',
    /a@1 is not the one that was announced/,
  );
  refuses(t, () => vault.put(good, 'c', drawKey(sealing)), 'envelope');
  refuses(t, () => vault.put({ ...good, secretId: 'b' }, 'c', key), 'envelope');
  t.is(arena.facts().pieces, 0);
  t.is(vault.size, 0);
});

test('a wipe leaves a record of what, why and when', async (t) => {
  const { vault, arena, clock, wiped, put } = newVault();
  put('a', 'value', 2);
  await clock.advance(500);
  vault.wipe('a@2', 'removed');
  const wipedMs = clock.now();
  t.deepEqual(wiped, [
    { secretId: 'a', version: 2, taskIds: [], reason: 'removed', wipedMs, durationUs: 0, mapped: false },
  ]);
  t.is(arena.facts().pieces, 0);
  vault.wipe('a@2', 'removed');
  vault.wipe('never there', 'removed');
  t.is(wiped.length, 1);
});

test('how long a wipe took is measured in microseconds', (t) => {
  const arena = openArena(1 << 20);
  const sealing = openArena(1 << 20);
  const key = drawKey(sealing);
  const wiped: Wiped[] = [];
  let nowUs = 7_000;
  const clock = Object.assign(new FakeClock(), { monotonicUs: () => (nowUs += 41.2) });
  const vault = new Vault(arena, clock, (one) => wiped.push(one));
  vault.put(delivery({ clusterId: 'c', arena: sealing, key }, 'a', 'value'), 'c', key);
  vault.wipe('a@1', 'revoked');
  t.like(wiped, [{ reason: 'revoked', durationUs: 42 }]);
});

test('a wipe whose pages the kernel keeps says so', (t) => {
  const { vault, wiped, put } = newVault();
  put('a');
  const value = vault.get('a@1')?.value as { wipe(): boolean };
  value.wipe = () => false;
  vault.wipe('a@1', 'removed');
  t.like(wiped, [{ mapped: true }]);
  t.is(vault.size, 0);
});

test('a retired version is wiped when the grace is over, and is no holding to rely on meanwhile', async (t) => {
  const { vault, clock, wiped, put } = newVault();
  put('a');
  put('b');
  vault.retire('a@1', 10_000);
  t.true(vault.isRetiring('a@1'));
  t.deepEqual(
    vault.holdings().map(({ secretId, retiring }) => ({ secretId, retiring })),
    [
      { secretId: 'a', retiring: true },
      { secretId: 'b', retiring: false },
    ],
  );
  t.is(vault.get('a@1')?.value.wiped, false);
  await clock.advance(10_000);
  t.is(vault.get('a@1'), undefined);
  t.like(wiped, [{ secretId: 'a', reason: 'superseded' }]);
});

test('retiring again does not lengthen the grace', async (t) => {
  const { vault, clock, wiped, put } = newVault();
  put('a');
  vault.retire('a@1', 10_000);
  await clock.advance(6_000);
  vault.retire('a@1', 10_000);
  await clock.advance(4_000);
  t.is(wiped.length, 1);
});

test('what is kept after all, or wiped before, has no timer any more', async (t) => {
  const { vault, clock, wiped, put } = newVault();
  put('a');
  put('b');
  vault.retire('a@1', 10_000);
  vault.retire('b@1', 10_000);
  vault.retire('never there', 10_000);
  vault.keep('a@1');
  vault.wipe('b@1', 'removed');
  t.is(clock.pending, 0);
  await clock.advance(20_000);
  t.deepEqual(vault.keys(), ['a@1']);
  t.is(wiped.length, 1);
});

test('the grace follows boot time: a wall clock that is set does not end it, nor keep it', async (t) => {
  const { vault, clock, put } = newVault();
  put('a');
  vault.retire('a@1', 10_000);
  clock.setWall(clock.now() + 86_400_000);
  await clock.advance(9_999);
  t.is(vault.size, 1);
  clock.setWall(clock.now() - 2 * 86_400_000);
  await clock.advance(1);
  t.is(vault.size, 0);
});

test('wiping all leaves nothing, not what is in its grace either', (t) => {
  const { vault, arena, clock, wiped, put } = newVault();
  for (const id of ['a', 'b', 'c']) put(id);
  vault.retire('b@1', 10_000);
  vault.wipeAll('stopped');
  t.deepEqual(
    wiped.map(({ secretId, reason }) => `${secretId} ${reason}`),
    ['a stopped', 'b stopped', 'c stopped'],
  );
  t.deepEqual([vault.size, arena.facts().pieces, clock.pending], [0, 0, 0]);
});
