import test from 'ava';
import { hasEnded, isForward, taskStates } from '../../src/model/task.js';

test('four states in which a task lives, in order, and those in which it has ended', (t) => {
  t.deepEqual(taskStates.slice(0, 4), ['NEW', 'ASSIGNED', 'READY', 'RUNNING']);
  t.deepEqual(taskStates.slice(4).sort(), ['COMPLETE', 'FAILED', 'ORPHANED', 'REJECTED', 'SHUTDOWN']);
  t.deepEqual(taskStates.filter(hasEnded), taskStates.slice(4));
});

test('states go forward only, and an ended task stays as it ended', (t) => {
  t.true(isForward('NEW', 'ASSIGNED'));
  t.true(isForward('ASSIGNED', 'RUNNING'), 'steps may be skipped');
  t.true(isForward('RUNNING', 'RUNNING'), 'with another error, for example');
  t.true(isForward('ASSIGNED', 'REJECTED'));
  t.false(isForward('RUNNING', 'READY'));
  t.false(isForward('RUNNING', 'NEW'));
  for (const ended of taskStates.filter(hasEnded)) {
    for (const state of taskStates) t.false(isForward(ended, state), `${ended} -> ${state}`);
  }
});
