import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import test from 'ava';
import fc from 'fast-check';
import { generateNodeKey, publicKeyOf, readPrivateKey, spkiOf } from '../../src/crypto/signing.js';
import { InroError } from '../../src/model/error.js';
import { newId } from '../../src/model/id.js';
import { readCertificate, type Certificate } from '../../src/pki/certificate.js';
import type { Der } from '../../src/pki/der.js';
import {
  authorityKeyIdentifier,
  basicConstraints,
  extendedKeyUsage,
  keyUsage,
  subjectAltNames,
} from '../../src/pki/extension.js';
import { issueCertificate, newSerial, type Name } from '../../src/pki/issue.js';
import { toPem } from '../../src/pki/pem.js';
import { readRoot } from '../../src/pki/root.js';
import { verifyNodeCertificate, type Expected } from '../../src/pki/verify.js';
import { fakeCluster } from '../support/fake_authority.js';
import { findOpenssl } from './openssl.js';

const dayMs = 86_400_000;
const now = Date.UTC(2026, 5, 1, 12, 0, 0);
const cluster = fakeCluster({ now });
const other = fakeCluster({ now });
const worker = cluster.worker();
const manager = cluster.manager();
const expected: Expected = { rootPem: cluster.rootPem, now };

test('a certificate of the cluster is believed, from PEM and from DER, whatever is asked truly', (t) => {
  const publicKey = publicKeyOf(readPrivateKey(worker.keyPem));
  const all: Expected = {
    ...expected,
    clusterId: cluster.clusterId,
    role: 'worker',
    nodeId: worker.nodeId,
    publicKey,
  };
  t.is(verifyNodeCertificate(worker.certPem, all).nodeId, worker.nodeId);
  t.is(verifyNodeCertificate(readCertificate(worker.certPem).der, all).role, 'worker');
  t.is(verifyNodeCertificate(manager.certPem, { ...expected, role: 'manager' }).clusterId, cluster.clusterId);
});

test('it is valid from its first to its last second, both included', (t) => {
  const { notBeforeMs, notAfterMs } = readCertificate(worker.certPem);
  const at = (ms: number) => () => verifyNodeCertificate(worker.certPem, { ...expected, now: ms });
  t.notThrows(at(notBeforeMs));
  t.notThrows(at(notAfterMs));
  t.throws(at(notBeforeMs - 1), { message: /is not valid before/ });
  t.throws(at(notAfterMs + 1), { message: /expired at/ });
});

/** A certificate with the cluster's own signature that its authority would never write. */
function odd(change: { subject?: Name; issuer?: Name; extensions?: Der[]; spki?: Uint8Array }): string {
  const nodeId = newId(randomBytes);
  const content = {
    subject: { O: cluster.clusterId, OU: 'worker', CN: nodeId },
    issuer: { O: cluster.clusterId, CN: 'inro-ca' },
    serial: newSerial(randomBytes),
    notBeforeMs: now - dayMs,
    notAfterMs: now + dayMs,
    spki: spkiOf(generateNodeKey().publicKey),
    extensions: [
      basicConstraints(false),
      extendedKeyUsage('clientAuth'),
      subjectAltNames('inro-worker', nodeId),
    ],
    ...change,
  };
  content.extensions.push(authorityKeyIdentifier(spkiOf(cluster.authority.root.publicKey)));
  return toPem('CERTIFICATE', issueCertificate(content, readPrivateKey(cluster.rootKeyPem)));
}

/** Same names as the cluster's, another key: what an attacker, or a cluster made anew from a script, has. */
const twin = fakeCluster({ now, clusterId: cluster.clusterId });
const id = newId(randomBytes);
const names = { O: cluster.clusterId, OU: 'worker', CN: id };

interface Case {
  name: string;
  given: string;
  with?: Partial<Expected>;
  code?: 'foreign_cluster';
  message: RegExp | string;
  remedy: RegExp;
}

