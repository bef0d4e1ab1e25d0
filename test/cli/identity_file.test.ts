/** An operator's identity file: what is taken, and what is refused with words that quote nothing of the key. */
import { randomBytes } from 'node:crypto';
import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import fc from 'fast-check';
import { identityText, parseIdentity, readIdentity } from '../../src/cli/identity_file.js';
import { generateNodeKey } from '../../src/crypto/signing.js';
import { InroError } from '../../src/model/error.js';
import { newId } from '../../src/model/id.js';
import { createCsr } from '../../src/pki/csr.js';
import type { Role } from '../../src/pki/role.js';
import { fakeCluster } from '../support/fake_authority.js';
import { refuses } from '../support/refuses.js';

const cluster = fakeCluster();
const { now } = cluster;
const dayMs = 24 * 3_600_000;

function pair(role: Role = 'operator', from = cluster): { certificatePem: string; keyPem: string } {
  const { privateKey, privatePem: keyPem } = generateNodeKey();
  const request = { csr: createCsr(privateKey), nodeId: newId(randomBytes), role, lifetimeMs: dayMs };
  return { certificatePem: from.authority.issueNode(request).pem, keyPem };
}

const own = pair();
const content = {
  name: 'alice',
  clusterId: cluster.clusterId,
  managers: ['10.0.0.1:4747', '[::1]:1'],
  rootPem: cluster.rootPem,
  ...own,
};
const good = identityText(content);
const parse = (text: string, at = now) => parseIdentity(text, 'FILE', at);

test('what was written is read', (t) => {
  const { name, clusterId, managers, keyPem, certificatePem, rootPem } = parse(good);
  t.deepEqual({ name, clusterId, managers, keyPem, certificatePem, rootPem }, content);
});

test('blocks may stand in any order, and the key may be added at the end', (t) => {
  const without = identityText({ ...content, keyPem: undefined });
  refuses(t, () => parse(without), 'bad_input', /its private key is missing/);
  t.is(parse(without + own.keyPem).keyPem, own.keyPem);
  t.is(parse(`${own.keyPem}# a remark\nlater-key: of a newer version\n\n${without}`).name, 'alice');
});

const other = fakeCluster();
const twin = fakeCluster({ clusterId: cluster.clusterId });
for (const [what, text, code, words] of [
  ['nothing', '', 'bad_input', /one private key, one certificate and its root/],
  ['a key alone', own.keyPem, 'bad_input', /one private key/],
  ['two keys', good + own.keyPem, 'bad_input', /one private key/],
  ['two certificates', good + pair().certificatePem, 'bad_input', /one private key/],
  ['two roots', good + other.rootPem, 'bad_input', /one private key/],
  ['another block', `${good}-----BEGIN X-----\nAAAA\n-----END X-----\n`, 'bad_input', /no other block/],
  ['a line of something else', `${good}\nwhat is this\n`, 'bad_input', /neither PEM nor KEY: VALUE/],
  [
    'the key of another',
    identityText({ ...content, keyPem: pair().keyPem }),
    'bad_certificate',
    /another key/,
  ],
  ['a damaged key', good.replace(/(KEY-----\n)..../, '$1AAAA'), 'bad_input', /its private key is not/],
  [
    'a damaged certificate',
    good.replace(/(CERTIFICATE-----\n)..../, '$1AAAA'),
    'bad_certificate',
    /damaged|not one/,
  ],
  ["a worker's", identityText({ ...content, ...pair('worker') }), 'bad_certificate', /for a worker/],
  ["a manager's", identityText({ ...content, ...pair('manager') }), 'bad_certificate', /for a manager/],
  [
    'the root of another cluster',
    identityText({ ...content, rootPem: other.rootPem }),
    'foreign_cluster',
    /is of cluster/,
  ],
  [
    'the root of a cluster that took our id',
    identityText({ ...content, rootPem: twin.rootPem }),
    'bad_certificate',
    /not signed by the root/,
  ],
  ['a manager that is none', good.replace('10.0.0.1:4747', 'nowhere'), 'bad_input', /not HOST:PORT/],
  [
    'too many managers',
    identityText({ ...content, managers: Array(17).fill('a:1') }),
    'bad_input',
    /more than 16/,
  ],
] as const) {
  test(`refused: ${what}`, (t) => {
    const error = refuses(t, () => parse(text), code, words);
    quotesNoKey(t, error);
  });
}

test('refused: one whose time is over, or has not begun', (t) => {
  const error = refuses(
    t,
    () => parse(good, now + dayMs + 1_000),
    'bad_certificate',
    /operator alice .* expired at/,
  );
  t.regex(error.remedy ?? '', /inro operator create alice/);
  refuses(t, () => parse(good, now - dayMs), 'bad_certificate', /is not valid before/);
});

test('a name with control characters does not reach the terminal', (t) => {
  t.is(parse(good.replace('operator: alice', 'operator: al\u001b[31mice')).name, 'al?[31mice');
});

test('any edit of a file is refused in words, or it is an identity of this cluster', (t) => {
  t.notThrows(() =>
    fc.assert(
      fc.property(fc.nat(good.length - 1), fc.nat(40), fc.string({ maxLength: 20 }), (at, length, text) => {
        try {
          return parse(good.slice(0, at) + text + good.slice(at + length)).clusterId === cluster.clusterId;
        } catch (error) {
          if (!(error instanceof InroError) || error.code === 'internal') throw error;
          return !error.message.includes(own.keyPem.slice(60, 90));
        }
      }),
      { numRuns: 300 },
    ),
  );
});

test('a file must be closed to others, and be a file', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'inro-identity-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const path = join(folder, 'a.pem');
  writeFileSync(path, good, { mode: 0o600 });
  t.is(readIdentity(path, now).name, 'alice');
  symlinkSync(path, join(folder, 'link'));
  t.is(readIdentity(join(folder, 'link'), now).name, 'alice');
  for (const mode of [0o640, 0o604, 0o620, 0o602, 0o610, 0o644]) {
    chmodSync(path, mode);
    const error = refuses(t, () => readIdentity(path, now), 'not_permitted', /is open to other users/);
    t.regex(error.remedy ?? '', /chmod 600/);
  }
  chmodSync(path, 0o600);
  if (process.getuid?.() === 0) {
    chownSync(path, 12_345, 12_345);
    refuses(t, () => readIdentity(path, now), 'not_permitted', /belongs to another user \(uid 12345\)/);
    chownSync(path, 0, 0);
  }
  refuses(t, () => readIdentity(join(folder, 'none'), now), 'no_identity', /there is no identity file/);
  mkdirSync(join(folder, 'folder'), { mode: 0o700 });
  refuses(t, () => readIdentity(join(folder, 'folder'), now), 'bad_input', /it is no file/);
  writeFileSync(join(folder, 'large'), `${good}${'#\n'.repeat(40_000)}`, { mode: 0o600 });
  refuses(t, () => readIdentity(join(folder, 'large'), now), 'bad_input', /is larger than 65536 bytes/);
});

function quotesNoKey(t: ExecutionContext, { message, remedy }: InroError): void {
  t.false(`${message} ${remedy ?? ''}`.includes(own.keyPem.split('\n')[1] as string));
}
