/** What a service's tasks may run. */
import test from 'ava';
import { checkContainer, parseMount, type ContainerSpec } from '../../src/model/container.js';

const plain: ContainerSpec = {
  image: 'redis:alpine',
  args: [],
  env: [],
  labels: {},
  mounts: [],
  user: '',
  workingDirectory: '',
  network: '',
  readOnly: false,
  stopSignal: '',
  stopGraceMs: 0,
};

const refused = (change: Partial<ContainerSpec>) => () => checkContainer({ ...plain, ...change });

test('what is usual is taken', (t) => {
  const usual = {
    ...plain,
    image: 'registry.example:5000/team/redis@sha256:0123',
    args: ['redis-server', '--appendonly', 'yes'],
    env: ['TZ=UTC', 'EMPTY='],
    mounts: [parseMount('type=volume,src=data,dst=/data'), parseMount('type=tmpfs,target=/tmp,ro')],
    user: '1000:1000',
    workingDirectory: '/srv',
    network: 'backend',
    stopSignal: 'SIGINT',
    stopGraceMs: 30_000,
  };
  t.is(checkContainer(usual), usual);
  t.deepEqual(usual.mounts, [
    { type: 'volume', source: 'data', target: '/data', readOnly: false },
    { type: 'tmpfs', source: '', target: '/tmp', readOnly: true },
  ]);
});

test('what is no image, variable, signal or folder is named', (t) => {
  for (const image of ['', '--privileged', 'a b', 'a\nb', 'x'.repeat(600)])
    t.throws(refused({ image }), { message: /is no name of an image/ });
  t.throws(refused({ env: ['NOVALUE'] }), { message: /"NOVALUE" is not KEY=VALUE/ });
  t.throws(refused({ args: ['x'.repeat(10_000)] }), { message: /too long/ });
  t.throws(refused({ args: Array.from({ length: 300 }, () => 'a') }), { message: /256 words/ });
  t.throws(refused({ workingDirectory: 'srv' }), { message: /not absolute/ });
  t.throws(refused({ stopSignal: 'please' }), { message: /no signal/ });
  t.throws(refused({ stopGraceMs: 1e9 }), { message: /stop grace/ });
});

test('nothing of the host is given away: no folder, no network, not the secrets themselves', (t) => {
  t.throws(() => parseMount('type=bind,source=/,target=/host'), { message: /type "bind" are not possible/ });
  t.throws(() => parseMount('type=volume,source=/etc,target=/x'), { message: /no name of a volume/ });
  t.throws(() => parseMount('type=volume,source=a,target=x'), { message: /not an absolute path/ });
  t.throws(() => parseMount('type=volume,source=a,target=/x/../y'), { message: /not an absolute path/ });
  t.throws(() => parseMount('type=volume,source=a,target=/run/secrets/x'), {
    message: /where the secrets are/,
  });
  t.throws(() => parseMount('type=volume,source=a,target=/x,bind-propagation=shared'), {
    message: /"bind-propagation" .* is not known/,
  });
  for (const network of ['host', 'container:abc'])
    t.throws(refused({ network }), { message: /not the service's own/ });
});
