/** Keys and certificates, made once for all simulations of a process: they decide nothing, and cost the most. */
import { FakeClock } from '../support/fake_clock.js';
import { fakeCluster, type FakeIdentity } from '../support/fake_authority.js';
import { openArena } from '../../src/crypto/arena.js';
import { drawExchangeKey, drawKey } from '../../src/crypto/exchange.js';
import { readPrivateKey } from '../../src/crypto/signing.js';
import type { Identity } from '../../src/agent/identity.js';
import { createKeyring } from '../../src/manager/keyring.js';
import { readCertificate } from '../../src/pki/certificate.js';
import { sealingNameOf } from '../../src/pki/sealing_name.js';

const nowMs = new FakeClock().now();
export const clusterId = 'simulated0000000000000000';
const cluster = fakeCluster({ now: nowMs, clusterId });
export const { rootPem, rootKeyPem } = cluster;
/** For managers and operators. */
export const keyArena = openArena(8 << 20);
const sealing = drawExchangeKey(keyArena);
export const keyring = createKeyring(keyArena, sealing, { present: drawKey(keyArena) });
const { certPem } = cluster.manager({ sealingName: sealingNameOf(clusterId, sealing.publicKey) });
export const sealingKey = { clusterId, publicKey: sealing.publicKey, certificatePem: certPem };

const identities: Identity[] = [];

/** Of the nth node that ever joins. */
export function identityOf(n: number): Identity {
  while (identities.length <= n) {
    const nodeId = `node${String(identities.length).padStart(21, '0')}`;
    identities.push(asIdentity(cluster.worker({ nodeId })));
  }
  return identities[n] as Identity;
}

function asIdentity({ nodeId, certPem: certificatePem, keyPem }: FakeIdentity): Identity {
  const certificate = readCertificate(certificatePem);
  const key = readPrivateKey(keyPem);
  return { nodeId, clusterId, certificate, key, rootPem, certificatePem, keyPem, managers: ['manager'] };
}
