import { create } from '@bufbuild/protobuf';
import test from 'ava';
import { ClusterView, type ViewChange } from '../../src/manager/view.js';
import {
  NodeRecordSchema,
  SecretRecordSchema,
  ServiceRecordSchema,
  TaskRecordSchema,
  VersionRecordSchema,
} from '../../src/proto/gen/inro/v1/records_pb.js';
import { wireState } from '../../src/proto/task_state.js';
import type { Store } from '../../src/store/store.js';
import { tables, versionKey } from '../../src/store/tables.js';
import { transact, type Transaction } from '../../src/store/transaction.js';
import { fakeStore } from '../support/fake_store.js';

const putTask = (
  tx: Transaction,
  id: string,
  serviceId: string,
  nodeId: string,
  state: 'RUNNING' | 'FAILED' = 'RUNNING',
) => tx.put(tables.tasks, id, create(TaskRecordSchema, { id, serviceId, nodeId, state: wireState(state) }));

async function filled(store: Store): Promise<void> {
  await transact(store, async (tx) => {
    for (const id of ['a', 'b']) tx.put(tables.nodes, id, create(NodeRecordSchema, { id }));
    for (const id of ['s1', 's2']) {
      tx.put(
        tables.secrets,
        id,
        create(SecretRecordSchema, {
          id,
          name: id,
          currentVersion: 1,
          serviceIds: id === 's1' ? ['web'] : [],
        }),
      );
      tx.put(tables.versions, versionKey(id, 1), create(VersionRecordSchema, { secretId: id, version: 1 }));
    }
    tx.put(tables.services, 'web', create(ServiceRecordSchema, { id: 'web', name: 'web' }));
    putTask(tx, 't1', 'web', 'a');
    putTask(tx, 't2', 'web', 'b');
    putTask(tx, 't3', 'web', '');
  });
}

/** All that a view knows, to compare two of them. */
function known(view: ClusterView): unknown {
  const { nodes, secrets, services, tasks, revision } = view;
  const ids = (of: Iterable<{ id: string }>): string[] => [...of].map(({ id }) => id).sort();
  return {
    revision,
    nodes: [...nodes].sort(),
    secrets: [...secrets].sort(),
    services: [...services].sort(),
    tasks: [...tasks].sort(),
    versions: [...secrets.keys()].sort().map((id) => view.versionsOf(id)),
    byNode: [...nodes.keys(), 'c', ''].map((id) => [id, ids(view.tasksOfNode(id))]),
    byService: [...services.keys(), 'gone'].map((id) => [id, ids(view.tasksOfService(id))]),
  };
}

test('it begins with what is in the store', async (t) => {
  const store = fakeStore();
  await filled(store);
  const view = await ClusterView.follow(store);
  t.deepEqual([...view.nodes.keys()], ['a', 'b']);
  t.deepEqual([...view.secrets.keys()], ['s1', 's2']);
  t.deepEqual(
    view.tasksOfNode('a').map(({ id }) => id),
    ['t1'],
  );
  t.deepEqual(
    view.tasksOfService('web').map(({ id }) => id),
    ['t1', 't2', 't3'],
  );
  t.is(view.version('s1', 1)?.secretId, 's1');
  t.is(view.version('s1', 2), undefined);
  t.is(view.revision, 1);
});

test('it knows a change before whoever made it does', async (t) => {
  const store = fakeStore();
  await filled(store);
  const view = await ClusterView.follow(store);
  await transact(store, async (tx) => putTask(tx, 't4', 'web', 'b'));
  t.deepEqual(
    view.tasksOfNode('b').map(({ id }) => id),
    ['t2', 't4'],
  );
  t.is(view.revision, 2);
});

