/**
 * The manager's port, from somebody who has no certificate and no good intentions: half handshakes, floods of HTTP/2 frames, messages
 * that are not what they say. The manager answers or hangs up, keeps its memory and its descriptors, and goes on serving.
 */
import { randomBytes } from 'node:crypto';
import { readFileSync, readdirSync, readlinkSync } from 'node:fs';
import http2 from 'node:http2';
import net from 'node:net';
import tls from 'node:tls';
import { gzipSync } from 'node:zlib';
import type { ExecutionContext } from 'ava';
import fc from 'fast-check';
import { generateNodeKey } from '../../src/crypto/signing.js';
import { createCsr } from '../../src/pki/csr.js';
import { fromPem, toPem } from '../../src/pki/pem.js';
import { Enrollment } from '../../src/proto/gen/inro/v1/enrollment_pb.js';
import { call, connectTls } from '../../src/rpc/client.js';
import { unverifiedCredentials } from '../../src/rpc/tls.js';
import { fakeCluster } from '../support/fake_authority.js';
import { Host, scenario, type Manager } from '../support/host.js';
import { labScenario } from '../support/lab.js';
import { eventually } from '../support/inro.js';

const mebibyte = 1 << 20;
const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
const types = {
  data: 0,
  headers: 1,
  priority: 2,
  reset: 3,
  settings: 4,
  ping: 6,
  windowUpdate: 8,
  continuation: 9,
};

function frame(type: number, flags: number, stream: number, payload: Uint8Array = new Uint8Array()): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** HPACK, literal without indexing: what any encoder may write. */
function header(name: string, value: string): Buffer {
  const text = (s: string): Buffer => {
    if (s.length < 127) return Buffer.concat([Buffer.of(s.length), Buffer.from(s)]);
    const rest: number[] = [];
    let left = s.length - 127;
    for (; left >= 128; left >>= 7) rest.push((left & 127) | 128);
    return Buffer.concat([Buffer.of(127, ...rest, left), Buffer.from(s)]);
  };
  return Buffer.concat([Buffer.of(0), text(name), text(value)]);
}

const grpcHeaders = Buffer.concat([
  header(':method', 'POST'),
  header(':scheme', 'https'),
  header(':path', '/inro.v1.Enrollment/GetRoot'),
  header(':authority', 'inro-manager'),
  header('content-type', 'application/grpc'),
  header('te', 'trailers'),
]);

interface Scene {
  host: Host;
  manager: Manager;
  pid: number;
  address: { host: string; port: number };
}

async function scene(t: ExecutionContext): Promise<Scene> {
  const host = await Host.of(t);
  const { manager } = await host.startCluster();
  const at = manager.address.lastIndexOf(':');
  const address = { host: manager.address.slice(0, at), port: Number(manager.address.slice(at + 1)) };
  return { host, manager, pid: managerPid(address.port), address };
}

/** Who listens there. */
function managerPid(port: number): number {
  const hex = port.toString(16).toUpperCase().padStart(4, '0');
  const line = readFileSync('/proc/net/tcp', 'utf8')
    .split('\n')
    .find((one) => one.includes(`:${hex} 00000000:0000 0A`));
  const inode = line?.trim().split(/\s+/)[9];
  const socket = `socket:[${inode}]`;
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const found = readdirSync(`/proc/${pid}/fd`).some((fd) => link(`/proc/${pid}/fd/${fd}`) === socket);
      if (found) return Number(pid);
    } catch {
      // it has ended
    }
  }
  throw new Error(`nobody listens on port ${port}`);
}

function link(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return '';
  }
}

function memoryOf(pid: number): number {
  return Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024;
}

const descriptorsOf = (pid: number): number => readdirSync(`/proc/${pid}/fd`).length;

/** A host that asks for the root, an operator who asks for the nodes, and a node that stays. */
async function isServing(t: ExecutionContext, { host, manager }: Scene, when: string): Promise<void> {
  const connection = connectTls(manager.address, unverifiedCredentials());
  const { rootPem } = await call(connection, Enrollment, 'getRoot', {}, 30_000);
  connection.close();
  t.regex(rootPem, /BEGIN CERTIFICATE/, when);
  const nodes = await host.json<{ status: string }[]>(['node', 'ls']);
  // One request that was left as it was has made a node, too.
  t.true(
    nodes.some(({ status }) => status === 'ready'),
    when,
  );
}

