import test from 'ava';
import fc from 'fast-check';
import {
  bitString,
  contentOf,
  integer,
  octetString,
  oid,
  parseDer,
  partsOf,
  sequence,
  tag,
  time,
  toBytes,
  utf8String,
} from '../../src/pki/der.js';

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const bytesOf = (text: string): Uint8Array => Buffer.from(text.replaceAll(' ', ''), 'hex');

test('values are written as X.690 says', (t) => {
  t.is(hex(toBytes(integer(Uint8Array.of(2)))), '020102');
  t.is(hex(toBytes(oid('1.2.840.10045.4.3.2'))), '06082a8648ce3d040302');
  t.is(hex(toBytes(utf8String('é'))), '0c02c3a9');
  t.is(hex(toBytes(bitString(Uint8Array.of(6), 1))), '03020106');
  t.is(hex(toBytes(sequence(octetString(new Uint8Array(200))))).slice(0, 12), '3081cb0481c8');
});

test('times through 2049 are UTCTime, later ones GeneralizedTime (RFC 5280 4.1.2.5)', (t) => {
  const text = (ms: number): string => Buffer.from(toBytes(time(ms))).toString('latin1');
  t.is(text(Date.UTC(2026, 0, 2, 3, 4, 5, 999)), '\x17\x0d260102030405Z');
  t.is(text(Date.UTC(2049, 11, 31, 23, 59, 59)), '\x17\x0d491231235959Z');
  t.is(text(Date.UTC(2050, 0, 1)), '\x18\x0f20500101000000Z');
  t.is(text(0), '\x17\x0d700101000000Z');
});

test('what is BER but not DER is refused', (t) => {
  const table: Record<string, string> = {
    nothing: '',
    'half a value': '30',
    'content missing': '30 03 02 01',
    'a byte after it': '02 01 02 00',
    'long form of a short length': '30 81 03 02 01 02',
    'padded length': '30 82 00 03 02 01 02',
    'indefinite length': '30 80 02 01 02 00 00',
    'padded integer': '02 02 00 02',
    'length of 2^31': '04 84 80 00 00 00',
    'length of lengths': '04 ff 00',
  };
  for (const [name, text] of Object.entries(table)) t.is(parseDer(bytesOf(text)), undefined, name);
  t.not(parseDer(bytesOf('30 03 02 01 02')), undefined);
});

test('nesting is bounded', (t) => {
  let deep = sequence();
  for (let level = 1; level < 31; level++) deep = sequence(deep);
  t.not(parseDer(toBytes(deep)), undefined);
  t.is(parseDer(toBytes(sequence(sequence(deep)))), undefined);
});

test('parts and contents are given for the asked type alone', (t) => {
  const value = parseDer(bytesOf('30 06 02 01 05 04 01 07'));
  const [first, second, third] = partsOf(value) ?? [];
  t.deepEqual([...(contentOf(first, tag.integer) ?? [])], [5]);
  t.is(contentOf(first, tag.octetString), undefined);
  t.deepEqual([...(contentOf(second, tag.octetString) ?? [])], [7]);
  t.is(contentOf(third, tag.integer), undefined);
  t.is(partsOf(first), undefined);
  t.is(partsOf(parseDer(bytesOf('31 00'))), undefined, 'a SET is no SEQUENCE');
});

test('what parses is written back byte for byte', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      const parsed = parseDer(bytes);
      return parsed === undefined || hex(toBytes(parsed)) === hex(bytes);
    }),
    { numRuns: 2000 },
  );
  t.pass();
});
