import test from 'ava';
import fc from 'fast-check';
import { KeptReceipts, type KeptReceipt } from '../../src/manager/kept_receipts.js';

const of = (nodeId: string, ...numbers: number[]): KeptReceipt[] =>
  numbers.map((number) => ({ nodeId, key: `${nodeId}/${number}` }));

function keep(kept: KeptReceipts, added: KeptReceipt[]): string[] {
  const surplus = kept.surplusWith(added);
  kept.add(added);
  kept.remove(surplus);
  return surplus.map(({ key }) => key);
}

test('nothing goes before the bound is reached', (t) => {
  const kept = new KeptReceipts(4);
  t.deepEqual(keep(kept, [...of('a', 1, 2), ...of('b', 1, 2)]), []);
});

test('beyond it the oldest go', (t) => {
  const kept = new KeptReceipts(3);
  keep(kept, of('a', 1, 2, 3));
  t.deepEqual(keep(kept, of('a', 4, 5)), ['a/1', 'a/2']);
  t.deepEqual(keep(kept, of('a', 6)), ['a/3']);
});

test('a node that floods pushes out its own, and nobody else’s', (t) => {
  const kept = new KeptReceipts(6);
  keep(kept, [...of('a', 1, 2), ...of('b', 1)]);
  t.deepEqual(keep(kept, of('flood', 1, 2, 3, 4, 5)), ['flood/1', 'flood/2']);
  t.deepEqual(keep(kept, of('flood', 6, 7, 8)), ['flood/3', 'flood/4', 'flood/5']);
  t.deepEqual(keep(kept, of('b', 2)), ['flood/6']);
});

test('more nodes than there is room for: still as many are kept as there can be', (t) => {
  const kept = new KeptReceipts(3);
  const first = keep(
    kept,
    ['a', 'b', 'c', 'd', 'e'].flatMap((nodeId) => of(nodeId, 1)),
  );
  t.is(first.length, 2);
});

test('whatever comes: never more than the bound, never fewer than there is room for, the newest of each node', (t) => {
  const batch = fc.array(fc.constantFrom('a', 'b', 'c', 'd'), { maxLength: 12 });
  fc.assert(
    fc.property(fc.array(batch, { maxLength: 8 }), fc.integer({ min: 1, max: 9 }), (batches, max) => {
      const kept = new KeptReceipts(max);
      let [left, number]: [KeptReceipt[], number] = [[], 0];
      for (const nodes of batches) {
        const added = nodes.flatMap((nodeId) => of(nodeId, ++number));
        const before = left.length + added.length;
        const gone = new Set(keep(kept, added));
        left = [...left, ...added].filter(({ key }) => !gone.has(key));
        if (left.length !== Math.min(before, max)) return false;
        const oldest = (nodeId: string): number =>
          Math.min(...left.filter((one) => one.nodeId === nodeId).map(({ key }) => Number(key.slice(2))));
        for (const key of gone) if (Number(key.slice(2)) > oldest(key.slice(0, 1))) return false;
      }
      return true;
    }),
  );
  t.pass();
});
