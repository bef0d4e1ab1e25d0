/** A manager in a simulation: its own rules over a disk that outlives it. */
import { create } from '@bufbuild/protobuf';
import type { Logger } from 'pino';
import { AuditBook } from '../../src/manager/audit_book.js';
import { applyHandlers } from '../../src/manager/control_apply.js';
import { nodeHandlers } from '../../src/manager/control_nodes.js';
import { revokeHandlers } from '../../src/manager/control_revoke.js';
import { secretHandlers } from '../../src/manager/control_secrets.js';
import { serviceHandlers } from '../../src/manager/control_services.js';
import { versionHandlers } from '../../src/manager/control_versions.js';
import { Authorities } from '../../src/manager/authorities.js';
import { ManagerCore } from '../../src/manager/core.js';
import { SeenBook } from '../../src/manager/seen_book.js';
import { ClusterView } from '../../src/manager/view.js';
import { waitForNodes } from '../../src/manager/wait.js';
import { asInroError } from '../../src/model/error.js';
import { Control, type WaitRequest } from '../../src/proto/gen/inro/v1/control_pb.js';
import type { InputInit, Output } from '../../src/rpc/definition.js';
import { FakeDisk, fakeStore } from '../support/fake_store.js';
import type { Change, Store } from '../../src/store/store.js';
import type { Chance } from './chance.js';
import { clusterId, keyring, rootKeyPem, rootPem, sealingKey } from './cluster_keys.js';
import type { HostClock } from './host_clock.js';
import type { Accepted } from './network.js';
import type { NodeHost } from './node_host.js';
import { Process, type World } from './world.js';

type Methods = (typeof Control)['method'];
export type Operate = <K extends keyof Methods>(
  name: K,
  request: InputInit<Methods[K]>,
) => Promise<Output<Methods[K]>>;
type Handler = (message: unknown, context: unknown) => Promise<never>;

export interface ManagerHostParts {
  world: World;
  chance: Chance;
  clock: HostClock;
  log: Logger;
  /** Told of each commit as it is decided. */
  onCommit: (change: Change) => void;
}

interface Running {
  store: Store;
  seen: SeenBook;
  core: ManagerCore;
  view: ClusterView;
  handlers: Record<string, Handler>;
}

export class ManagerHost {
  readonly disk = new FakeDisk();
  readonly clock: HostClock;
  readonly #parts: ManagerHostParts;
  process: Process | undefined;
  running: Running | undefined;
  /** Told of each manager that begins, before it does anything. */
  onOpen: (core: ManagerCore) => void = () => undefined;
  /** Told whenever a manager finds that a node is down. */
  onDown: (nodeId: string) => void = () => undefined;
  /** Mean of what the disk takes, ms. */
  diskMs = 1;

  constructor(parts: ManagerHostParts) {
    this.#parts = parts;
    this.clock = parts.clock;
  }

  start(): void {
    if (this.process?.isAlive === true) return;
    const process = new Process(this.#parts.world);
    this.process = process;
    void this.#open(process);
  }

  kill(): void {
    this.process?.kill();
    this.process = undefined;
    this.running = undefined;
  }

  accept(host: NodeHost, process: Process, { channel, finish }: Accepted): void {
    const { running } = this;
    const { identity } = host;
    if (running === undefined || this.process !== process) return finish(undefined);
    const { attach } = running.core.dispatcher.registration().handlers;
    const { certificate, nodeId } = identity;
    const peer = { kind: 'node', nodeId, role: 'worker', clusterId, certificate, address: `${host.name}:1` };
    (attach as unknown as Handler)(channel, { peer, signal: channel.closed }).then(
      () => finish(undefined),
      (error: unknown) => finish(asInroError(error)),
    );
  }

  /** Never settles when the manager dies meanwhile: nobody knows whether it was done. */
  readonly operate: Operate = (name, request) => {
    const { process } = this;
    return new Promise((resolve, reject) => {
      if (process?.isAlive !== true) return reject(new Error('no manager'));
      process.deliver(() => {
        const handler = this.running?.handlers[name];
        if (handler === undefined) return reject(new Error('the manager is starting'));
        const context = { peer: { kind: 'local' }, signal: new AbortController().signal };
        handler(create(Control.method[name].input, request as never), context).then(
          (answer) => process.isAlive && resolve(answer),
          (error: unknown) => process.isAlive && reject(error as Error),
        );
      });
    });
  };

  async #open(process: Process): Promise<void> {
    const { world, chance, log, onCommit } = this.#parts;
    const clock = this.clock.for(process);
    const random = chance.bytes;
    const delay = (): Promise<void> =>
      new Promise((resolve) => void world.in(chance.wait(this.diskMs), () => process.deliver(resolve)));
    const store = fakeStore({
      disk: this.disk,
      delay: (call) => (call === 'commit' || call === 'answer' ? delay() : Promise.resolve()),
    });
    store.watch(onCommit);
    const view = await ClusterView.follow(store);
    const authority = new Authorities([Authorities.first(rootPem, clock.now())], rootKeyPem, {
      clusterId,
      clock,
      random,
    });
    const audit = new AuditBook({ clusterId, store, clock, log });
    const shared = { clusterId, authority, store, view, keyring, audit, clock, random, log };
    const core = await ManagerCore.open({
      ...shared,
      sealingKey: () => sealingKey,
      managerAddresses: () => ['manager'],
    });
    const isDown = core.nodeStates.isDown.bind(core.nodeStates);
    core.nodeStates.isDown = (nodeId) => {
      const found = isDown(nodeId);
      if (found) this.onDown(nodeId);
      return found;
    };
    this.onOpen(core);
    core.watchNodes();
    const { dispatcher, nodeStates, removal, clones } = core;
    const parts = { ...shared, dispatcher, removal, clones, rotation: { mustEnrol: () => false } as never };
    const waits = { view, nodes: nodeStates, dispatcher, clock };
    const wait = (request: WaitRequest, { signal }: { signal: AbortSignal }) =>
      waitForNodes(request, waits, signal);
    const handlers = {
      ...secretHandlers(parts),
      ...revokeHandlers(parts),
      ...versionHandlers(parts),
      ...serviceHandlers(parts),
      ...nodeHandlers(parts),
      ...applyHandlers(parts),
      wait,
    } as unknown as Record<string, Handler>;
    const seen = new SeenBook({ store, view, dispatcher, clock, log });
    await removal.finishAll();
    this.running = { store, seen, core, view, handlers };
    core.scheduler.reconcile(view.services.keys());
  }
}
