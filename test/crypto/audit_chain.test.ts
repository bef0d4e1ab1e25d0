import test from 'ava';
import { AuditChain, auditDigest, noDigest } from '../../src/crypto/audit_chain.js';
import type { AuditFields } from '../../src/crypto/statement.js';
import { refuses } from '../support/refuses.js';

const clusterId = 'c';

function linesFrom(first: number, count: number): AuditFields[] {
  let previous = noDigest;
  return Array.from({ length: first + count - 1 }, (_, n) => {
    const line = {
      number: n + 1,
      atMs: 1_000 + n,
      action: 'createSecret',
      object: `s${n}`,
      actor: 'alice',
      actorId: 'a',
      role: 'admin',
      serial: '1',
      address: '10.0.0.1:1',
      outcome: 'done',
      reason: '',
      previous,
    };
    previous = auditDigest(clusterId, line);
    return line;
  }).slice(first - 1);
}

function look(lines: readonly AuditFields[], id = clusterId): void {
  const chain = new AuditChain(id);
  for (const line of lines) chain.add(line);
}

test('lines in their order are whole, from the first or from the oldest that is kept', (t) => {
  t.notThrows(() => look(linesFrom(1, 5)));
  t.notThrows(() => look(linesFrom(3, 5)));
  t.notThrows(() => look([]));
});

test('any change of any field shows with the next line', (t) => {
  const changes: Partial<Record<keyof AuditFields, unknown>> = {
    atMs: 1,
    action: 'x',
    object: 'x',
    actor: 'x',
    actorId: 'x',
    role: 'x',
    serial: 'x',
    address: 'x',
    outcome: 'x',
    reason: 'x',
    previous: new Uint8Array(32).fill(1),
  };
  for (const [field, value] of Object.entries(changes)) {
    const lines = linesFrom(1, 3);
    Object.assign(lines[1] as AuditFields, { [field]: value });
    const words =
      field === 'previous'
        ? /line 1 is not what it was when line 2/
        : /line 2 is not what it was when line 3/;
    refuses(t, () => look(lines), 'store_corrupt', words);
  }
});

test('what is missing, put in, or of another cluster shows', (t) => {
  const lines = linesFrom(1, 4);
  refuses(t, () => look(lines.toSpliced(1, 1)), 'store_corrupt', /line 2 is missing: line 3 follows/);
  refuses(
    t,
    () => look([...lines, lines[3] as AuditFields]),
    'store_corrupt',
    /line 5 is missing: line 4 follows/,
  );
  refuses(t, () => look(lines, 'another'), 'store_corrupt', /line 1 is not what it was/);
  const [first] = linesFrom(1, 1);
  refuses(
    t,
    () => look([{ ...(first as AuditFields), previous: new Uint8Array(32).fill(1) }]),
    'store_corrupt',
    /line 0/,
  );
});
