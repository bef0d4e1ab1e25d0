/** What answers as cfssl does, and signs with a CA of the test; it can be told to misbehave. Over real TLS, on loopback. */
import { once } from 'node:events';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { randomBytes } from 'node:crypto';
import type { ExecutionContext } from 'ava';
import { openAuthority } from '../../src/pki/authority.js';
import type { Role } from '../../src/pki/role.js';
import { opensslCa, type OpensslCa } from './openssl_ca.js';

interface Asked {
  certificate_request: string;
  hosts: string[];
  subject: { CN: string; names: { O: string; OU: string }[] };
  profile: string;
}

export interface Misbehaviour {
  /** Instead of signing: the answer's status and text. */
  answer?: (asked: Asked) => { status: number; text: string };
  /** Another CA signs. */
  by?: OpensslCa;
  /** What it signs instead of what it was asked for. */
  change?: (asked: Asked) => Asked;
  lifetimeMs?: number;
  /** Never answers. */
  hangs?: boolean;
}

export interface FakeCfssl {
  url: string;
  asked: Asked[];
  behave: Misbehaviour;
  /** Ports are kept, so that it can be started again. */
  stop(): Promise<void>;
  start(): Promise<void>;
}

/** @param ca who signs, and whose root has signed the server's own certificate. */
export async function fakeCfssl(
  t: ExecutionContext,
  ca: OpensslCa,
  { wantsClient = '', clock = () => Date.now() }: { wantsClient?: string; clock?: () => number } = {},
): Promise<FakeCfssl> {
  const own = opensslCa(t, {
    name: '/CN=cfssl',
    by: ca,
    extensions: [
      'basicConstraints=critical,CA:FALSE',
      'keyUsage=critical,digitalSignature',
      'extendedKeyUsage=serverAuth',
      'subjectAltName=IP:127.0.0.1',
    ],
  });
  const sockets = new Set<Duplex>();
  const fake: FakeCfssl = { url: '', asked: [], behave: {}, stop, start };
  const server = createServer(
    {
      key: own.keyPem,
      cert: own.certPem + ca.certPem,
      ...(wantsClient === '' ? {} : { requestCert: true, rejectUnauthorized: true, ca: wantsClient }),
    },
    (request, response) => {
      const chunks: Buffer[] = [];
      request.on('data', (chunk: Buffer) => chunks.push(chunk));
      request.on('end', () => {
        const asked = JSON.parse(Buffer.concat(chunks).toString()) as Asked;
        fake.asked.push(asked);
        if (fake.behave.hangs === true) return;
        const { status, text } =
          request.url === '/api/v1/cfssl/sign' ? signed(asked) : { status: 404, text: '' };
        response.writeHead(status).end(text);
      });
    },
  );
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  server.on('tlsClientError', () => undefined);

  function signed(asked: Asked): { status: number; text: string } {
    const { answer, by = ca, change = (same) => same, lifetimeMs } = fake.behave;
    if (answer !== undefined) return answer(asked);
    const { subject, hosts, certificate_request: csr } = change(asked);
    const { O: clusterId = '', OU: role = '' } = subject.names[0] ?? {};
    const authority = openAuthority(by.certPem, by.keyPem, {
      clusterId,
      clock: { now: clock },
      random: randomBytes,
    });
    const sealingName = hosts[2];
    const { pem } = authority.issueNode({
      csr,
      nodeId: subject.CN,
      role: role as Role,
      ...(sealingName === undefined ? {} : { sealingName }),
      ...(lifetimeMs === undefined ? {} : { lifetimeMs }),
    });
    return { status: 200, text: JSON.stringify({ success: true, result: { certificate: pem }, errors: [] }) };
  }

  let port = 0;
  async function start(): Promise<void> {
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
    ({ port } = server.address() as AddressInfo);
    fake.url = `https://127.0.0.1:${port}`;
  }
  async function stop(): Promise<void> {
    if (!server.listening) return;
    const closed = once(server, 'close');
    server.close();
    for (const socket of sockets) socket.destroy();
    await closed;
  }
  t.teardown(stop);
  await start();
  return fake;
}
