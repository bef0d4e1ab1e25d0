/**
 * A real manager in this process: state on disk, TLS on a port, the operators' socket. Only its clock stands
 * still until the test moves it: its wall alone for months, as OpenSSL would not believe a certificate that the manager made
 * itself in a time to come. And what one needs to talk to it without an agent or a terminal.
 */
import { cp, mkdtemp, rm } from 'node:fs/promises';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { pino } from 'pino';
import type { AgentChannel } from '../../src/agent/channel.js';
import { openArena } from '../../src/crypto/arena.js';
import { digestOf, sealValue, submitContentKey } from '../../src/crypto/envelope.js';
import { generateNodeKey } from '../../src/crypto/signing.js';
import { startManager, type RunningManager } from '../../src/manager/manager.js';
import type { GivenCa } from '../../src/manager/state_folder.js';
import { newId } from '../../src/model/id.js';
import { openAuthority, type Authority } from '../../src/pki/authority.js';
import { createCsr } from '../../src/pki/csr.js';
import type { Role } from '../../src/pki/role.js';
import { Control } from '../../src/proto/gen/inro/v1/control_pb.js';
import { Dispatcher } from '../../src/proto/gen/inro/v1/dispatcher_pb.js';
import { Enrollment } from '../../src/proto/gen/inro/v1/enrollment_pb.js';
import { call, connectTls, connectUnix, openStream, type Connection } from '../../src/rpc/client.js';
import type { InputInit, Output } from '../../src/rpc/definition.js';
import { nodeCredentials, rootCredentials } from '../../src/rpc/tls.js';
import type { FakeIdentity } from './fake_authority.js';
import { FakeClock } from './fake_clock.js';
import { FakeNode } from './fake_node.js';

type Methods = (typeof Control)['method'];
type Unary = keyof Methods;

export interface RealManager {
  running: RunningManager;
  clock: FakeClock;
  folder: string;
  rootPem: string;
  /** The cluster's CA, as somebody who has its key would use it. */
  authority: Authority;
  logged: Record<string, unknown>[];
  operate<K extends Unary>(name: K, request: InputInit<Methods[K]>): Promise<Output<Methods[K]>>;
  createSecret(name: string, text: string): Promise<string>;
  updateSecret(id: string, version: number, text: string): Promise<void>;
  createService(name: string, secrets: readonly string[], nodeId?: string): Promise<string>;
  /** A host that joins with the token. */
  joined(): Promise<FakeIdentity>;
  /** A certificate that the CA signs, for whatever one likes. */
  issue(role: Role, nodeId?: string): FakeIdentity;
  connect(identity?: FakeIdentity): Connection;
  open(connection: Connection): AgentChannel;
  /** A node on a connection of its own. */
  attach(identity: FakeIdentity): FakeNode;
  stop(): Promise<void>;
  /** Stops it, lets somebody at its files, and starts another on a copy of them. */
  restarted(tamper: (folder: string) => Promise<void>): Promise<RealManager>;
}

export async function realManager(
  t: ExecutionContext,
  from?: string,
  ca?: GivenCa,
  /** Of the CA, where its key is not in the folder. */
  caKeyPem?: string,
): Promise<RealManager> {
  const root = await mkdtemp(join(tmpdir(), 'inro-manager-'));
  t.teardown(() => rm(root, { recursive: true, force: true }));
  const folder = join(root, 'state');
  if (from !== undefined)
    await cp(from, folder, { recursive: true, filter: (path) => !path.endsWith('lock') });
  const clock = new FakeClock(Date.now());
  const logged: Record<string, unknown>[] = [];
  const log = pino(
    { level: 'debug' },
    { write: (line: string) => void logged.push(JSON.parse(line) as Record<string, unknown>) },
  );
  const socketPath = join(root, 'manager.sock');
  const running = await startManager({
    stateFolder: folder,
    listen: '127.0.0.1:0',
    socketPath,
    ...(ca === undefined ? {} : { ca }),
    clock,
    random: randomBytes,
    log,
  });

  const connections = new Set<Connection>();
  const kept = (connection: Connection): Connection => {
    connections.add(connection);
    return connection;
  };
  let stopped = false;
  const stop = async (): Promise<void> => {
    for (const connection of connections) connection.close();
    if (!stopped) await running.stop();
    stopped = true;
  };
  t.teardown(stop);

  const authority = openAuthority(
    readFileSync(join(folder, 'ca.crt'), 'utf8'),
    caKeyPem ?? readFileSync(join(folder, 'ca.key'), 'utf8'),
    {
      clusterId: running.clusterId,
      clock,
      random: randomBytes,
    },
  );
  const rootPem = authority.root.pem;
  const operator = kept(connectUnix(socketPath, 'the manager'));
  const arena = openArena(8 << 20);
  const { id: clusterId, sealingKey } = await call(operator, Control, 'getCluster', {});

  function seal(text: string, secretId: string, version: number) {
    const value = arena.take(Buffer.byteLength(text));
    value.expose().set(Buffer.from(text));
    const { ciphertext, contentKey } = sealValue(value, arena);
    const binding = { clusterId, secretId, version, ciphertextDigest: digestOf(ciphertext) };
    const to = sealingKey?.publicKey ?? new Uint8Array();
    return { ciphertext, sealedKey: submitContentKey(contentKey, binding, to, arena) };
  }

  const operate: RealManager['operate'] = (name, request) => call(operator, Control, name, request);

  const manager: RealManager = {
    running,
    clock,
    folder,
    rootPem,
    authority,
    logged,
    operate,
    stop,

    async createSecret(name, text) {
      const id = newId(randomBytes);
      await operate('createSecret', { id, name, ...seal(text, id, 1) });
      return id;
    },
    async updateSecret(id, version, text) {
      await operate('updateSecret', { id, version, ...seal(text, id, version) });
    },
    async createService(name, secrets, nodeId) {
      const references = secrets.map((secretName) => ({
        secretName,
        target: secretName,
        uid: '0',
        gid: '0',
        mode: 0o444,
      }));
      const constraints = nodeId === undefined ? [] : [`node.id==${nodeId}`];
      return (await operate('createService', { name, references, replicas: 1, constraints })).id;
    },
    async joined() {
      const connection = kept(connectTls(running.address, rootCredentials(rootPem)));
      const key = generateNodeKey();
      const request = { csrPem: createCsr(key.privateKey), token: await running.joinToken() };
      const { certificatePem, nodeId } = await call(connection, Enrollment, 'issueCertificate', request);
      return { nodeId, certPem: certificatePem, keyPem: key.privatePem };
    },
    issue(role, nodeId = newId(randomBytes)) {
      const key = generateNodeKey();
      const issued = authority.issueNode({ csr: createCsr(key.privateKey), nodeId, role });
      return { nodeId, certPem: issued.pem + authority.intermediatesPem, keyPem: key.privatePem };
    },
    connect(identity) {
      const credentials =
        identity === undefined
          ? rootCredentials(rootPem)
          : nodeCredentials({ rootPem, certificatePem: identity.certPem, keyPem: identity.keyPem });
      return kept(connectTls(running.address, credentials));
    },
    open: (connection) => openStream(connection, Dispatcher, 'attach'),
    attach: (identity) => new FakeNode(manager.open(manager.connect(identity)), identity),
    async restarted(tamper) {
      await stop();
      await tamper(folder);
      return realManager(t, folder, ca, caKeyPem);
    },
  };
  return manager;
}
