import test from 'ava';
import { Attachments } from '../../src/agent/workloads/attachments.js';

const task = { id: 'task1', serviceId: 'service1' };
const workload = { serviceId: 'service1', taskId: '', sinceMs: 1_000 };

test('what is noted beside a gate says to a successor who may read: a cgroup, a container by its id, nobody', (t) => {
  const before = new Attachments();
  const cgroup = { cgroup: 77, path: '/a/b' };
  const container = { cgroup: 0, path: 'c'.repeat(64) };
  before.add({ ...workload, id: '1', kind: 'exec', name: 'sh', cgroup });
  before.add({ ...workload, id: '2', kind: 'container', name: 'web', cgroup: container });
  before.add({ ...workload, id: '3', kind: 'unit', name: 'app.service', cgroup: undefined });
  const gate = before.gateOf(task, 'auto');
  t.deepEqual(gate.readers, [cgroup, container]);

  const after = new Attachments();
  after.inherit(task, gate.note, true);
  t.deepEqual(after.list(), before.list());
  t.deepEqual(after.gateOf(task, 'auto'), gate);
});

test('a note that is none says nothing', (t) => {
  const attachments = new Attachments();
  attachments.inherit(task, new Uint8Array([0xff]), true);
  t.deepEqual(attachments.list(), []);
  t.deepEqual(attachments.gateOf(task, 'auto').readers, []);
});
