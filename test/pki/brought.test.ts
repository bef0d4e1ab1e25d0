/** A CA that is brought along: what it signs passes openssl's strict check, and each fault of it is named. */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { generateNodeKey } from '../../src/crypto/signing.js';
import { InroError } from '../../src/model/error.js';
import { newId } from '../../src/model/id.js';
import { openAuthority } from '../../src/pki/authority.js';
import { readBrought } from '../../src/pki/brought.js';
import { readChain } from '../../src/pki/chain.js';
import { createCsr } from '../../src/pki/csr.js';
import { verifyNodeCertificate } from '../../src/pki/verify.js';
import { keys, opensslCa, opensslIntermediate, type OpensslCa } from '../support/openssl_ca.js';
import { findOpenssl } from './openssl.js';

const withOpenssl = findOpenssl() === undefined ? test.skip : test;
const dayMs = 86_400_000;
const clusterId = newId(randomBytes);
const nodeId = newId(randomBytes);
const clock = { now: () => Date.now() };

function authorityOf(given: OpensslCa) {
  const { certPem, keyPem } = readBrought(given, clock.now());
  return openAuthority(certPem, keyPem, { clusterId, clock, random: randomBytes });
}

for (const [kind, key] of Object.entries(keys)) {
  if (kind === 'rsa1024' || kind === 'p521') continue;
  withOpenssl(`what a ${kind} CA signs passes openssl, as root and as intermediate`, (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'inro-brought-'));
    t.teardown(() => rmSync(folder, { recursive: true, force: true }));
    const file = (name: string, content: string): string => {
      writeFileSync(join(folder, name), content);
      return join(folder, name);
    };
    const root = opensslCa(t, { name: '/CN=A Root', key });
    const below = opensslIntermediate(t, { root: key, below: key });
    const stranger = opensslIntermediate(t).intermediate.certPem;
    const rsaAbove = opensslIntermediate(t, { root: keys.rsa2048, below: key });
    for (const given of [root, below.intermediate, rsaAbove.intermediate]) {
      const authority = authorityOf(given);
      const { privateKey, publicKey } = generateNodeKey();
      for (const role of ['worker', 'manager'] as const) {
        const issued = authority.issueNode({ csr: createCsr(privateKey), nodeId, role });
        const rootPem = authority.root.pem;
        const whole = issued.pem + authority.intermediatesPem;
        const expected = { rootPem, clusterId, role, nodeId, publicKey, now: clock.now() };
        t.is(verifyNodeCertificate(whole, expected).clusterId, clusterId);
        const between = authority.intermediatesPem;
        const said = execFileSync('openssl', [
          'verify',
          '-x509_strict',
          '-purpose',
          role === 'manager' ? 'sslserver' : 'sslclient',
          '-CAfile',
          file('root.pem', rootPem),
          ...(between === '' ? [] : ['-untrusted', file('between.pem', between)]),
          file('leaf.pem', issued.pem),
        ]);
        t.regex(said.toString(), /OK/);
        if (between !== '') {
          t.throws(() => verifyNodeCertificate(issued.pem, expected), { message: /is not signed by/ });
          const swapped = issued.pem + readChain(stranger)[0].pem;
          t.throws(() => verifyNodeCertificate(swapped, expected), { message: /is not signed by/ });
        }
      }
    }
  });
}

withOpenssl('a node of the cluster is no CA: what its key signs below it is refused', (t) => {
  const { intermediate } = opensslIntermediate(t);
  const authority = authorityOf(intermediate);
  const key = generateNodeKey();
  const node = authority.issueNode({ csr: createCsr(key.privateKey), nodeId, role: 'worker' });
  const forged = opensslCa(t, {
    name: `/O=${clusterId}/OU=manager/CN=${newId(randomBytes)}`,
    by: { certPem: node.pem, keyPem: key.privatePem },
    extensions: ['basicConstraints=critical,CA:FALSE', 'keyUsage=critical,digitalSignature'],
  });
  const chain = forged.certPem + node.pem + authority.intermediatesPem;
  t.throws(() => verifyNodeCertificate(chain, { rootPem: authority.root.pem, now: clock.now() }), {
    message: /is not signed by/,
  });
});

withOpenssl('no certificate outlives the CA, nor whoever is above it', (t) => {
  const root = opensslCa(t, { name: '/CN=Short Root', days: 400 });
  const below = opensslCa(t, { name: '/CN=Long Below', by: root, days: 3000 });
  const authority = authorityOf({ ...below, certPem: below.certPem + root.certPem });
  const { privateKey } = generateNodeKey();
  const request = { csr: createCsr(privateKey), nodeId, role: 'worker' as const, lifetimeMs: 3000 * dayMs };
  t.is(authority.issueNode(request).notAfterMs, authority.root.notAfterMs);
});

