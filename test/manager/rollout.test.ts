import { create } from '@bufbuild/protobuf';
import test, { type ExecutionContext } from 'ava';
import { beginRollback, beginUpdate } from '../../src/manager/rollout.js';
import { managerLimits } from '../../src/manager/limits.js';
import { defaultUpdatePolicy, type UpdatePolicy } from '../../src/model/update_policy.js';
import {
  ContainerSpecSchema,
  RestartCondition,
  UpdatePolicySchema,
} from '../../src/proto/gen/inro/v1/common_pb.js';
import type { TaskRecord } from '../../src/proto/gen/inro/v1/records_pb.js';
import { stateOf } from '../../src/proto/task_state.js';
import { updateStateOf, wirePolicy } from '../../src/proto/update_policy.js';
import { tables } from '../../src/store/tables.js';
import { transact } from '../../src/store/transaction.js';
import { settle } from '../support/fake_clock.js';
import { scheduling } from '../support/scheduling.js';

const imageOf = (image: string) => create(ContainerSpecSchema, { image });

/** Three tasks of image v1, running. */
async function running(t: ExecutionContext, policy: Partial<UpdatePolicy> = {}, replicas = 3) {
  const s = await scheduling(t, ['a', 'b', 'c']);
  const update = create(UpdatePolicySchema, wirePolicy({ ...defaultUpdatePolicy, ...policy }));
  await s.service('web', { replicas, container: imageOf('v1'), update });
  for (const task of s.tasks()) await s.report(task, 'RUNNING');
  const change = async (how: 'v2' | 'v3' | 'back'): Promise<void> => {
    await transact(s.store, async (tx) => {
      const service = await tx.get(tables.services, 'web');
      if (service === undefined) throw new Error('no such service');
      if (how === 'back') beginRollback(service, s.clock.now(), '');
      else beginUpdate(service, imageOf(how), s.clock.now());
      tx.put(tables.services, 'web', service);
    });
    await settle();
  };
  const isLive = (task: TaskRecord): boolean => ['NEW', 'ASSIGNED', 'RUNNING'].includes(stateOf(task.state));
  return {
    ...s,
    change,
    state: () => updateStateOf(s.view.services.get('web')?.updateStatus?.state ?? 0),
    message: () => s.view.services.get('web')?.updateStatus?.message,
    /** `slot image state`, of what has not ended. */
    live: (): string[] =>
      s
        .tasks()
        .filter(isLive)
        .map(
          ({ slot, container, state, desiredState }) =>
            `${slot} ${container?.image} ${stateOf(state)}${stateOf(desiredState) === 'RUNNING' ? '' : ' ending'}`,
        ),
    async reportAll(from: string, to: 'RUNNING' | 'FAILED' | 'COMPLETE' | 'SHUTDOWN'): Promise<void> {
      const isEnding = to === 'SHUTDOWN';
      for (const task of s.tasks())
        if (isLive(task) && task.container?.image === from)
          if (isEnding ? stateOf(task.desiredState) === 'SHUTDOWN' : stateOf(task.state) === 'ASSIGNED')
            await s.report(task, to, to === 'FAILED' ? 'exit code 1' : '');
    },
  };
}

test('one after the other: the old task ends, then the new one starts, then the next', async (t) => {
  const s = await running(t);
  await s.change('v2');
  t.deepEqual(s.live(), ['1 v1 RUNNING ending', '2 v1 RUNNING', '3 v1 RUNNING']);
  await s.reportAll('v1', 'SHUTDOWN');
  t.deepEqual(s.live(), ['1 v2 ASSIGNED', '2 v1 RUNNING', '3 v1 RUNNING']);
  await s.reportAll('v2', 'RUNNING');
  t.deepEqual(s.live(), ['1 v2 RUNNING', '2 v1 RUNNING ending', '3 v1 RUNNING']);
  for (let n = 0; n < 2; n++) {
    await s.reportAll('v1', 'SHUTDOWN');
    await s.reportAll('v2', 'RUNNING');
  }
  t.deepEqual(s.live(), ['1 v2 RUNNING', '2 v2 RUNNING', '3 v2 RUNNING']);
  t.is(s.state(), 'updating', 'they are watched for a while');
  await s.clock.advance(defaultUpdatePolicy.monitorMs);
  t.is(s.state(), 'completed');
});

