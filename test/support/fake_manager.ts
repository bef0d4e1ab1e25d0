/**
 * A manager without a network: the real store rules, view, scheduler, dispatcher and operators' calls, over a
 * store in memory, on a clock that the test moves. Nodes attach through in-memory streams.
 */
import { create } from '@bufbuild/protobuf';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { openArena } from '../../src/crypto/arena.js';
import { digestOf, sealValue, submitContentKey } from '../../src/crypto/envelope.js';
import { drawExchangeKey, drawKey } from '../../src/crypto/exchange.js';
import { control } from '../../src/manager/control.js';
import { ManagerCore } from '../../src/manager/core.js';
import { DataKey } from '../../src/manager/data_key.js';
import { writeDataKey } from '../../src/manager/data_key_files.js';
import { AuditBook } from '../../src/manager/audit_book.js';
import { Autolock } from '../../src/manager/autolock.js';
import { EventBook } from '../../src/manager/event_book.js';
import { createKeyring } from '../../src/manager/keyring.js';
import { JoinGuard } from '../../src/manager/join_guard.js';
import { Authorities } from '../../src/manager/authorities.js';
import { CaRotation } from '../../src/manager/ca_rotation.js';
import { Managers } from '../../src/manager/managers.js';
import { ClusterView } from '../../src/manager/view.js';
import { newId } from '../../src/model/id.js';
import { readCertificate } from '../../src/pki/certificate.js';
import { makeJoinToken } from '../../src/pki/join_token.js';
import { sealingNameOf } from '../../src/pki/sealing_name.js';
import { Control } from '../../src/proto/gen/inro/v1/control_pb.js';
import { NodeRecordSchema, type TaskRecord } from '../../src/proto/gen/inro/v1/records_pb.js';
import type { InputInit, OutputInit } from '../../src/rpc/definition.js';
import type { Handlers } from '../../src/rpc/server.js';
import type { Store } from '../../src/store/store.js';
import { tables } from '../../src/store/tables.js';
import { transact } from '../../src/store/transaction.js';
import { fakeCluster, type FakeIdentity } from './fake_authority.js';
import { fakeStream } from './fake_channel.js';
import { FakeClock, settle } from './fake_clock.js';
import { FakeNode } from './fake_node.js';
import { fakeStore } from './fake_store.js';

type Methods = (typeof Control)['method'];
type Operators = Handlers<typeof Control, 'operator'>;
/** What operators call, without a connection. */
export type Operate = <K extends keyof Methods>(
  name: K,
  request: InputInit<Methods[K]>,
) => Promise<OutputInit<Methods[K]>>;

export interface Attached {
  node: FakeNode;
  /** The manager's end: a test may look at what is sent in the moment in which it is. */
  managerSide: ReturnType<typeof fakeStream>['manager'];
  /** Settles as the manager's handler of this stream does. */
  ended: Promise<unknown>;
  breakOff(): void;
}

