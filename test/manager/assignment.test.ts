import { create } from '@bufbuild/protobuf';
import test from 'ava';
import { assignmentOf, differenceOf, emptyAssignment, isEmpty } from '../../src/manager/assignment.js';
import { ClusterView } from '../../src/manager/view.js';
import type { TaskState } from '../../src/model/task.js';
import {
  HolderRecordSchema,
  SecretRecordSchema,
  ServiceRecordSchema,
  TaskRecordSchema,
  VersionRecordSchema,
} from '../../src/proto/gen/inro/v1/records_pb.js';
import { ReferenceSchema, type Reference } from '../../src/proto/gen/inro/v1/common_pb.js';
import { wireState } from '../../src/proto/task_state.js';
import { holderKey, tables, versionKey } from '../../src/store/tables.js';
import { transact } from '../../src/store/transaction.js';
import { fakeStore } from '../support/fake_store.js';

async function cluster() {
  const store = fakeStore();
  const view = await ClusterView.follow(store);
  return {
    view,
    secret: (id: string, currentVersion = 1) =>
      transact(store, async (tx) =>
        tx.put(tables.secrets, id, create(SecretRecordSchema, { id, name: id, currentVersion })),
      ),
    service: (
      id: string,
      secretIds: string[],
      change: Partial<Omit<Reference, '$typeName' | '$unknown'>> = {},
    ) =>
      transact(store, async (tx) => {
        const references = secretIds.map((secretId) =>
          create(ReferenceSchema, {
            secretId,
            secretName: secretId,
            target: secretId,
            uid: '0',
            gid: '0',
            mode: 0o444,
            ...change,
          }),
        );
        tx.put(tables.services, id, create(ServiceRecordSchema, { id, name: id, references, replicas: 1 }));
      }),
    task: (
      id: string,
      serviceId: string,
      nodeId: string,
      state: TaskState = 'ASSIGNED',
      desired: TaskState = 'RUNNING',
    ) =>
      transact(store, async (tx) => {
        const states = { state: wireState(state), desiredState: wireState(desired) };
        tx.put(tables.tasks, id, create(TaskRecordSchema, { id, serviceId, nodeId, slot: 1, ...states }));
      }),
    version: (secretId: string, version: number, revokedMs = 0n) =>
      transact(store, async (tx) => {
        const record = create(VersionRecordSchema, { secretId, version, revokedMs });
        tx.put(tables.versions, versionKey(secretId, version), record);
      }),
    holder: (nodeId: string, secretId: string, version: number) =>
      transact(store, async (tx) => {
        const record = create(HolderRecordSchema, { nodeId, secretId, version });
        tx.put(tables.holders, holderKey(nodeId, secretId, version), record);
      }),
    of: (nodeId: string) => {
      const { tasks, versions } = assignmentOf(view, nodeId);
      return {
        tasks: [...tasks.keys()],
        versions: [...versions.values()].map((v) => `${v.secretId}@${v.version}`),
      };
    },
  };
}

test('a node gets its own tasks and exactly the secrets that they reference', async (t) => {
  const c = await cluster();
  for (const id of ['s1', 's2', 's3', 'unused']) await c.secret(id);
  await c.service('web', ['s1', 's2']);
  await c.service('api', ['s2', 's3']);
  await c.task('t1', 'web', 'a');
  await c.task('t2', 'api', 'b');
  await c.task('t3', 'web', 'a');
  t.deepEqual(c.of('a'), { tasks: ['t1', 't3'], versions: ['s1@1', 's2@1'] });
  t.deepEqual(c.of('b'), { tasks: ['t2'], versions: ['s2@1', 's3@1'] });
  t.deepEqual(c.of('c'), { tasks: [], versions: [] });
  t.deepEqual(c.of(''), { tasks: [], versions: [] }, 'tasks without a node belong to nobody');
});

test('a task that has ended, or is to end, gets nothing', async (t) => {
  const c = await cluster();
  await c.secret('s1');
  await c.service('web', ['s1']);
  for (const state of ['COMPLETE', 'FAILED', 'SHUTDOWN', 'REJECTED', 'ORPHANED'] as const)
    await c.task(state, 'web', 'a', state);
  await c.task('ending', 'web', 'a', 'RUNNING', 'SHUTDOWN');
  await c.task('orphan', 'no-such-service', 'a');
  t.deepEqual(c.of('a'), { tasks: [], versions: [] });
  for (const state of ['ASSIGNED', 'READY', 'RUNNING'] as const) await c.task(state, 'web', 'b', state);
  t.deepEqual(c.of('b').tasks, ['ASSIGNED', 'READY', 'RUNNING']);
});

test('only the current version goes out', async (t) => {
  const c = await cluster();
  await c.secret('s1', 3);
  await c.service('web', ['s1']);
  await c.task('t1', 'web', 'a');
  t.deepEqual(c.of('a').versions, ['s1@3']);
  const reference = assignmentOf(c.view, 'a').tasks.get('t1')?.references?.[0];
  t.is(reference?.version, 3);
});