const ca = ['basicConstraints=critical,CA:TRUE', 'keyUsage=critical,keyCertSign'];
type Make = (t: Parameters<typeof opensslCa>[0]) => OpensslCa;
const faults: Record<string, [make: Make, message: RegExp, remedy: RegExp]> = {
  'no CA': [
    (t) => opensslCa(t, { name: '/CN=Leaf', extensions: ['basicConstraints=critical,CA:FALSE'] }),
    /\(CN=Leaf, .* is not a CA certificate/,
    /root, or an intermediate/,
  ],
  'no keyCertSign': [
    (t) => opensslCa(t, { name: '/CN=X', extensions: [ca[0] as string, 'keyUsage=critical,cRLSign'] }),
    /may not sign certificates/,
    /keyCertSign/,
  ],
  'a small RSA key': [
    (t) => opensslCa(t, { name: '/CN=X', key: keys.rsa1024 }),
    /does not have a key of P-256, P-384, RSA with 2048 bits or more, or Ed25519/,
    /such a key/,
  ],
  'another curve': [(t) => opensslCa(t, { name: '/CN=X', key: keys.p521 }), /does not have a key of/, /such/],
  'an end within a year': [
    (t) => opensslCa(t, { name: '/CN=X', days: 364 }),
    /ends in less than a year/,
    /at least a year must be left/,
  ],
  'other purposes': [
    (t) => opensslCa(t, { name: '/CN=X', extensions: [...ca, 'extendedKeyUsage=serverAuth'] }),
    /does not allow both server and client authentication/,
    /without that extension/,
  ],
  'limited names': [
    (t) =>
      opensslCa(t, {
        name: '/CN=X',
        extensions: [...ca, 'nameConstraints=critical,permitted;DNS:example.com'],
      }),
    /limits the names below it/,
    /without that extension/,
  ],
  'a chain without its root': [
    (t) => {
      const root = opensslCa(t, { name: '/CN=Root' });
      return opensslCa(t, { name: '/CN=Below', by: root });
    },
    /ends with CN=Below, which is not a root/,
    /cat intermediate.crt root.crt/,
  ],
  'a chain in the wrong order': [
    (t) => {
      const { root, intermediate } = opensslIntermediate(t);
      const [below = ''] = intermediate.certPem.split(/(?<=-----END CERTIFICATE-----\n)/);
      return { certPem: root.certPem + below, keyPem: root.keyPem };
    },
    /which is not a root/,
    /append/,
  ],
  'a chain of strangers': [
    (t) => {
      const { intermediate } = opensslIntermediate(t);
      const [below = ''] = intermediate.certPem.split(/(?<=-----END CERTIFICATE-----\n)/);
      const other = opensslCa(t, { name: '/O=Example Corp/CN=Example Root' });
      return { certPem: below + other.certPem, keyPem: intermediate.keyPem };
    },
    /certificate 1 of 2 in the CA file is not signed by the one after it/,
    /in order/,
  ],
  'a path that is too long': [
    (t) => {
      const root = opensslCa(t, {
        name: '/CN=Root',
        extensions: [
          'basicConstraints=critical,CA:TRUE,pathlen:0',
          ca[1] as string,
          'subjectKeyIdentifier=hash',
        ],
      });
      const below = opensslCa(t, { name: '/CN=Below', by: root });
      return { ...below, certPem: below.certPem + root.certPem };
    },
    /certificate 2 of 2 in the CA file does not allow 1 CA below it/,
    /longer pathlen/,
  ],
  'the key of another': [
    (t) => ({ ...opensslCa(t, { name: '/CN=A' }), keyPem: opensslCa(t, { name: '/CN=B' }).keyPem }),
    /the CA key does not belong/,
    /first certificate/,
  ],
  'text around it': [
    (t) => {
      const { certPem, keyPem } = opensslCa(t, { name: '/CN=A' });
      return { certPem: `Certificate:\n${certPem}`, keyPem };
    },
    /not one PEM certificate/,
    /nothing else/,
  ],
};
for (const [name, [make, message, remedy]] of Object.entries(faults)) {
  withOpenssl(`a CA with ${name} is refused in words`, (t) => {
    const error = t.throws(() => readBrought(make(t), clock.now()), { instanceOf: InroError, message });
    t.is(error?.code, 'bad_certificate');
    t.regex(error?.remedy ?? '', remedy);
  });
}

withOpenssl('one that has expired, and one that has not begun, are refused in words', (t) => {
  const given = opensslCa(t, { name: '/CN=A', days: 400 });
  t.throws(() => readBrought(given, clock.now() + 401 * dayMs), { message: /has expired$/ });
  t.throws(() => readBrought(given, clock.now() - dayMs), { message: /is not valid yet$/ });
});

withOpenssl('an encrypted or damaged key is refused, and nothing of it is shown', (t) => {
  const { certPem, keyPem } = opensslCa(t, { name: '/CN=A' });
  for (const bad of ['', keyPem.slice(0, 100), keyPem.replace('PRIVATE', 'ENCRYPTED PRIVATE')]) {
    const error = t.throws(() => readBrought({ certPem, keyPem: bad }, clock.now()), {
      instanceOf: InroError,
    });
    t.is(error?.code, 'bad_input');
    t.false(`${error?.message} ${error?.remedy}`.includes('MIG'));
  }
});