const wrong: Case[] = [
  {
    name: 'issued by another cluster',
    given: other.worker({ nodeId: id }).certPem,
    code: 'foreign_cluster',
    message: `the certificate of node ${id} is of cluster ${other.clusterId}, not of cluster ${cluster.clusterId}`,
    remedy: /join token of cluster/,
  },
  {
    name: 'of another cluster than expected',
    given: worker.certPem,
    with: { clusterId: other.clusterId },
    code: 'foreign_cluster',
    message: new RegExp(`is of cluster ${cluster.clusterId}, not of cluster ${other.clusterId}`),
    remedy: /join token of cluster/,
  },
  {
    name: 'signed by us, but for another cluster',
    given: odd({ subject: { ...names, O: other.clusterId } }),
    with: { clusterId: cluster.clusterId },
    code: 'foreign_cluster',
    message: /is of cluster/,
    remedy: /join token of cluster/,
  },
  {
    name: 'right names, wrong root key',
    given: twin.worker({ nodeId: id }).certPem,
    message: `the certificate of node ${id} is not signed by the root of cluster ${cluster.clusterId}`,
    remedy: /join the node again/,
  },
  {
    name: 'a root of the right name as node certificate',
    given: twin.rootPem,
    message: `the certificate is not signed by the root of cluster ${cluster.clusterId}`,
    remedy: /join the node again/,
  },
  {
    name: 'our signature under the name of another issuer',
    given: odd({ subject: names, issuer: { O: cluster.clusterId, CN: 'another-ca' } }),
    message: `the certificate of node ${id} is not signed by the root of cluster ${cluster.clusterId}`,
    remedy: /join the node again/,
  },
  {
    name: 'our own root as node certificate',
    given: cluster.rootPem,
    message: 'a CA certificate was given as a node certificate',
    remedy: /not the cluster's root/,
  },
  {
    name: 'an intermediate authority that we signed',
    given: odd({ extensions: [basicConstraints(true), keyUsage('keyCertSign')] }),
    message: 'a CA certificate was given as a node certificate',
    remedy: /not the cluster's root/,
  },
  {
    name: 'a node certificate as root',
    given: worker.certPem,
    with: { rootPem: manager.certPem },
    message: 'the root certificate is not a CA certificate',
    remedy: /root certificate/,
  },
  {
    name: 'expired',
    given: cluster.expiredWorker({ nodeId: id }).certPem,
    message: `the certificate of node ${id} expired at 2026-05-22T12:00:00.000Z; it is now 2026-06-01T12:00:00.000Z`,
    remedy: /join again with a fresh token/,
  },
  {
    name: 'not yet valid',
    given: cluster.futureWorker({ nodeId: id }).certPem,
    message: `the certificate of node ${id} is not valid before 2026-06-02T11:00:00.000Z; it is now 2026-06-01T12:00:00.000Z`,
    remedy: /clock.*timedatectl/,
  },
  {
    name: 'root not yet valid',
    given: worker.certPem,
    with: { now: 0 },
    message: /^the root certificate is not valid before/,
    remedy: /clock/,
  },
  {
    name: 'root expired',
    given: worker.certPem,
    with: { now: now + 20 * 365 * dayMs },
    message: /^the root certificate expired at/,
    remedy: /new root/,
  },
  {
    name: 'a worker where a manager is wanted',
    given: worker.certPem,
    with: { role: 'manager' },
    message: `the certificate of node ${worker.nodeId} is for a worker, not for a manager`,
    remedy: /certificate of a manager/,
  },
  {
    name: 'a manager where a worker is wanted',
    given: manager.certPem,
    with: { role: 'worker' },
    message: `the certificate of node ${manager.nodeId} is for a manager, not for a worker`,
    remedy: /certificate of a worker/,
  },
  {
    name: 'another node',
    given: worker.certPem,
    with: { nodeId: manager.nodeId },
    message: `the certificate is for node ${worker.nodeId}, not for node ${manager.nodeId}`,
    remedy: /issued to this node/,
  },
  {
    name: 'another key',
    given: worker.certPem,
    with: { publicKey: generateNodeKey().publicKey },
    message: `the certificate of node ${worker.nodeId} is for another key`,
    remedy: /same join or renewal/,
  },
  {
    name: 'no role',
    given: odd({ subject: { O: cluster.clusterId, CN: id } }),
    message: /subject has no OU$/,
    remedy: /manager issued/,
  },
  {
    name: 'no cluster',
    given: odd({ subject: { CN: id, OU: 'worker' } }),
    message: /subject has no O$/,
    remedy: /manager issued/,
  },
  { name: 'no subject', given: odd({ subject: {} }), message: /subject has no O$/, remedy: /manager issued/ },
  {
    name: 'a role that is none',
    given: odd({ subject: { ...names, OU: 'root' } }),
    message: /role \(OU\) is not one/,
    remedy: /manager issued/,
  },
  {
    name: 'a node id that is none',
    given: odd({ subject: { ...names, CN: 'x' } }),
    message: /node id \(CN\) is not an id$/,
    remedy: /manager issued/,
  },
  {
    name: 'a node id with a role smuggled in by a new line',
    given: odd({ subject: { O: cluster.clusterId, CN: `${id}\nOU=manager` } }),
    message: /subject has no OU$/,
    remedy: /manager issued/,
  },
  {
    name: 'a worker good for a server',
    given: odd({
      subject: names,
      extensions: [extendedKeyUsage('clientAuth', 'serverAuth'), subjectAltNames('inro-worker', id)],
    }),
    message: /names or purposes that do not fit its role worker$/,
    remedy: /join the node again/,
  },
  {
    name: 'a worker named as a manager',
    given: odd({
      subject: names,
      extensions: [extendedKeyUsage('clientAuth'), subjectAltNames('inro-manager', id)],
    }),
    message: /names or purposes that do not fit its role worker$/,
    remedy: /join the node again/,
  },
  {
    name: 'no extensions',
    given: odd({ subject: names, extensions: [] }),
    message: /names or purposes/,
    remedy: /join the node again/,
  },
];

