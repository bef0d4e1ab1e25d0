import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { generateNodeKey } from '../../src/crypto/signing.js';
import { InroError } from '../../src/model/error.js';
import { newId } from '../../src/model/id.js';
import { createAuthority, openAuthority } from '../../src/pki/authority.js';
import { createCsr } from '../../src/pki/csr.js';
import { readRoot } from '../../src/pki/root.js';
import { fakeCluster } from '../support/fake_authority.js';
import { findOpenssl } from './openssl.js';

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
const now = Date.UTC(2026, 5, 1, 12, 0, 0);
const surroundings = { clock: { now: () => now }, random: randomBytes };
const clusterId = newId(randomBytes);
const nodeId = newId(randomBytes);
const { certPem, keyPem } = createAuthority({ clusterId, ...surroundings });
const authority = openAuthority(certPem, keyPem, { clusterId, ...surroundings });
const csr = createCsr(generateNodeKey().privateKey);

test('the root names its cluster, signs itself, and lasts 20 years from an hour ago', (t) => {
  const root = readRoot(certPem);
  t.is(root.commonName, 'inro-ca');
  t.is(root.clusterId, clusterId);
  t.is(root.notBeforeMs, now - hourMs);
  t.is(root.notAfterMs, now + 20 * 365 * dayMs);
  t.is(root.pem, certPem);
});

test('a worker certificate says who, what and where, for 90 days from an hour ago', (t) => {
  const key = generateNodeKey();
  const issued = authority.issueNode({ csr: createCsr(key.privateKey), nodeId, role: 'worker' });
  t.is(issued.nodeId, nodeId);
  t.is(issued.role, 'worker');
  t.is(issued.clusterId, clusterId);
  t.is(issued.notBeforeMs, now - hourMs);
  t.is(issued.notAfterMs, now + 90 * dayMs);
  t.is(issued.altNames, `DNS:inro-worker, DNS:${nodeId}`);
  t.deepEqual(issued.purposes, ['1.3.6.1.5.5.7.3.2']);
  t.true(issued.publicKey.equals(key.publicKey));
  t.false(issued.isAuthority);
});

test('a manager certificate is good for a server, too', (t) => {
  const issued = authority.issueNode({ csr, nodeId, role: 'manager' });
  t.is(issued.altNames, `DNS:inro-manager, DNS:${nodeId}`);
  t.deepEqual(issued.purposes, ['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2']);
});

test('serials are positive, 16 bytes, and differ, whatever chance brings', (t) => {
  for (const fill of [0x00, 0x7f, 0x80, 0xff]) {
    const drawn = openAuthority(certPem, keyPem, {
      clusterId,
      ...surroundings,
      random: (n) => new Uint8Array(n).fill(fill),
    });
    t.regex(drawn.issueNode({ csr, nodeId, role: 'worker' }).serial, /^[4-7][0-9a-f]{31}$/);
  }
  const serials = Array.from(
    { length: 50 },
    () => authority.issueNode({ csr, nodeId, role: 'worker' }).serial,
  );
  t.is(new Set(serials).size, 50);
});

test('a lifetime may be chosen, within the root and not below a second', (t) => {
  const issue = (lifetimeMs: number) => authority.issueNode({ csr, nodeId, role: 'worker', lifetimeMs });
  t.is(issue(1000).notAfterMs, now + 1000);
  t.is(issue(100 * 365 * dayMs).notAfterMs, authority.root.notAfterMs);
  for (const lifetimeMs of [999, 0, -1, Number.NaN, Number.POSITIVE_INFINITY]) {
    t.is(t.throws(() => issue(lifetimeMs), { instanceOf: InroError })?.code, 'bad_input', String(lifetimeMs));
  }
});

test('an authority beyond its own end issues nothing', (t) => {
  const late = openAuthority(certPem, keyPem, {
    clusterId,
    ...surroundings,
    clock: { now: () => now + 21 * 365 * dayMs },
  });
  const message = /^the root certificate expired at 2046-05-27T12:00:00.000Z/;
  t.throws(() => late.issueNode({ csr, nodeId, role: 'worker' }), { instanceOf: InroError, message });
});

