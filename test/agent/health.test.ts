/** One word on an agent, for each way in which it can stand. */
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import test from 'ava';
import { healthOf } from '../../src/agent/health.js';
import { AgentStatusSchema } from '../../src/proto/gen/inro/v1/agent_pb.js';
import { TaskState } from '../../src/proto/gen/inro/v1/common_pb.js';

type Status = MessageInitShape<typeof AgentStatusSchema>;

const hour = 3_600_000n;
const session = { state: 'connected', leaseLeftMs: 24n * hour };
const mount = { path: '/run/inro/secrets' };
const task = { id: 't1', serviceName: 'web', error: 'the arena is full' };
const held = { state: 'waiting', lastError: 'ECONNREFUSED' };

const rows: [what: string, status: Status, health: string, ...reasons: string[]][] = [
  ['connected, mounted', {}, 'healthy'],
  [
    'a task that runs or has ended',
    { tasks: [{ ...task, state: TaskState.RUNNING }, { state: TaskState.SHUTDOWN }] },
    'healthy',
  ],
  ['between two streams', { session: { state: 'connecting', leaseLeftMs: hour } }, 'healthy'],
  ['what this version has not', { protections: [{ name: 'readers identified', extra: true }] }, 'healthy'],
  ['receipts that wait', { receipts: { pending: 3 } }, 'healthy'],
  [
    'between two streams, the lease nearly over',
    { session: { state: 'connecting', leaseLeftMs: hour - 1n } },
    'degraded',
    'no session with a manager, the lease holds for 59 min more',
  ],
  [
    'a try that has failed',
    { session: { ...held, leaseLeftMs: 23n * hour } },
    'degraded',
    'no session with a manager, the lease holds for 1380 min more: ECONNREFUSED',
  ],
  ['a certificate on trial', { renewal: { onTrial: true, dueMs: 5n } }, 'healthy'],
  [
    'a certificate that could not be renewed',
    { renewal: { lastFailure: 'ECONNREFUSED' }, certificateExpiresMs: 1_000n },
    'degraded',
    'the certificate could not be renewed, it lasts until 1970-01-01T00:00:01.000Z: ECONNREFUSED',
  ],
  [
    'a certificate that has expired, while the lease holds',
    { renewal: { expired: 'it expired: join', lastFailure: 'ECONNREFUSED' } },
    'degraded',
    'it expired: join',
  ],
  [
    'a certificate that has expired, and no lease',
    { renewal: { expired: 'it expired: join' }, session: { ...held, leaseLeftMs: 0n } },
    'unhealthy',
    'nothing is served: no lease of a manager holds: ECONNREFUSED',
    'it expired: join',
  ],
  [
    'a protection that is not in force',
    {
      protections: [
        { name: 'locked arena', detail: 'EPERM' },
        { name: 'direct I/O', inForce: true },
      ],
    },
    'degraded',
    'not in force: locked arena (EPERM)',
  ],
  [
    'receipts that are gone',
    { receipts: { dropped: 2n } },
    'degraded',
    '2 receipts were dropped: too many waited for a manager',
  ],
  [
    'a task that failed',
    { tasks: [{ ...task, state: TaskState.FAILED }] },
    'degraded',
    'task t1 of web is FAILED: the arena is full',
  ],
  [
    'a task that was refused',
    { tasks: [{ ...task, state: TaskState.REJECTED }] },
    'degraded',
    'task t1 of web is REJECTED: the arena is full',
  ],
  [
    'several at once',
    { session: { ...held, leaseLeftMs: hour }, receipts: { dropped: 1n } },
    'degraded',
    'no session with a manager, the lease holds for 60 min more: ECONNREFUSED',
    '1 receipts were dropped: too many waited for a manager',
  ],
  [
    'the lease is over',
    { session: { ...held, leaseLeftMs: 0n } },
    'unhealthy',
    'nothing is served: no lease of a manager holds: ECONNREFUSED',
  ],
  [
    'no manager was heard yet',
    { session: { state: 'connecting' } },
    'unhealthy',
    'nothing is served: no lease of a manager holds',
  ],
  [
    'the mount is gone',
    { mount: { ...mount, notServed: 'it was unmounted' }, receipts: { dropped: 1n } },
    'unhealthy',
    'the mount /run/inro/secrets is not served: it was unmounted',
  ],
];

for (const [what, status, health, ...reasons] of rows) {
  test(what, (t) => {
    const whole = { session, mount, ...status } as Status;
    t.deepEqual(healthOf(create(AgentStatusSchema, whole)), {
      health: health as 'healthy',
      reasons,
    });
  });
}
