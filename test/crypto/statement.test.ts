import test from 'ava';
import fc from 'fast-check';
import {
  auditStatement,
  bindingStatement,
  receiptStatement,
  sealingKeyStatement,
  sessionKeyStatement,
} from '../../src/crypto/statement.js';

// Small alphabets, so that fields that run into each other are drawn often.
const text = fc.string({ unit: fc.constantFrom('a', 'b', '\0', '1', 'é', '🗝'), maxLength: 6 });
const bytes = fc.array(fc.constantFrom(0, 1, 97, 255), { maxLength: 6 }).map((all) => Uint8Array.from(all));
const number = fc.oneof(fc.nat(3), fc.nat(), fc.maxSafeNat());

const statements = {
  sealingKey: fc.tuple(text, bytes).map((fields) => ({ fields, encoded: sealingKeyStatement(...fields) })),
  sessionKey: fc
    .record({ nonce: bytes, clusterId: text, nodeId: text, bootId: text, sessionKey: bytes })
    .map((fields) => ({ fields, encoded: sessionKeyStatement(fields) })),
  receipt: fc
    .record({
      clusterId: text,
      nodeId: text,
      runId: text,
      number,
      secretId: text,
      version: number,
      reason: text,
      wipedMs: number,
      durationUs: number,
      mapped: fc.boolean(),
    })
    .map((fields) => ({ fields, encoded: receiptStatement(fields) })),
  audit: fc
    .tuple(
      text,
      fc.record({
        number,
        atMs: number,
        action: text,
        object: text,
        actor: text,
        actorId: text,
        role: text,
        serial: text,
        address: text,
        outcome: text,
        reason: text,
        previous: bytes,
      }),
    )
    .map((fields) => ({ fields, encoded: auditStatement(...fields) })),
  binding: fc
    .tuple(
      fc.constantFrom('submitted', 'atRest', 'delivered'),
      fc.record({ clusterId: text, secretId: text, version: number, ciphertextDigest: bytes }),
    )
    .map((fields) => ({ fields, encoded: bindingStatement(...fields) })),
};

const kinds = Object.keys(statements) as (keyof typeof statements)[];

for (const kind of kinds) {
  test(`${kind}: two lists of fields are never encoded alike, and one always is`, (t) => {
    const one = statements[kind] as fc.Arbitrary<{ fields: unknown; encoded: Uint8Array }>;
    fc.assert(
      fc.property(one, one, (a, b) => {
        const same = fc.stringify(a.fields) === fc.stringify(b.fields);
        return same === Buffer.from(a.encoded).equals(b.encoded);
      }),
      { numRuns: 1_000 },
    );
    t.pass();
  });
}

test('a statement of one kind is never one of another', (t) => {
  const any = fc
    .constantFrom(...kinds)
    .chain((kind) =>
      (statements[kind] as fc.Arbitrary<{ encoded: Uint8Array }>).map(({ encoded }) => ({ kind, encoded })),
    );
  fc.assert(
    fc.property(any, any, (a, b) => a.kind === b.kind || !Buffer.from(a.encoded).equals(b.encoded)),
    { numRuns: 1_000 },
  );
  t.pass();
});

test('no statement can be taken for a certificate: none begins with a DER SEQUENCE', (t) => {
  for (const kind of kinds) {
    fc.assert(
      fc.property(
        statements[kind] as fc.Arbitrary<{ encoded: Uint8Array }>,
        ({ encoded }) => encoded[0] === 0x69,
      ),
    );
  }
  t.pass();
});

test('what is signed and stored does not change: one of each kind, byte for byte', (t) => {
  const hex = (encoded: Uint8Array): string => Buffer.from(encoded).toString('latin1').replaceAll('\0', '.');
  t.is(hex(sealingKeyStatement('c', Uint8Array.of(65))), 'inro sealing key 1....\u0001c...\u0001A');
  t.is(
    hex(
      bindingStatement('atRest', {
        clusterId: 'c',
        secretId: 's',
        version: 66,
        ciphertextDigest: Uint8Array.of(65),
      }),
    ),
    'inro content key atRest 1....\u0001c...\u0001s...\u0008.......B...\u0001A',
  );
  t.is(
    hex(
      sessionKeyStatement({
        nonce: Uint8Array.of(65),
        clusterId: 'c',
        nodeId: 'n',
        bootId: 'b',
        sessionKey: Uint8Array.of(66),
      }),
    ),
    'inro session key 1....\u0001A...\u0001c...\u0001n...\u0001b...\u0001B',
  );
  t.is(
    hex(
      receiptStatement({
        clusterId: 'c',
        nodeId: 'n',
        runId: 'r',
        number: 65,
        secretId: 's',
        version: 66,
        reason: 'removed',
        wipedMs: 67,
        durationUs: 68,
        mapped: true,
      }),
    ),
    'inro receipt 1....\u0001c...\u0001n...\u0001r...\u0008.......A...\u0001s...\u0008.......B' +
      '...\u0007removed...\u0008.......C...\u0008.......D...\u0008.......\u0001',
  );
});
