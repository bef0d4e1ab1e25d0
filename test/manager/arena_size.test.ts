import test from 'ava';
import { arenaSize } from '../../src/manager/arena_size.js';
import { managerLimits } from '../../src/manager/limits.js';

const KiB = 1024;
const sizeUnder = (limitBytes: number) =>
  arenaSize((wanted) => ({ bytes: Math.min(wanted, limitBytes), limitBytes }));

test('the manager takes a quarter of what may be locked, within bounds', (t) => {
  t.deepEqual(
    [Infinity, 16 * 1024 * KiB, 8 * 1024 * KiB, 1000 * KiB, 256 * KiB, 64 * KiB, 20 * KiB].map(sizeUnder),
    [4096, 4096, 2048, 248, 64, 64, 20].map((size) => size * KiB),
  );
});

test('without leave to lock it is as large as ever, and not locked', (t) => {
  t.deepEqual([0, 12 * KiB].map(sizeUnder), [managerLimits.arenaBytes, managerLimits.arenaBytes]);
});