test('ids of another form are refused', (t) => {
  t.throws(() => createAuthority({ clusterId: 'x', ...surroundings }), {
    instanceOf: InroError,
    message: /^the cluster id is not/,
  });
  const odd = `${nodeId.slice(1)}\n`;
  t.throws(() => authority.issueNode({ csr, nodeId: odd, role: 'worker' }), {
    instanceOf: InroError,
    message: /^the node id is not/,
  });
});

test('an authority opens only with its own key and its own kind of root', (t) => {
  const other = fakeCluster();
  t.throws(() => openAuthority(certPem, other.rootKeyPem, { clusterId, ...surroundings }), {
    instanceOf: InroError,
    message: /does not belong/,
  });
  const node = other.manager();
  t.throws(() => openAuthority(node.certPem, node.keyPem, { clusterId, ...surroundings }), {
    instanceOf: InroError,
    message: /is not a CA certificate/,
  });
  t.throws(() => openAuthority(certPem, 'x', { clusterId, ...surroundings }), {
    instanceOf: InroError,
    message: /^the private key/,
  });
});

const openssl = findOpenssl();
const withOpenssl = openssl === undefined ? test.skip : test;
const skipped = openssl === undefined ? ' (no openssl program on this host)' : '';

withOpenssl(`openssl verifies what is issued, strictly, for its purpose and no other${skipped}`, (t) => {
  const cluster = fakeCluster();
  const folder = mkdtempSync(join(tmpdir(), 'inro-ca-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const file = (name: string, content: string): string => {
    writeFileSync(join(folder, name), content);
    return join(folder, name);
  };
  const root = file('root.pem', cluster.rootPem);
  const verify = (name: string, ...options: string[]): string =>
    execFileSync('openssl', ['verify', '-x509_strict', '-check_ss_sig', '-CAfile', root, ...options, name], {
      stdio: 'pipe',
    }).toString();
  const worker = file('worker.pem', cluster.worker().certPem);
  const manager = file('manager.pem', cluster.manager().certPem);
  t.regex(verify(root), /OK/);
  t.regex(verify(worker, '-purpose', 'sslclient', '-verify_hostname', 'inro-worker'), /OK/);
  t.regex(verify(manager, '-purpose', 'sslclient'), /OK/);
  t.regex(verify(manager, '-purpose', 'sslserver', '-verify_hostname', 'inro-manager'), /OK/);
  t.throws(() => verify(worker, '-purpose', 'sslserver'), {
    message: /unsuitable certificate purpose|unsupported certificate purpose/,
  });
  t.throws(() => verify(manager, '-verify_hostname', 'inro-worker'), { message: /hostname mismatch/ });
  t.throws(() => verify(file('old.pem', cluster.expiredWorker().certPem)), {
    message: /certificate has expired/,
  });
  t.throws(() => verify(file('new.pem', cluster.futureWorker().certPem)), {
    message: /certificate is not yet valid/,
  });
  t.throws(() => verify(file('foreign.pem', fakeCluster().worker().certPem)), {
    message: /unable to get local issuer/,
  });
});

withOpenssl(`openssl shows the extensions that were meant${skipped}`, (t) => {
  const show = (pem: string): string =>
    execFileSync('openssl', ['x509', '-noout', '-text'], { input: pem, stdio: 'pipe' }).toString();
  const root = show(certPem);
  t.regex(root, /Basic Constraints: critical\s+CA:TRUE\n/);
  t.regex(root, /Key Usage: critical\s+Certificate Sign, CRL Sign\n/);
  const manager = show(authority.issueNode({ csr, nodeId, role: 'manager' }).pem);
  t.regex(manager, /Version: 3/);
  t.regex(manager, /Basic Constraints: critical\s+CA:FALSE\n/);
  t.regex(manager, /Key Usage: critical\s+Digital Signature\n/);
  t.regex(manager, /Extended Key Usage: \s+TLS Web Server Authentication, TLS Web Client Authentication\n/);
  const identifier = /Subject Key Identifier: \s+(.*)/.exec(root)?.[1] ?? 'none';
  t.true(new RegExp(`Authority Key Identifier: \\s+(keyid:)?${identifier}`).test(manager));
});