test('start first: the old task ends when the new one runs; two at a time, with a pause between', async (t) => {
  const s = await running(t, { order: 'start-first', parallelism: 2, delayMs: 10_000 });
  await s.change('v2');
  const both = ['1 v1 RUNNING', '1 v2 ASSIGNED', '2 v1 RUNNING', '2 v2 ASSIGNED', '3 v1 RUNNING'];
  t.deepEqual(s.live(), both);
  await s.reportAll('v2', 'RUNNING');
  t.deepEqual(s.live().length, 5, 'it may end as soon as it has begun');
  await s.clock.advance(managerLimits.startFirstMs);
  t.deepEqual(
    s.live().filter((line) => line.endsWith('ending')),
    ['1 v1 RUNNING ending', '2 v1 RUNNING ending'],
  );
  await s.reportAll('v1', 'SHUTDOWN');
  t.deepEqual(s.live(), ['1 v2 RUNNING', '2 v2 RUNNING', '3 v1 RUNNING']);
  await s.clock.advance(9_999 - managerLimits.startFirstMs);
  t.is(s.live().length, 3);
  await s.clock.advance(1);
  t.deepEqual(s.live().slice(2), ['3 v1 RUNNING', '3 v2 ASSIGNED']);
});

test('start first, overtaken by another update: what did not come to run ends, and a slot never has three', async (t) => {
  const s = await running(t, { order: 'start-first' }, 1);
  await s.change('v2');
  t.deepEqual(s.live(), ['1 v1 RUNNING', '1 v2 ASSIGNED']);
  await s.change('v3');
  t.deepEqual(s.live(), ['1 v1 RUNNING', '1 v2 ASSIGNED ending']);
  await s.reportAll('v2', 'SHUTDOWN');
  t.deepEqual(s.live(), ['1 v1 RUNNING', '1 v3 ASSIGNED']);
  await s.reportAll('v3', 'RUNNING');
  await s.clock.advance(managerLimits.startFirstMs);
  await s.reportAll('v1', 'SHUTDOWN');
  t.deepEqual(s.live(), ['1 v3 RUNNING']);
});

test('a new task that fails stops the update; what is not replaced yet goes on', async (t) => {
  const s = await running(t);
  await s.change('v2');
  await s.reportAll('v1', 'SHUTDOWN');
  await s.reportAll('v2', 'FAILED');
  t.is(s.state(), 'paused');
  t.regex(s.message() ?? '', /^task \w{25} has failed: exit code 1$/);
  await s.clock.advance(managerLimits.restartDelayMs);
  await s.reportAll('v2', 'RUNNING');
  await s.clock.advance(60_000);
  t.deepEqual(s.live(), ['1 v2 RUNNING', '2 v1 RUNNING', '3 v1 RUNNING']);
  await s.change('v3');
  t.is(s.state(), 'updating', 'the next change goes on from there');
  t.deepEqual(s.live(), ['1 v2 RUNNING ending', '2 v1 RUNNING', '3 v1 RUNNING']);
});

test('rolled back by itself: what is replaced gets the earlier one again, the others are not touched', async (t) => {
  const s = await running(t, { failureAction: 'rollback' });
  const untouched = s
    .tasks()
    .slice(1)
    .map(({ id }) => id);
  await s.change('v2');
  await s.reportAll('v1', 'SHUTDOWN');
  await s.reportAll('v2', 'FAILED');
  t.is(s.state(), 'rollback_started');
  await s.clock.advance(managerLimits.restartDelayMs);
  t.deepEqual(s.live(), ['1 v1 ASSIGNED', '2 v1 RUNNING', '3 v1 RUNNING']);
  await s.reportAll('v1', 'RUNNING');
  await s.clock.advance(defaultUpdatePolicy.monitorMs);
  t.is(s.state(), 'rollback_completed');
  t.regex(s.message() ?? '', /exit code 1/);
  t.deepEqual(s.tasks().filter(({ id }) => untouched.includes(id)).length, 2);
});

test('some failures may be allowed, or all', async (t) => {
  const some = await running(t, { maxFailuresPermille: 400, parallelism: 0 });
  await some.change('v2');
  await some.reportAll('v1', 'SHUTDOWN');
  const [first, second] = some.tasks().filter(({ container }) => container?.image === 'v2');
  await some.report(first, 'FAILED');
  t.is(some.state(), 'updating');
  await some.report(second, 'FAILED');
  t.is(some.state(), 'paused');

  const all = await running(t, { failureAction: 'continue' });
  await all.change('v2');
  for (let n = 0; n < 3; n++) {
    await all.reportAll('v1', 'SHUTDOWN');
    await all.reportAll('v2', 'FAILED');
  }
  t.deepEqual(all.live(), [], 'one that fails does not hold up the others');
  t.is(all.state(), 'updating', 'but nothing runs yet');
  await all.clock.advance(managerLimits.restartDelayMs);
  await all.reportAll('v2', 'RUNNING');
  await all.clock.advance(defaultUpdatePolicy.monitorMs);
  t.is(all.state(), 'completed');
});

