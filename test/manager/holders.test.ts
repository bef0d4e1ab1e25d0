import { create } from '@bufbuild/protobuf';
import test from 'ava';
import { Holders } from '../../src/manager/holders.js';
import { HolderRecordSchema } from '../../src/proto/gen/inro/v1/records_pb.js';
import { holderKey } from '../../src/store/tables.js';

const put = (holders: Holders, nodeId: string, secretId: string, version: number): void =>
  holders.put(create(HolderRecordSchema, { nodeId, secretId, version }));

test('who holds what is found both ways round, until it is gone', (t) => {
  const holders = new Holders();
  put(holders, 'n1', 's1', 1);
  put(holders, 'n1', 's1', 2);
  put(holders, 'n2', 's1', 2);
  put(holders, 'n2', 's1', 2);
  t.deepEqual(holders.of('s1', 2), ['n1', 'n2']);
  t.deepEqual(holders.of('s1', 3), []);
  t.deepEqual(
    holders.ofNode('n1').map(({ secretId, version }) => `${secretId}@${version}`),
    ['s1@1', 's1@2'],
  );
  holders.delete(holderKey('n1', 's1', 2));
  holders.delete(holderKey('n1', 's1', 2));
  holders.delete(holderKey('n9', 's1', 2));
  t.deepEqual(holders.of('s1', 2), ['n2']);
  t.is(holders.ofNode('n1').length, 1);
  holders.delete(holderKey('n2', 's1', 2));
  t.deepEqual([holders.of('s1', 2), holders.ofNode('n2')], [[], []]);
});
