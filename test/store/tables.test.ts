import test from 'ava';
import fc from 'fast-check';
import {
  auditKey,
  ciphertextPrefix,
  operatorNamePrefix,
  holderKey,
  receiptKey,
  secretNamePrefix,
  serviceNamePrefix,
  tables,
  versionKey,
} from '../../src/store/tables.js';

test('where records lie is for ever', (t) => {
  const prefixes = Object.fromEntries(Object.entries(tables).map(([name, { prefix }]) => [name, prefix]));
  t.deepEqual(prefixes, {
    cluster: 'cluster/',
    nodes: 'node/',
    joinTokens: 'join-token/',
    operators: 'operator/',
    refused: 'refused/',
    readMarks: 'read-marks/',
    reads: 'read/',
    secrets: 'secret/',
    versions: 'version/',
    services: 'service/',
    tasks: 'task/',
    holders: 'holder/',
    receipts: 'receipt/',
    receiptMarks: 'receipt-marks/',
    audit: 'audit/',
    auditHead: 'audit-head/',
    managers: 'manager/',
  });
  t.deepEqual(
    [ciphertextPrefix, operatorNamePrefix, secretNamePrefix, serviceNamePrefix],
    ['ciphertext/', 'operator-name/', 'secret-name/', 'service-name/'],
  );
  t.is(versionKey('s1', 12), 's1/0000000012');
  t.is(holderKey('n1', 's1', 12), 'n1/s1/0000000012');
  t.is(auditKey(12), '0000000000000012');
  t.is(receiptKey('n1', 'r1', 12), 'n1/r1/0000000000000012');
});

test('no table lies inside another', (t) => {
  const all = [
    ...Object.values(tables).map(({ prefix }) => prefix),
    ciphertextPrefix,
    operatorNamePrefix,
    secretNamePrefix,
    serviceNamePrefix,
  ];
  for (const a of all) for (const b of all) t.true(a === b || !a.startsWith(b), `${a} in ${b}`);
});

test('versions sort by number', (t) => {
  const version = fc.integer({ min: 1, max: 2 ** 32 - 1 });
  fc.assert(fc.property(version, version, (a, b) => a < b === versionKey('s', a) < versionKey('s', b)));
  t.pass();
});
