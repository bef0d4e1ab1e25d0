/** What inro issues and asks for, read and verified by another implementation: @peculiar/x509, on WebCrypto, knows nothing of OpenSSL. */
import { randomBytes } from 'node:crypto';
// oxlint-disable-next-line import/no-unassigned-import -- @peculiar/x509 needs it, before itself
import 'reflect-metadata';
import * as x509 from '@peculiar/x509';
import test, { type ExecutionContext } from 'ava';
import { generateNodeKey } from '../../src/crypto/signing.js';
import { newId } from '../../src/model/id.js';
import { createAuthority, openAuthority, type Authority } from '../../src/pki/authority.js';
import { readBrought } from '../../src/pki/brought.js';
import { readChain } from '../../src/pki/chain.js';
import { createCsr } from '../../src/pki/csr.js';
import { readRoot } from '../../src/pki/root.js';
import { roles, type Role } from '../../src/pki/role.js';
import { keys, opensslIntermediate } from '../support/openssl_ca.js';
import { findOpenssl } from './openssl.js';

const clusterId = newId(randomBytes);
const nodeId = newId(randomBytes);
const clock = { now: () => Date.now() };
const surroundings = { clusterId, clock, random: randomBytes };

/** Its own view of each part, and the chain that it builds itself. */
async function believes(
  t: ExecutionContext,
  authority: Authority,
  role: Role,
  rootPem: string,
): Promise<void> {
  const { privateKey } = generateNodeKey();
  const issued = authority.issueNode({ csr: createCsr(privateKey), nodeId, role });
  const leaf = new x509.X509Certificate(issued.pem);
  t.is(leaf.subject, `O=${clusterId}, OU=${role}, CN=${nodeId}`);
  t.is(leaf.serialNumber, issued.serial);
  t.is(leaf.notAfter.getTime(), issued.notAfterMs);
  t.is(leaf.notBefore.getTime(), issued.notBeforeMs);
  t.false(leaf.getExtension(x509.BasicConstraintsExtension)?.ca);
  t.is(leaf.getExtension(x509.KeyUsagesExtension)?.usages, x509.KeyUsageFlags.digitalSignature);
  const names = leaf
    .getExtension(x509.SubjectAlternativeNameExtension)
    ?.names.items.map(({ value }) => value);
  t.deepEqual(names, [`inro-${role}`, nodeId]);
  const purposes = [...(leaf.getExtension(x509.ExtendedKeyUsageExtension)?.usages ?? [])].map(String);
  t.deepEqual(
    purposes,
    role === 'manager' ? ['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2'] : ['1.3.6.1.5.5.7.3.2'],
  );

  const { intermediatesPem } = authority;
  const trusted = readRoot(rootPem);
  const sent = intermediatesPem === '' ? [] : readChain(intermediatesPem);
  // Its builder has no trust, and would take what vouches for the root instead of the root.
  const others = [...sent.filter((one) => !one.x509.publicKey.equals(trusted.x509.publicKey)), trusted];
  const certificates = others.map(({ pem }) => new x509.X509Certificate(pem));
  const chain = await new x509.X509ChainBuilder({ certificates }).build(leaf);
  const root = new x509.X509Certificate(rootPem);
  t.true(chain.at(-1)?.equal(root), `a chain of ${chain.length} up to the root`);
  for (const [at, certificate] of chain.entries()) {
    const issuer = chain[at + 1] ?? certificate;
    t.true(await certificate.verify({ publicKey: issuer.publicKey, date: new Date() }), certificate.subject);
  }
}

test('a request proves its key', async (t) => {
  const { privateKey, publicKey } = generateNodeKey();
  const request = new x509.Pkcs10CertificateRequest(createCsr(privateKey));
  t.true(await request.verify());
  const spki = publicKey.export({ type: 'spki', format: 'der' });
  t.deepEqual(Buffer.from(request.publicKey.rawData), spki);
  const bytes = Buffer.from(request.rawData);
  bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
  t.false(await new x509.Pkcs10CertificateRequest(bytes).verify());
});

for (const role of roles) {
  test(`${role}: a certificate below a root that inro made`, async (t) => {
    const { certPem, keyPem } = createAuthority(surroundings);
    await believes(t, openAuthority(certPem, keyPem, surroundings), role, certPem);
  });
}

test('below another root, for who trusts that, and for who trusts the one before', async (t) => {
  const first = createAuthority(surroundings);
  const next = createAuthority({ ...surroundings, isNext: true });
  const crossPem = openAuthority(first.certPem, first.keyPem, surroundings).crossSign(
    readRoot(next.certPem),
  ).pem;
  const authority = openAuthority(next.certPem, next.keyPem, { ...surroundings, crossPem });
  for (const rootPem of [first.certPem, next.certPem]) await believes(t, authority, 'worker', rootPem);
});

const withOpenssl = findOpenssl() === undefined ? test.skip : test;
for (const [kind, key] of Object.entries({ p256: keys.p256, p384: keys.p384, rsa2048: keys.rsa2048 })) {
  withOpenssl(`below an intermediate that was brought along, ${kind}`, async (t) => {
    const { intermediate, root } = opensslIntermediate(t, { root: key, below: key });
    const { certPem, keyPem } = readBrought(intermediate, Date.now() + 1_000);
    await believes(t, openAuthority(certPem, keyPem, surroundings), 'manager', root.certPem);
  });
}
