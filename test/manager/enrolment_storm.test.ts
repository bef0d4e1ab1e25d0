/** Racks are switched on: their hosts enrol at once, each on a connection of its own, against a real manager. */
import test from 'ava';
import { generateNodeKey } from '../../src/crypto/signing.js';
import { asInroError } from '../../src/model/error.js';
import { createCsr } from '../../src/pki/csr.js';
import { verifyNodeCertificate } from '../../src/pki/verify.js';
import { Enrollment, type IssueCertificateResponse } from '../../src/proto/gen/inro/v1/enrollment_pb.js';
import { call } from '../../src/rpc/client.js';
import { realManager } from '../support/real_manager.js';

const hosts = 500;
const uses = 490;

test('500 hosts at once: each is enrolled once, and a token lets in as many as it says', async (t) => {
  t.timeout(300_000);
  const m = await realManager(t);
  const { token } = await m.operate('createJoinToken', {
    role: 'worker',
    uses,
    ttlMs: 3_600_000n,
    nodeLabels: { rack: '7' },
  });
  // Hosts and manager share a process: a host that is not answered in time asks again, with the key that it has.
  const enrol = async (csrPem: string): Promise<IssueCertificateResponse> => {
    for (;;) {
      const connection = m.connect();
      try {
        return await call(connection, Enrollment, 'issueCertificate', { csrPem, token });
      } catch (error) {
        if (asInroError(error).code !== 'unreachable') throw error;
      } finally {
        connection.close();
      }
    }
  };
  const keys = Array.from({ length: hosts }, () => generateNodeKey());
  const outcomes = await Promise.allSettled(keys.map(({ privateKey }) => enrol(createCsr(privateKey))));

  const refused = outcomes.flatMap((one) => (one.status === 'rejected' ? [one.reason as Error] : []));
  t.is(refused.length, hosts - uses);
  for (const error of refused) t.like(error, { code: 'bad_token' });
  const ids: string[] = [];
  for (const [n, one] of outcomes.entries()) {
    if (one.status !== 'fulfilled') continue;
    const { nodeId, certificatePem } = one.value;
    const { publicKey } = keys[n] as (typeof keys)[0];
    const expected = { rootPem: m.rootPem, nodeId, role: 'worker', publicKey, now: m.clock.now() } as const;
    t.notThrows(() => verifyNodeCertificate(certificatePem, expected));
    ids.push(nodeId);
  }
  t.is(new Set(ids).size, uses);
  const { nodes } = await m.operate('listNodes', {});
  t.deepEqual(nodes.map(({ id }) => id).sort(), ids.sort());
  t.true(nodes.every(({ labels }) => labels['rack'] === '7'));
});