/** Bytes that arrive until the other side hangs up, or for so long. */
function talk(
  socket: net.Socket,
  write: (socket: net.Socket) => void,
  ms = 3_000,
): Promise<'closed' | 'open'> {
  return new Promise((resolve) => {
    const end = (how: 'closed' | 'open'): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(how);
    };
    const timer = setTimeout(() => end('open'), ms);
    socket.on('error', () => end('closed'));
    socket.on('close', () => end('closed'));
    socket.resume();
    write(socket);
  });
}

function secure({ address }: Scene): Promise<tls.TLSSocket> {
  return new Promise((resolve, reject) => {
    const socket = tls.connect({ ...address, ALPNProtocols: ['h2'], rejectUnauthorized: false });
    socket.once('secureConnect', () => resolve(socket));
    socket.once('error', reject);
  });
}

labScenario(
  '1: half handshakes, and other protocols',
  async (t) => {
    const s = await scene(t);
    await isServing(t, s, 'before');
    const before = { memory: memoryOf(s.pid), descriptors: descriptorsOf(s.pid) };
    const hello = Buffer.from('16030102000100', 'hex');
    const says: Record<string, Buffer> = {
      'random bytes': randomBytes(2_000),
      'HTTP/1.1': Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n'),
      'HTTP/2 in clear': Buffer.concat([preface, frame(types.settings, 0, 0)]),
      'a record of 64 KiB': Buffer.concat([Buffer.from('160301ffff', 'hex'), randomBytes(70_000)]),
      'SSL 3': Buffer.concat([Buffer.from('8046010301002d0000001000000300', 'hex'), randomBytes(200)]),
      'a ClientHello of random bytes': Buffer.concat([hello, randomBytes(600)]),
      zeros: Buffer.alloc(100_000),
    };
    for (const [what, bytes] of Object.entries(says))
      t.is(await talk(net.connect(s.address), (socket) => void socket.write(bytes)), 'closed', what);
    await t.throwsAsync(
      new Promise((resolve, reject) => {
        const old = tls.connect({ ...s.address, maxVersion: 'TLSv1.2', rejectUnauthorized: false }, () =>
          resolve(undefined),
        );
        old.once('error', reject);
      }),
      undefined,
      'TLS 1.2',
    );

    // Many at once that say nothing, or only the beginning.
    const silent = Array.from({ length: 800 }, (_, at) => {
      const socket = net.connect(s.address);
      socket.on('error', () => undefined);
      if (at % 2 === 0) socket.write(hello);
      return socket;
    });
    await eventually('they are there', async () => descriptorsOf(s.pid) > before.descriptors + 700);
    await isServing(t, s, 'beside 800 half handshakes');
    await eventually(
      'they are hung up on',
      async () => descriptorsOf(s.pid) < before.descriptors + 50,
      60_000,
    );
    for (const socket of silent) socket.destroy();
    t.true(memoryOf(s.pid) < before.memory + 100 * mebibyte);
    await isServing(t, s, 'after');
  },
  { timeoutMs: 180_000 },
);

/** Frames that a peer may not send, or not so many of; each on a connection of its own. */
const floods: Record<string, () => Iterable<Buffer>> = {
  'streams that are reset at once': function* () {
    for (let stream = 1; stream < 40_000; stream += 2)
      yield Buffer.concat([
        frame(types.headers, 0x4, stream, grpcHeaders),
        frame(types.reset, 0, stream, Buffer.from([0, 0, 0, 8])),
      ]);
  },
  settings: function* () {
    for (let n = 0; n < 50_000; n++) yield frame(types.settings, 0, 0, Buffer.from('000300000064', 'hex'));
  },
  pings: function* () {
    for (let n = 0; n < 50_000; n++) yield frame(types.ping, 0, 0, randomBytes(8));
  },
  priorities: function* () {
    for (let n = 0; n < 50_000; n++)
      yield frame(types.priority, 0, 2 * n + 1, Buffer.from('0000000010', 'hex'));
  },
  'a list of headers that does not end': function* () {
    yield frame(types.headers, 0, 1, grpcHeaders);
    for (let n = 0; n < 5_000; n++)
      yield frame(types.continuation, 0, 1, header(`x-${n}`, 'y'.repeat(4_000)));
  },
  'empty continuations': function* () {
    yield frame(types.headers, 0, 1, grpcHeaders);
    for (let n = 0; n < 50_000; n++) yield frame(types.continuation, 0, 1);
  },
  'empty data': function* () {
    yield frame(types.headers, 0x4, 1, grpcHeaders);
    for (let n = 0; n < 50_000; n++) yield frame(types.data, 0, 1);
  },
  'data for nobody': function* () {
    for (let n = 0; n < 5_000; n++) yield frame(types.data, 0, 0, randomBytes(1_000));
  },
  'a frame larger than agreed': function* () {
    yield frame(types.data, 0, 1, randomBytes(200_000));
  },
  'frames of random bytes': function* () {
    for (let n = 0; n < 2_000; n++) yield randomBytes(100);
  },
  'more streams than agreed, all open': function* () {
    for (let stream = 1; stream < 2_000; stream += 2) yield frame(types.headers, 0x4, stream, grpcHeaders);
  },
};

