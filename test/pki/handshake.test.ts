/** Issued certificates in a real TLS 1.3 handshake on loopback, both sides proving themselves. */
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { connect, createServer, type TLSSocket } from 'node:tls';
import test, { type ExecutionContext } from 'ava';
import { verifyNodeCertificate } from '../../src/pki/verify.js';
import { fakeCluster, type FakeIdentity } from '../support/fake_authority.js';

const cluster = fakeCluster();

interface Side {
  identity?: FakeIdentity;
  rootPem?: string;
  servername?: string;
}

/**
 * One handshake, with the manager's rule: certificates are verified if given.
 * @returns what the server saw of the client, or why one side did not believe the other.
 */
async function shake(
  t: ExecutionContext,
  server: Side,
  client: Side,
): Promise<{ protocol: string | null; peer: Uint8Array } | Error> {
  const options = ({ identity, rootPem = cluster.rootPem }: Side) => ({
    ca: [rootPem],
    minVersion: 'TLSv1.3' as const,
    ...(identity === undefined ? {} : { cert: identity.certPem, key: identity.keyPem }),
  });
  const listener = createServer({ ...options(server), requestCert: true, rejectUnauthorized: false });
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const { port } = listener.address() as AddressInfo;
  const socket = connect({
    ...options(client),
    port,
    host: '127.0.0.1',
    servername: client.servername ?? 'inro-manager',
  });
  t.teardown(() => {
    socket.destroy();
    listener.close();
  });
  return new Promise((resolve) => {
    listener.on('tlsClientError', resolve);
    socket.on('error', resolve);
    listener.on('secureConnection', (peer: TLSSocket) => {
      peer.on('error', () => {});
      const { raw } = peer.getPeerCertificate() as { raw?: Uint8Array };
      peer.end('done');
      if (raw === undefined) return resolve(new Error('no certificate'));
      if (!peer.authorized) return resolve(new Error(String(peer.authorizationError)));
      socket.on('data', () => resolve({ protocol: peer.getProtocol(), peer: raw }));
    });
  });
}

test('worker and manager prove themselves to each other, wherever the manager listens', async (t) => {
  const worker = cluster.worker();
  const met = await shake(t, { identity: cluster.manager() }, { identity: worker });
  if (met instanceof Error) return t.fail(met.message);
  t.is(met.protocol, 'TLSv1.3');
  const proved = verifyNodeCertificate(met.peer, {
    rootPem: cluster.rootPem,
    role: 'worker',
    now: Date.now(),
  });
  t.is(proved.nodeId, worker.nodeId);
});

test('managers reach each other, and a manager may be asked for by its id', async (t) => {
  const identity = cluster.manager();
  t.false(
    (await shake(t, { identity }, { identity: cluster.manager(), servername: identity.nodeId })) instanceof
      Error,
  );
});

const refused: [name: string, server: Side, client: Side, error: RegExp][] = [
  [
    'a worker as server',
    { identity: cluster.worker() },
    { identity: cluster.worker() },
    /unsuitable certificate purpose|unsupported certificate purpose/,
  ],
  [
    "a manager under a worker's name",
    { identity: cluster.manager() },
    { identity: cluster.worker(), servername: 'inro-worker' },
    /altnames/,
  ],
  ['a client without certificate', { identity: cluster.manager() }, {}, /^no certificate$/],
  [
    'an expired worker',
    { identity: cluster.manager() },
    { identity: cluster.expiredWorker() },
    /^CERT_HAS_EXPIRED$/,
  ],
  [
    'a worker of the future',
    { identity: cluster.manager() },
    { identity: cluster.futureWorker() },
    /^CERT_NOT_YET_VALID$/,
  ],
  [
    'a worker of another cluster',
    { identity: cluster.manager() },
    { identity: fakeCluster().worker() },
    /^UNABLE_TO_/,
  ],
  [
    'a manager of another cluster',
    { identity: fakeCluster().manager() },
    { identity: cluster.worker() },
    /^unable to verify/,
  ],
  [
    'a worker of a cluster that took our id',
    { identity: cluster.manager() },
    { identity: fakeCluster({ clusterId: cluster.clusterId }).worker() },
    /^UNABLE_TO_|^CERT_SIGNATURE_FAILURE$/,
  ],
];

for (const [name, server, client, error] of refused) {
  test(`TLS refuses ${name}`, async (t) => {
    const met = await shake(t, server, client);
    t.true(met instanceof Error, 'the handshake went through');
    if (met instanceof Error) t.regex(met.message, error);
  });
}