test('the difference names what is new, changed and gone, and nothing else', async (t) => {
  const c = await cluster();
  for (const id of ['s1', 's2']) await c.secret(id);
  await c.service('web', ['s1']);
  await c.service('api', ['s2']);
  await c.task('t1', 'web', 'a');
  await c.task('t2', 'api', 'a');
  const first = assignmentOf(c.view, 'a');
  const everything = differenceOf(emptyAssignment(), first);
  t.deepEqual(
    everything.putTasks.map(({ id }) => id),
    ['t1', 't2'],
  );
  t.deepEqual(
    everything.putVersions.map(({ secretId }) => secretId),
    ['s1', 's2'],
  );
  t.true(isEmpty(differenceOf(first, assignmentOf(c.view, 'a'))));

  await c.secret('s1', 2);
  const rotated = differenceOf(first, assignmentOf(c.view, 'a'));
  t.deepEqual(
    rotated.putTasks.map(({ id }) => id),
    ['t1'],
  );
  t.deepEqual(rotated.putVersions, [{ secretId: 's1', version: 2 }]);
  t.deepEqual(rotated.removeTasks, []);

  await c.task('t1', 'web', 'a', 'RUNNING', 'SHUTDOWN');
  const ended = differenceOf(first, assignmentOf(c.view, 'a'));
  t.deepEqual(ended.removeTasks, ['t1']);
  t.deepEqual([ended.putTasks, ended.putVersions], [[], []]);
});

test('a version whose tasks all go is told again to those that come with it', async (t) => {
  const c = await cluster();
  for (const id of ['s1', 's2']) await c.secret(id);
  await c.service('web', ['s1']);
  await c.service('api', ['s2']);
  await c.task('t1', 'web', 'a');
  await c.task('t2', 'api', 'a');
  const first = assignmentOf(c.view, 'a');
  for (const [service, one] of [
    ['web', 't1'],
    ['api', 't2'],
  ] as const) {
    await c.task(`${one}-more`, service, 'a');
    if (service === 'web') await c.task(one, service, 'a', 'FAILED');
  }
  const { removeTasks, putVersions, putTasks } = differenceOf(first, assignmentOf(c.view, 'a'));
  t.deepEqual(removeTasks, ['t1']);
  t.deepEqual(putTasks.map(({ id }) => id).sort(), ['t1-more', 't2-more']);
  t.deepEqual(putVersions, [{ secretId: 's1', version: 1 }]);
});

test('that a task came further is no reason to tell its node', async (t) => {
  const c = await cluster();
  await c.service('web', []);
  await c.task('t1', 'web', 'a', 'ASSIGNED');
  const before = assignmentOf(c.view, 'a');
  await c.task('t1', 'web', 'a', 'RUNNING');
  t.true(isEmpty(differenceOf(before, assignmentOf(c.view, 'a'))));
});

test('a changed file name, owner or mode is a change of the task, without a new version', async (t) => {
  const c = await cluster();
  await c.secret('s1');
  await c.service('web', ['s1']);
  await c.task('t1', 'web', 'a');
  const before = assignmentOf(c.view, 'a');
  for (const change of [{ mode: 0o400 }, { uid: '1' }, { gid: 'x' }, { target: 'y' }]) {
    await c.service('web', ['s1'], change);
    const { putTasks, putVersions } = differenceOf(before, assignmentOf(c.view, 'a'));
    t.like(putTasks[0]?.references?.[0]?.reference, change);
    t.deepEqual(putVersions, []);
  }
});

test('a reference whose secret is revoked is left out, with words; an older version that is revoked changes nothing', async (t) => {
  const c = await cluster();
  await c.secret('s1', 2);
  await c.secret('s2');
  await c.service('web', ['s1', 's2']);
  await c.task('t1', 'web', 'a');
  await c.version('s1', 1, 5n);
  await c.version('s1', 2);
  t.deepEqual(c.of('a').versions, ['s1@2', 's2@1']);
  t.is(assignmentOf(c.view, 'a').tasks.get('t1')?.notice, '');
  const before = assignmentOf(c.view, 'a');
  await c.version('s1', 2, 5n);
  const after = assignmentOf(c.view, 'a');
  t.deepEqual(c.of('a').versions, ['s2@1']);
  t.like(differenceOf(before, after).putTasks, [{ notice: 'secret s1 is revoked: no value to serve' }]);
  await c.version('s2', 1, 5n);
  const { notice, references } = assignmentOf(c.view, 'a').tasks.get('t1') ?? {};
  t.is(notice, 'secrets s1, s2 are revoked: no values to serve');
  t.deepEqual(references, []);
});

test('what a node may hold and must not is said once, whether or not a task of it ever used it', async (t) => {
  const c = await cluster();
  await c.version('s1', 1);
  await c.version('s2', 1, 5n);
  await c.holder('a', 's1', 1);
  await c.holder('a', 's2', 1);
  await c.holder('b', 's2', 1);
  const first = assignmentOf(c.view, 'a');
  t.deepEqual(differenceOf(emptyAssignment(), first).revoke, [{ secretId: 's2', version: 1 }]);
  t.true(isEmpty(differenceOf(first, assignmentOf(c.view, 'a'))));
  await c.version('s1', 1, 6n);
  const next = differenceOf(first, assignmentOf(c.view, 'a'));
  t.deepEqual(next.revoke, [{ secretId: 's1', version: 1 }]);
  t.false(isEmpty(next));
  t.deepEqual(differenceOf(emptyAssignment(), assignmentOf(c.view, 'c')).revoke, []);
});
