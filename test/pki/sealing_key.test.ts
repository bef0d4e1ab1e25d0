import test from 'ava';
import { randomBytes } from 'node:crypto';
import { generateNodeKey, signBytes } from '../../src/crypto/signing.js';
import { sealingKeyStatement } from '../../src/crypto/statement.js';
import { newId } from '../../src/model/id.js';
import { checkedSealingKey } from '../../src/pki/sealing_key.js';
import { isSealingName, sealingNameOf } from '../../src/pki/sealing_name.js';
import { verifyNodeCertificate } from '../../src/pki/verify.js';
import { fakeCluster } from '../support/fake_authority.js';
import { refuses } from '../support/refuses.js';

const cluster = fakeCluster();
const { clusterId, rootPem, now } = cluster;
const publicKey = randomBytes(32);
const sealingName = sealingNameOf(clusterId, publicKey);
const expected = { rootPem, clusterId, now };

test("a manager's certificate vouches for the key that it names", (t) => {
  const { certPem } = cluster.manager({ sealingName });
  t.deepEqual(checkedSealingKey({ publicKey, certificatePem: certPem }, expected), publicKey);
  t.is(verifyNodeCertificate(certPem, { rootPem, now, role: 'manager' }).sealingName, sealingName);
  t.is(verifyNodeCertificate(cluster.manager().certPem, { rootPem, now }).sealingName, undefined);
});

test('for no other key, for no other cluster, and not without the name', (t) => {
  const check = (certificatePem: string, key: Uint8Array = publicKey) =>
    refuses(
      t,
      () => checkedSealingKey({ publicKey: key, certificatePem }, expected),
      'unauthenticated',
      /is not the one/,
    );
  const { certPem } = cluster.manager({ sealingName });
  check(certPem, randomBytes(32));
  check(certPem, publicKey.subarray(1));
  check(cluster.manager().certPem);
  const elsewhere = sealingNameOf(newId(randomBytes), publicKey);
  check(cluster.manager({ sealingName: elsewhere }).certPem);
});

test('nobody but a manager of the cluster vouches, and only in his time', (t) => {
  const check = (certificatePem: string) =>
    refuses(
      t,
      () => checkedSealingKey({ publicKey, certificatePem }, expected),
      'unauthenticated',
      /does not come with a certificate of this cluster/,
    );
  check('');
  check('x');
  check(cluster.worker().certPem);
  refuses(t, () => cluster.worker({ sealingName }), 'bad_certificate', /names or purposes/);
  check(fakeCluster({ clusterId }).manager({ sealingName }).certPem);
  const day = 24 * 60 * 60 * 1000;
  check(cluster.manager({ sealingName, issuedInMs: -100 * day }).certPem);
});

test('a signature of the manager, or of who ends TLS with its key, is worth nothing', (t) => {
  const { certPem } = cluster.manager();
  const { privateKey } = generateNodeKey();
  const signature = signBytes(privateKey, sealingKeyStatement(clusterId, publicKey));
  t.throws(() => checkedSealingKey({ publicKey, certificatePem: certPem, signature } as never, expected), {
    message: /is not the one/,
  });
});

test('the name is that of the key and of the cluster, and a DNS label', (t) => {
  t.is(
    sealingNameOf('a'.repeat(25), new Uint8Array(32)),
    'sealing-1xwptn0828nj8wpzp1dv0g9lq0eb2g1hgso4r1s5miy4nt0siq',
  );
  for (let i = 0; i < 1000; i++) {
    const name = sealingNameOf(clusterId, randomBytes(32));
    t.true(isSealingName(name) && name.length <= 63, name);
  }
  for (const wrong of [
    '',
    'sealing-',
    `sealing-${'A'.repeat(50)}`,
    `${sealingName}0`,
    `x${sealingName.slice(1)}`,
  ])
    t.false(isSealingName(wrong), wrong);
});