labScenario(
  '2: floods of frames',
  async (t) => {
    const s = await scene(t);
    await isServing(t, s, 'before');
    const before = memoryOf(s.pid);
    for (const [what, frames] of Object.entries(floods)) {
      const outcomes = await Promise.all(
        [1, 2, 3].map(async () => {
          const socket = await secure(s);
          return talk(socket, () => {
            socket.write(Buffer.concat([preface, frame(types.settings, 0, 0)]));
            for (const bytes of frames()) if (!socket.destroyed) socket.write(bytes);
          });
        }),
      );
      t.log(`${what}: ${outcomes.join(', ')}; ${Math.round((memoryOf(s.pid) - before) / mebibyte)} MiB more`);
      await isServing(t, s, what);
      t.true(memoryOf(s.pid) < before + 250 * mebibyte, what);
    }
  },
  { timeoutMs: 240_000 },
);

/** What comes back for bytes in a gRPC frame: the status, or how the stream ended. */
async function post(
  client: http2.ClientHttp2Session,
  path: string,
  body: Uint8Array,
  headers: Record<string, string> = {},
): Promise<number> {
  return new Promise((resolve) => {
    const stream = client.request({
      ':method': 'POST',
      ':path': path,
      'content-type': 'application/grpc',
      te: 'trailers',
      ...headers,
    });
    let status = -1;
    const look = (given: http2.IncomingHttpHeaders): void => {
      if (given['grpc-status'] === undefined) return;
      status = Number(given['grpc-status']);
      // What is no message at all, grpc-js answers by itself.
      const said = decodeURIComponent(String(given['grpc-message'] ?? ''));
      if (status === 13 && said.startsWith('Error deserializing request')) status = 3;
    };
    stream.on('response', look);
    stream.on('trailers', look);
    stream.on('error', () => undefined);
    stream.on('close', () => resolve(status));
    stream.resume();
    stream.end(body);
  });
}

const message = (bytes: Uint8Array, flag = 0): Buffer => {
  const head = Buffer.alloc(5);
  head[0] = flag;
  head.writeUInt32BE(bytes.length, 1);
  return Buffer.concat([head, bytes]);
};

/** gRPC: OK, INVALID_ARGUMENT, ALREADY_EXISTS, PERMISSION_DENIED, RESOURCE_EXHAUSTED, UNIMPLEMENTED, UNAUTHENTICATED: somebody has thought of it. */
const known = [0, 3, 6, 7, 8, 12, 16];