for (const { name, given, with: more, code, message, remedy } of wrong) {
  test(`refused with words: ${name}`, (t) => {
    const error = t.throws(() => verifyNodeCertificate(given, { ...expected, ...more }), {
      instanceOf: InroError,
      message,
    });
    t.is(error?.code, code ?? 'bad_certificate');
    t.regex(error?.remedy ?? '', remedy);
  });
}

test('a certificate in other forms is refused', (t) => {
  const { der } = readCertificate(worker.certPem);
  const hidden = Buffer.concat([Buffer.from('0'), Buffer.from(`\n${manager.certPem}`)]);
  const table: [string | Uint8Array, RegExp][] = [
    ['', /not one PEM certificate/],
    [`${worker.certPem}${manager.certPem}`, /not one PEM certificate/],
    [`# mine\n${worker.certPem}`, /not one PEM certificate/],
    [Buffer.concat([der, Buffer.from([0])]), /has other bytes around it|not a certificate/],
    [Buffer.from(worker.certPem), /has other bytes around it/],
    [hidden, /has other bytes around it/],
    [new Uint8Array(), /not one PEM certificate/],
    [new Uint8Array(16 * 1024 + 1), /a certificate of 16385 bytes is longer than 16384/],
  ];
  for (const [given, message] of table) {
    t.is(t.throws(() => readCertificate(given), { instanceOf: InroError, message })?.code, 'bad_certificate');
  }
});

test('a root must sign itself and be an authority, whatever its name is', (t) => {
  t.is(readRoot(cluster.rootPem).clusterId, cluster.clusterId);
  t.throws(() => readRoot(worker.certPem), {
    instanceOf: InroError,
    message: 'the root certificate is not a CA certificate',
  });
  const unnamed = odd({ subject: names, extensions: [basicConstraints(true), keyUsage('keyCertSign')] });
  t.throws(() => readRoot(unnamed), {
    instanceOf: InroError,
    message: 'the root certificate is not signed by itself',
  });
  const crossed = odd({
    subject: { O: cluster.clusterId, CN: 'inro-ca' },
    extensions: [basicConstraints(true), keyUsage('keyCertSign')],
  });
  const renamed = odd({
    subject: { O: cluster.clusterId, CN: 'inro-ca' },
    issuer: { CN: 'another-ca' },
    extensions: [basicConstraints(true), keyUsage('keyCertSign')],
    spki: spkiOf(cluster.authority.root.publicKey),
  });
  t.throws(() => readRoot(renamed), {
    instanceOf: InroError,
    message: 'the root certificate is not signed by itself',
  });
  t.throws(() => readRoot(crossed), {
    instanceOf: InroError,
    message: 'the root certificate is not signed by itself',
  });
});

const openssl = findOpenssl();
const withOpenssl = openssl === undefined ? test.skip : test;
const skipped = openssl === undefined ? ' (no openssl program on this host)' : '';