export async function fakeManager({ store = fakeStore() }: { store?: Store } = {}) {
  const clock = new FakeClock();
  const cluster = fakeCluster({ now: clock.now() });
  const { clusterId } = cluster;
  const authority = new Authorities([Authorities.first(cluster.rootPem, clock.now())], cluster.rootKeyPem, {
    clusterId,
    clock,
    random: randomBytes,
  });
  const arena = openArena(8 << 20);
  const logged: Record<string, unknown>[] = [];
  const log = pino(
    { level: 'debug' },
    { write: (line: string) => void logged.push(JSON.parse(line) as Record<string, unknown>) },
  );
  const present = drawKey(arena);
  const sealing = drawExchangeKey(arena);
  const keyring = createKeyring(arena, sealing, { present });
  const view = await ClusterView.follow(store);
  const publicKey = keyring.sealingPublicKey;
  const { certPem: certificatePem } = cluster.manager({ sealingName: sealingNameOf(clusterId, publicKey) });
  const sealingKey = () => ({ clusterId, publicKey, certificatePem });
  const audit = new AuditBook({ clusterId, store, clock, log });
  const shared = {
    clusterId,
    authority,
    store,
    view,
    keyring,
    audit,
    clock,
    random: randomBytes,
    log,
    sealingKey,
  };
  const core = await ManagerCore.open({ ...shared, managerAddresses: () => ['127.0.0.1:1'] });
  const { ledger, reads, clones, dispatcher, nodeStates, scheduler, removal } = core;
  const statuses = () => new Map([...view.nodes.keys()].map((id) => [id, dispatcher.statusOf(id)]));
  const events = await EventBook.open({ store, clock, statuses });
  const token = makeJoinToken(authority.root.der, randomBytes);
  const guard = new JoinGuard(clock);
  const folder = mkdtempSync(join(tmpdir(), 'inro-fake-manager-'));
  const publish = async (): Promise<void> => undefined;
  const rotation = new CaRotation({
    ...shared,
    folder,
    dispatcher,
    deadlineMs: 0,
    publish,
    onChanged: async () => dispatcher.casChanged(),
  });
  writeDataKey(folder, present, arena);
  const managers = new Managers({ ...shared, folder, arena, membership: undefined });
  const autolock = new Autolock(folder, false);
  const dataKey = new DataKey({ ...shared, folder, arena, publish });
  const { handlers } = control({
    ...shared,
    managers,
    autolock,
    dataKey,
    startedMs: clock.now(),
    dispatcher,
    nodeStates,
    guard,
    removal,
    clones,
    rotation,
    externalCas: () => [],
    events,
    runId: 'a run',
    managerAddresses: () => ['127.0.0.1:1'],
    createdMs: clock.now(),
    workerToken: async () => token,
  });
  const gone = new AbortController();

  const operate: Operate = async (name, request) => {
    const { input } = Control.method[name];
    const handler = handlers[name] as unknown as Operators[typeof name];
    const call = handler as (message: unknown, context: unknown) => Promise<never>;
    return call(create(input, request as never), { peer: { kind: 'local' }, signal: gone.signal });
  };

  /** As a terminal does it. */
  function seal(text: string, secretId: string, version: number) {
    const value = arena.take(Buffer.byteLength(text));
    value.expose().set(Buffer.from(text));
    const { ciphertext, contentKey } = sealValue(value, arena);
    const binding = { clusterId, secretId, version, ciphertextDigest: digestOf(ciphertext) };
    return { ciphertext, sealedKey: submitContentKey(contentKey, binding, keyring.sealingPublicKey, arena) };
  }

  return {
    ...shared,
    events,
    ledger,
    reads,
    cluster,
    arena,
    dispatcher,
    scheduler,
    nodeStates,
    dataKey,
    folder,
    operate,
    seal,
    logged,

    /** A host that has joined. */
    async joined(): Promise<FakeIdentity> {
      const identity = cluster.worker();
      const record = create(NodeRecordSchema, {
        id: identity.nodeId,
        role: 'worker',
        createdMs: BigInt(clock.now()),
      });
      await transact(store, async (tx) => tx.put(tables.nodes, identity.nodeId, record));
      return identity;
    },

    /** A stream of that host, still before its Hello. */
    attach(identity: FakeIdentity): Attached {
      const { agent, manager, breakOff } = fakeStream();
      const { attach } = dispatcher.registration().handlers;
      const certificate = readCertificate(identity.certPem);
      const { nodeId } = identity;
      const peer = {
        kind: 'node',
        nodeId,
        role: 'worker',
        clusterId: certificate.clusterId,
        certificate,
        address: 'test',
      };
      const run = attach as unknown as (channel: unknown, context: unknown) => Promise<void>;
      const ended = run(manager, { peer, signal: manager.closed }).then(
        () => manager.close(),
        (error: Error) => {
          breakOff(error);
          return error;
        },
      );
      return { node: new FakeNode(agent, identity), managerSide: manager, ended, breakOff };
    },

    async createSecret(name: string, text: string, more: { leaseMs?: bigint } = {}): Promise<string> {
      const id = newId(randomBytes);
      await operate('createSecret', { id, name, ...seal(text, id, 1), ...more });
      return id;
    },

    async updateSecret(
      id: string,
      text: string,
      more: { leaseMs?: bigint } = {},
    ): Promise<OutputInit<Methods['updateSecret']>> {
      const version = (view.secrets.get(id)?.currentVersion ?? 0) + 1;
      return operate('updateSecret', { id, version, ...seal(text, id, version), ...more });
    },

    async createService(
      name: string,
      {
        secrets = [],
        replicas = 1,
        constraints = [],
      }: { secrets?: string[]; replicas?: number; constraints?: string[] } = {},
    ): Promise<string> {
      const references = secrets.map((secretName) => ({
        secretName,
        target: secretName,
        uid: '0',
        gid: '0',
        mode: 0o444,
      }));
      const { id = '' } = await operate('createService', { name, references, replicas, constraints });
      await settle();
      return id;
    },

    tasksOf(serviceId: string): TaskRecord[] {
      return view
        .tasksOfService(serviceId)
        .sort((a, b) => a.slot - b.slot || Number(a.createdMs - b.createdMs));
    },

    async stop(): Promise<void> {
      gone.abort();
      events.stop();
      await rotation.stop();
      rmSync(folder, { recursive: true, force: true });
      dispatcher.stop();
      await core.stop();
      await settle();
    },
  };
}

export type FakeManager = Awaited<ReturnType<typeof fakeManager>>;
