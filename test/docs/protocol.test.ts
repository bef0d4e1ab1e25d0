/** The formats in docs/protocol.md are those of the code: tags, sizes, domains and fields of what is stored and signed. */
import { readFileSync } from 'node:fs';
import test from 'ava';
import { openArena } from '../../src/crypto/arena.js';
import { sealValue, submitContentKey, unwrap, wrap } from '../../src/crypto/envelope.js';
import { drawExchangeKey, drawKey } from '../../src/crypto/exchange.js';
import { boxOverheadBytes, boxTag } from '../../src/crypto/secretbox.js';
import {
  auditStatement,
  bindingStatement,
  enrolAgainStatement,
  joinTokenStatement,
  receiptStatement,
  sealingKeyStatement,
  sessionKeyStatement,
} from '../../src/crypto/statement.js';

// The compiled test stands in dist/test/docs.
const page = readFileSync(new URL('../../../docs/protocol.md', import.meta.url), 'utf8');

/** The rows of the table with this head. */
function table(head: string): string[][] {
  const lines = page.split('\n');
  const at = lines.findIndex((line) => line.startsWith(head));
  if (at < 0) throw new Error(`docs/protocol.md has no table ${head}`);
  const end = lines.findIndex((line, n) => n > at && !line.startsWith('|'));
  return lines.slice(at + 2, end).map((line) =>
    line
      .slice(1, -1)
      .split('|')
      .map((cell) => cell.trim().replaceAll('`', '')),
  );
}

const arena = openArena(1 << 20, 'mlock');
const binding = { clusterId: 'c', secretId: 's', version: 1, ciphertextDigest: new Uint8Array(32) };

test('a box is laid out as the table says', (t) => {
  const rows = table('| offset | bytes |').map(([offset, bytes]) => [Number(offset), bytes]);
  const sizes = rows.map(([, bytes]) => bytes);
  t.deepEqual(sizes, ['1', '24', '16', 'n']);
  t.deepEqual(
    rows.map(([offset]) => offset),
    [0, 1, 25, boxOverheadBytes],
  );
});

test('tags are those of the table', (t) => {
  const rows = table('| tag |').map(([tag]) => tag?.split(' '));
  t.deepEqual(
    rows,
    Object.entries(boxTag).map(([name, tag]) => [String(tag), name]),
  );
});

test('wrapped content keys have the sizes of the table', (t) => {
  const sizes = table('| where | bytes |').map(([, bytes]) => Number(bytes));
  const [atRest, submitted, delivered] = sizes as [number, number, number];
  const key = drawKey(arena);
  const value = arena.take(5);
  const { ciphertext, contentKey } = sealValue(value, arena);
  t.is(ciphertext.length, 5 + boxOverheadBytes);
  t.is(wrap('atRest', contentKey, binding, key, arena).length, atRest);
  t.is(wrap('delivered', contentKey, binding, key, arena).length, delivered);
  const sealing = drawExchangeKey(arena);
  t.is(submitContentKey(contentKey, binding, sealing.publicKey, arena).length, submitted);
  const wrapped = wrap('atRest', contentKey, binding, key, arena);
  t.throws(() => unwrap('delivered', wrapped, binding, key, arena), { code: 'envelope' });
});

test('statements begin with the domains of the table and have its fields', (t) => {
  const key = new Uint8Array(32);
  const ids = { clusterId: 'c', nodeId: 'n' };
  const receipt = receiptStatement({
    ...ids,
    runId: 'r',
    number: 1,
    secretId: 's',
    version: 1,
    reason: 'removed',
    wipedMs: 1,
    durationUs: 1,
    mapped: false,
  });
  const statements = [
    ...['submitted', 'atRest', 'delivered'].map((purpose) => bindingStatement(purpose, binding)),
    sealingKeyStatement('c', key),
    sessionKeyStatement({ ...ids, nonce: key, bootId: 'b', sessionKey: key }),
    joinTokenStatement('c', key),
    enrolAgainStatement({ ...ids, publicKey: key }),
    receipt,
    auditStatement('c', {
      number: 1,
      atMs: 1,
      action: 'a',
      object: 'o',
      actor: 'w',
      actorId: 'i',
      role: 'r',
      serial: 's',
      address: 'f',
      outcome: 'done',
      reason: '',
      previous: key,
    }),
  ];
  const rows = table('| domain |');
  t.is(rows.length, statements.length);
  for (const [n, [domain, fields]] of rows.entries()) {
    const bytes = Buffer.from(statements[n] as Uint8Array);
    const head = `inro ${domain} 1\0`;
    t.is(bytes.subarray(0, head.length).toString(), head);
    const named = fields === 'the same' ? rows[0]?.[1] : fields;
    t.is(countFields(bytes.subarray(head.length)), (named ?? '').split(',').length, domain);
  }
});

function countFields(bytes: Buffer): number {
  return bytes.length === 0 ? 0 : 1 + countFields(bytes.subarray(4 + bytes.readUInt32BE()));
}