test('a new task that ends at once has failed, whatever it says of itself, unless it is meant to end', async (t) => {
  const s = await running(t);
  await s.change('v2');
  await s.reportAll('v1', 'SHUTDOWN');
  await s.reportAll('v2', 'COMPLETE');
  t.is(s.state(), 'paused');
  t.regex(s.message() ?? '', /^task \w{25} has ended$/);

  const jobs = await running(t);
  await jobs.service('web', { restart: RestartCondition.ON_FAILURE });
  await jobs.change('v2');
  for (let n = 0; n < 3; n++) {
    await jobs.reportAll('v1', 'SHUTDOWN');
    await jobs.clock.advance(1);
    await jobs.reportAll('v2', 'COMPLETE');
  }
  t.is(jobs.state(), 'completed');
});

test('by hand there and back again: each slot gets what it had', async (t) => {
  const s = await running(t, { parallelism: 0 });
  await s.change('v2');
  await s.reportAll('v1', 'SHUTDOWN');
  await s.reportAll('v2', 'RUNNING');
  await s.clock.advance(defaultUpdatePolicy.monitorMs);
  await s.change('back');
  await s.reportAll('v2', 'SHUTDOWN');
  t.deepEqual(s.live(), ['1 v1 ASSIGNED', '2 v1 ASSIGNED', '3 v1 ASSIGNED']);
  await s.reportAll('v1', 'RUNNING');
  await s.clock.advance(defaultUpdatePolicy.monitorMs);
  t.is(s.state(), 'rollback_completed');
  await s.change('back');
  t.deepEqual(s.live()[0], '1 v1 RUNNING ending', 'and back to what was taken back');
});

test('another scheduler goes on where one has stopped', async (t) => {
  const s = await running(t);
  await s.change('v2');
  await s.reportAll('v1', 'SHUTDOWN');
  await s.scheduler.stop();
  await s.reportAll('v2', 'RUNNING');
  const next = s.anotherScheduler();
  next.reconcile(['web']);
  await settle();
  t.deepEqual(s.live(), ['1 v2 RUNNING', '2 v1 RUNNING ending', '3 v1 RUNNING']);
});

test('a task that a lost node has kept is replaced when the node is back, however long the update is over', async (t) => {
  const s = await scheduling(t, ['a', 'b']);
  await s.service('web', { global: true, replicas: 0, container: imageOf('v1') });
  for (const task of s.tasks()) await s.report(task, 'RUNNING');
  s.down.add('b');
  await s.service('web', {});
  await transact(s.store, async (tx) => {
    const service = await tx.get(tables.services, 'web');
    if (service !== undefined) beginUpdate(service, imageOf('v2'), s.clock.now());
    if (service !== undefined) tx.put(tables.services, 'web', service);
  });
  await settle();
  const ofA = (): TaskRecord | undefined =>
    s
      .tasks()
      .filter(({ nodeId }) => nodeId === 'a')
      .at(-1);
  await s.report(ofA(), 'SHUTDOWN');
  await s.report(ofA(), 'RUNNING');
  await s.clock.advance(defaultUpdatePolicy.monitorMs);
  t.is(updateStateOf(s.view.services.get('web')?.updateStatus?.state ?? 0), 'completed');
  s.down.delete('b');
  await s.nodesChanged('b');
  t.deepEqual(
    s
      .tasks()
      .filter(({ nodeId }) => nodeId === 'b')
      .map(({ desiredState }) => stateOf(desiredState)),
    ['SHUTDOWN'],
  );
});

test('many tasks are written in several commits', async (t) => {
  const s = await scheduling(t, ['a', 'b']);
  const replicas = managerLimits.maxTasksPerCommit * 3 + 1;
  await s.service('web', { replicas });
  for (let n = 0; n < 5; n++) await settle();
  t.is(s.tasks().filter(({ nodeId }) => nodeId !== '').length, replicas);
  await s.service('web', { replicas: 0 });
  for (let n = 0; n < 5; n++) await settle();
  t.true(s.tasks().every(({ desiredState }) => stateOf(desiredState) === 'SHUTDOWN'));
});