/** A self-signed certificate as a stranger makes one. */
function strangersCertificate(subject: string, newKey: string[]): string {
  const options = ['req', '-x509', '-nodes', '-keyout', '/dev/null', '-subj', subject, '-newkey', ...newKey];
  return execFileSync('openssl', options, { stdio: 'pipe' }).toString();
}

withOpenssl(`getters refuse subjects and keys that are not ours${skipped}`, (t) => {
  const p256 = ['ec', '-pkeyopt', 'ec_paramgen_curve:P-256'];
  const doubled = readCertificate(
    strangersCertificate(`/O=${id}/CN=${id}/CN=${newId(randomBytes)}/OU=worker/OU=manager`, p256),
  );
  t.throws(() => doubled.nodeId, {
    instanceOf: InroError,
    message: /subject has 2 CN parts instead of one$/,
  });
  t.throws(() => doubled.role, { instanceOf: InroError, message: /subject has 2 OU parts instead of one$/ });
  t.is(doubled.clusterId, id);
  const joined = readCertificate(strangersCertificate(`/O=${id}/CN=${id}+OU=manager`, p256));
  t.throws(() => joined.nodeId, { instanceOf: InroError });
  t.throws(() => joined.role, { instanceOf: InroError });
  for (const newKey of [['rsa:2048'], ['ed25519'], ['ec', '-pkeyopt', 'ec_paramgen_curve:P-384']]) {
    const other = readCertificate(strangersCertificate('/CN=any', newKey));
    t.throws(
      () => other.publicKey,
      { instanceOf: InroError, message: /public key is not P-256$/ },
      newKey.join(' '),
    );
    t.throws(() => verifyNodeCertificate(other.der, expected), {
      instanceOf: InroError,
      message: /is not signed by the root/,
    });
  }
});

/** Everything that reads a stranger's certificate gives an answer or an InroError. */
function isHandled(given: string | Uint8Array): 'believed' | 'refused' | 'thrown' {
  try {
    verifyNodeCertificate(given, expected);
    return 'believed';
  } catch (error) {
    return error instanceof InroError && ['bad_certificate', 'foreign_cluster'].includes(error.code)
      ? 'refused'
      : 'thrown';
  }
}

test('every bit flip of a certificate is refused', (t) => {
  const { der } = readCertificate(worker.certPem);
  for (let bit = 0; bit < der.length * 8; bit++) {
    const flipped = Uint8Array.from(der);
    flipped[bit >> 3] = (flipped[bit >> 3] as number) ^ (1 << (bit & 7));
    t.is(isHandled(flipped), 'refused', `bit ${bit}`);
  }
});

test('no damage makes a getter throw anything but InroError', (t) => {
  const { der } = readCertificate(manager.certPem);
  const getters = [
    'nodeId',
    'role',
    'clusterId',
    'serial',
    'notBeforeMs',
    'notAfterMs',
    'publicKey',
    'altNames',
    'purposes',
    'isAuthority',
    'label',
    'issuerClusterId',
    'pem',
  ] as const;
  for (let bit = 0; bit < der.length * 8; bit++) {
    const flipped = Uint8Array.from(der);
    flipped[bit >> 3] = (flipped[bit >> 3] as number) ^ (1 << (bit & 7));
    let certificate: Certificate | undefined;
    for (const getter of getters) {
      try {
        certificate ??= readCertificate(flipped);
        void certificate[getter];
      } catch (error) {
        if (!(error instanceof InroError)) t.fail(`bit ${bit}, ${getter}: ${String(error)}`);
      }
    }
  }
  t.pass();
});

test('garbage is an InroError, soon', (t) => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 1000 }), (bytes) => isHandled(bytes) === 'refused'));
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 400 }),
      (bytes) => isHandled(toPem('CERTIFICATE', bytes)) === 'refused',
    ),
  );
  fc.assert(fc.property(fc.string({ unit: 'binary' }), (text) => isHandled(text) === 'refused'));
  for (const byte of [0x30, 0x80, 0xa0, 0xff, 0x00])
    t.is(isHandled(new Uint8Array(16 * 1024).fill(byte)), 'refused');
  t.is(isHandled(Buffer.from('3080'.repeat(4096), 'hex')), 'refused');
});
