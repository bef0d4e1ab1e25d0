/** A scheduler on a store in memory and a clock that the test moves; the nodes are names. */
import { create } from '@bufbuild/protobuf';
import { randomBytes } from 'node:crypto';
import type { ExecutionContext } from 'ava';
import { pino } from 'pino';
import { Scheduler } from '../../src/manager/scheduler.js';
import { ClusterView } from '../../src/manager/view.js';
import type { TaskState } from '../../src/model/task.js';
import {
  NodeRecordSchema,
  ServiceRecordSchema,
  type ServiceRecord,
  type TaskRecord,
} from '../../src/proto/gen/inro/v1/records_pb.js';
import { stateOf, wireState } from '../../src/proto/task_state.js';
import { tables } from '../../src/store/tables.js';
import { transact } from '../../src/store/transaction.js';
import { FakeClock, settle } from './fake_clock.js';
import { fakeStore, type FakeStoreOptions } from './fake_store.js';

type ServiceChange = Partial<ServiceRecord>;

export async function scheduling(t: ExecutionContext, nodes: string[] = [], options: FakeStoreOptions = {}) {
  const store = fakeStore(options);
  const clock = new FakeClock();
  const view = await ClusterView.follow(store);
  const ready = new Set(nodes);
  const errors: string[] = [];
  const log = pino({ level: 'error' }, { write: (line: string) => void errors.push(line) });
  const down = new Set<string>();
  const states = {
    ready: () => ready,
    isDown: (id: string) => down.has(id),
    isLost: (id: string) => down.has(id),
  };
  const scheduler = new Scheduler({ store, view, clock, random: randomBytes, log, nodes: states });
  t.teardown(() => scheduler.stop());
  const anotherScheduler = (): Scheduler => {
    const another = new Scheduler({ store, view, clock, random: randomBytes, log, nodes: states });
    t.teardown(() => another.stop());
    return another;
  };

  const tasks = (serviceId = 'web'): TaskRecord[] =>
    view.tasksOfService(serviceId).sort((a, b) => a.slot - b.slot || Number(a.createdMs - b.createdMs));

  return {
    store,
    clock,
    view,
    ready,
    down,
    scheduler,
    anotherScheduler,
    errors,
    tasks,
    /** `slot state node`, for each task. */
    shown: (serviceId?: string): string[] =>
      tasks(serviceId).map(({ slot, state, nodeId, desiredState }) =>
        [
          slot,
          stateOf(state),
          nodeId || '-',
          ...(stateOf(desiredState) === 'RUNNING' ? [] : ['ending']),
        ].join(' '),
      ),
    async service(id: string, change: ServiceChange = {}): Promise<void> {
      await transact(store, async (tx) => {
        const known = await tx.get(tables.services, id);
        tx.put(
          tables.services,
          id,
          Object.assign(known ?? create(ServiceRecordSchema, { id, name: id, replicas: 1 }), change),
        );
      });
      await settle();
    },
    /** As the node reports it. */
    async report(task: TaskRecord | undefined, state: TaskState, error = ''): Promise<void> {
      await transact(store, async (tx) => {
        const record = await tx.get(tables.tasks, task?.id ?? '');
        if (record === undefined) throw new Error('no such task');
        Object.assign(record, { state: wireState(state), error, updatedMs: BigInt(clock.now()) });
        tx.put(tables.tasks, record.id, record);
      });
      await settle();
    },
    async node(id: string, availability: string, labels: Record<string, string> = {}): Promise<void> {
      const record = create(NodeRecordSchema, { id, availability, labels });
      await transact(store, async (tx) => tx.put(tables.nodes, id, record));
      scheduler.nodesChanged([id]);
      await settle();
    },
    async nodesChanged(id: string): Promise<void> {
      scheduler.nodesChanged([id]);
      await settle();
    },
    async nodeReady(id: string): Promise<void> {
      ready.add(id);
      scheduler.nodesChanged([id]);
      await settle();
    },
  };
}