scenario(
  '3: messages that are not what they say',
  async (t) => {
    const s = await scene(t);
    await isServing(t, s, 'before');
    const before = memoryOf(s.pid);
    const client = http2.connect(`https://${s.manager.address}`, { rejectUnauthorized: false });
    client.on('error', () => undefined);
    const issue = '/inro.v1.Enrollment/IssueCertificate';
    const cluster = fakeCluster();
    const { privateKey } = generateNodeKey();
    const csr = createCsr(privateKey);
    const token = await s.host.ask(['token', 'show', 'worker']);
    const field = (number: number, text: string | Uint8Array): Buffer => {
      const bytes = Buffer.from(text);
      const length: number[] = [];
      let left = bytes.length;
      for (; left >= 128; left >>= 7) length.push((left & 127) | 128);
      return Buffer.concat([Buffer.of((number << 3) | 2, ...length, left), bytes]);
    };
    const honest = Buffer.concat([field(1, csr), field(2, token)]);

    // A bomb, a length that is a lie, an encoding that nobody knows.
    const bomb = gzipSync(Buffer.alloc(512 * mebibyte));
    t.is(await post(client, issue, message(bomb, 1), { 'grpc-encoding': 'gzip' }), 8, 'a bomb');
    t.true(memoryOf(s.pid) < before + 150 * mebibyte, 'it was not unpacked');
    const lie = Buffer.from(message(honest));
    lie.writeUInt32BE(0xffffffff, 1);
    t.is(await post(client, issue, lie), 8, 'a length of 4 GiB');
    for (const [what, body, headers] of [
      ['a cut message', message(honest).subarray(0, 20), {}],
      ['nothing', Buffer.alloc(0), {}],
      ['another encoding', message(honest, 1), { 'grpc-encoding': 'br' }],
      ['no gRPC', honest, { 'content-type': 'text/plain' }],
      ['two messages', Buffer.concat([message(honest), message(honest)]), {}],
    ] as const) {
      const status = await post(client, issue, body, headers);
      t.not(status, 0, what);
    }
    t.is(await post(client, '/inro.v1.Enrollment/Nothing', message(honest)), 12);
    t.is(await post(client, '/inro.v1.Control/GetCluster', message(Buffer.alloc(0))), 16);

    // Any bytes, and any damage to a message that was good.
    const check = async (body: Uint8Array, path = issue): Promise<boolean> => {
      const status = await post(client, path, message(body));
      if (!known.includes(status))
        throw new Error(`status ${status} for ${Buffer.from(body).toString('hex')}`);
      return true;
    };
    const paths = fc.constantFrom(
      issue,
      '/inro.v1.Renewal/RenewCertificate',
      '/inro.v1.Control/CreateSecret',
    );
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 2_000 }), paths, (bytes, path) => check(bytes, path)),
      { numRuns: 200 },
    );
    const edit = fc.record({ at: fc.nat(honest.length - 1), byte: fc.integer({ min: 0, max: 255 }) });
    await fc.assert(
      fc.asyncProperty(fc.array(edit, { minLength: 1, maxLength: 4 }), (edits) => {
        const bytes = Buffer.from(honest);
        for (const { at, byte } of edits) bytes[at] = byte;
        return check(bytes);
      }),
      { numRuns: 200 },
    );
    // Requests whose ASN.1 is damaged, with lengths and tags of any kind; and certificates that are offered as former ones.
    const der = fromPem('CERTIFICATE REQUEST', csr) as Uint8Array;
    const former = fromPem('CERTIFICATE', cluster.worker().certPem) as Uint8Array;
    const tags = [0x30, 0x31, 0x02, 0x03, 0x04, 0x06, 0x05, 0xa0, 0x80, 0x24, 0x1f, 0x7f, 0xff];
    const damage = fc.record({
      at: fc.nat(1_000),
      kind: fc.constantFrom('tag', 'length', 'indefinite', 'cut', 'twice'),
      byte: fc.integer({ min: 0, max: 255 }),
      tag: fc.constantFrom(...tags),
    });
    const damaged = (
      good: Uint8Array,
      { at, kind, byte, tag }: { at: number; kind: string; byte: number; tag: number },
    ): Buffer => {
      const bytes = Buffer.from(good);
      const place = at % bytes.length;
      switch (kind) {
        case 'tag':
          bytes[place] = tag;
          return bytes;
        case 'length':
          return Buffer.concat([
            bytes.subarray(0, place),
            Buffer.of(0x84, byte, 0xff, 0xff, 0xff),
            bytes.subarray(place),
          ]);
        case 'indefinite':
          return Buffer.concat([
            bytes.subarray(0, place),
            Buffer.of(0x80),
            bytes.subarray(place + 1),
            Buffer.of(0, 0),
          ]);
        case 'cut':
          return bytes.subarray(0, place);
        default:
          return Buffer.concat([bytes.subarray(0, place), bytes]);
      }
    };
    await fc.assert(
      fc.asyncProperty(damage, (how) =>
        check(Buffer.concat([field(1, toPem('CERTIFICATE REQUEST', damaged(der, how))), field(2, token)])),
      ),
      { numRuns: 300, includeErrorInReport: true },
    );
    await fc.assert(
      fc.asyncProperty(damage, (how) => {
        const claim = Buffer.concat([
          field(1, toPem('CERTIFICATE', damaged(former, how))),
          field(2, randomBytes(70)),
        ]);
        return check(Buffer.concat([field(1, csr), field(2, token), field(10, claim)]));
      }),
      { numRuns: 300, includeErrorInReport: true },
    );
    client.destroy();
    t.true(memoryOf(s.pid) < before + 150 * mebibyte);
    await isServing(t, s, 'after all of it');
  },
  { timeoutMs: 240_000 },
);