test('after any changes it is what a new one would read', async (t) => {
  const store = fakeStore();
  await filled(store);
  const view = await ClusterView.follow(store);
  const changes: ((tx: Transaction) => void)[] = [
    (tx) => putTask(tx, 't3', 'web', 'a'), // a node was found
    (tx) => putTask(tx, 't1', 'web', 'a', 'FAILED'),
    (tx) => tx.delete(tables.tasks, 't1'),
    (tx) =>
      tx.put(
        tables.versions,
        versionKey('s1', 2),
        create(VersionRecordSchema, { secretId: 's1', version: 2 }),
      ),
    (tx) =>
      tx.put(tables.secrets, 's1', create(SecretRecordSchema, { id: 's1', name: 's1', currentVersion: 2 })),
    (tx) => {
      tx.delete(tables.secrets, 's2');
      tx.delete(tables.versions, versionKey('s2', 1));
    },
    (tx) => tx.delete(tables.nodes, 'b'),
    (tx) => {
      tx.delete(tables.services, 'web');
      for (const id of ['t2', 't3']) tx.delete(tables.tasks, id);
    },
  ];
  for (const change of changes) {
    await transact(store, async (tx) => change(tx));
    t.deepEqual(known(view), known(await ClusterView.follow(store)));
  }
  t.is(view.tasks.size, 0);
});

test('a change says which nodes and services it concerns, those it leaves and those it comes to', async (t) => {
  const store = fakeStore();
  await filled(store);
  const view = await ClusterView.follow(store);
  const heard: { nodes: string[]; services: string[] }[] = [];
  const stop = view.onChange(({ nodeIds, serviceIds }: ViewChange) =>
    heard.push({ nodes: [...nodeIds].sort(), services: [...serviceIds] }),
  );
  const after = async (change: (tx: Transaction) => void) => {
    await transact(store, async (tx) => change(tx));
    return heard.at(-1);
  };
  t.deepEqual(await after((tx) => putTask(tx, 't3', 'web', 'b')), { nodes: ['b'], services: ['web'] });
  t.deepEqual(await after((tx) => putTask(tx, 't3', 'web', 'a')), { nodes: ['a', 'b'], services: ['web'] });
  t.deepEqual(await after((tx) => tx.delete(tables.tasks, 't3')), { nodes: ['a'], services: ['web'] });
  const secret = (id: string, serviceIds: string[]) =>
    create(SecretRecordSchema, { id, name: id, currentVersion: 2, serviceIds });
  t.deepEqual(await after((tx) => tx.put(tables.secrets, 's1', secret('s1', ['web']))), {
    nodes: ['a', 'b'],
    services: [],
  });
  t.deepEqual(await after((tx) => tx.put(tables.secrets, 's2', secret('s2', []))), {
    nodes: [],
    services: [],
  });
  t.deepEqual(await after((tx) => putTask(tx, 't2', 'web', 'b', 'FAILED')), {
    nodes: ['b'],
    services: ['web'],
  });
  t.deepEqual(
    await after((tx) =>
      tx.put(tables.services, 'web', create(ServiceRecordSchema, { id: 'web', name: 'web', replicas: 2 })),
    ),
    { nodes: ['a'], services: ['web'] },
  );
  t.deepEqual(await after((tx) => tx.put(tables.nodes, 'a', create(NodeRecordSchema, { id: 'a' }))), {
    nodes: [],
    services: [],
  });
  stop();
  t.is(heard.length, 8);
  await after((tx) => putTask(tx, 't9', 'web', 'a'));
  t.is(heard.length, 8);
});

test('nodes of services: where tasks of them have not ended', async (t) => {
  const store = fakeStore();
  await filled(store);
  const view = await ClusterView.follow(store);
  t.deepEqual([...view.nodesOfServices(['web'])].sort(), ['a', 'b']);
  await transact(store, async (tx) => putTask(tx, 't1', 'web', 'a', 'FAILED'));
  t.deepEqual([...view.nodesOfServices(['web', 'gone'])], ['b']);
});

test('versions come in order, and those of one secret only', async (t) => {
  const store = fakeStore();
  await transact(store, async (tx) => {
    for (const version of [10, 2, 1])
      tx.put(
        tables.versions,
        versionKey('s1', version),
        create(VersionRecordSchema, { secretId: 's1', version }),
      );
    tx.put(
      tables.versions,
      versionKey('s11', 1),
      create(VersionRecordSchema, { secretId: 's11', version: 1 }),
    );
  });
  const view = await ClusterView.follow(store);
  t.deepEqual(
    view.versionsOf('s1').map(({ version }) => version),
    [1, 2, 10],
  );
});
