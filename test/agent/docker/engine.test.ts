/** An engine that answers what it should not: each is told in words, and takes no more memory or time than it may. */
import { setImmediate } from 'node:timers/promises';
import test from 'ava';
import { Engine } from '../../../src/agent/docker/engine.js';
import { fakeEngine, json, text, type Answer } from '../../support/fake_engine.js';

const limits = { ms: 300, bytes: 64 * 1024 };

const endless: Answer = (_, response) => {
  response.writeHead(200);
  const more = async (): Promise<void> => {
    while (!response.destroyed) {
      response.write('x'.repeat(8 * 1024));
      await setImmediate();
    }
  };
  void more();
};

const cutOff: Answer = (_, response) => {
  response.writeHead(200, { 'content-length': '1000' });
  response.write('[{"Id":');
  setTimeout(() => response.destroy(), 20);
};

const silent: Answer = () => undefined;

const half: Answer = (_, response) => {
  response.writeHead(200);
  response.write('[');
};

const container = { Id: 'c1', Names: ['/web.1'], State: 'running' };
const volume = { Type: 'volume', Name: 'web', Driver: 'inro' };

test('containers with volumes of the driver, and of no other', async (t) => {
  const fake = await fakeEngine(
    t,
    json([
      { ...container, Mounts: [volume, { Type: 'bind' }, { ...volume, Name: 'other', Driver: 'local' }] },
      { Id: 'without names'.padEnd(64, '0'), State: 'exited', Names: null, Mounts: [volume] },
      { ...container, Mounts: null },
      container,
    ]),
  );
  t.deepEqual(await new Engine(fake.socketPath).containersWithVolumes('inro'), [
    { id: 'c1', name: 'web.1', state: 'running', volumes: ['web'] },
    { id: 'without names'.padEnd(64, '0'), name: 'without name', state: 'exited', volumes: ['web'] },
  ]);
});

const bad: readonly [string, Answer, RegExp, string][] = [
  ['not JSON', text('<html>'), /what is not JSON/, 'protocol'],
  ['an object for a list', json({}), /not asked for: the whole: .*array/, 'protocol'],
  ['null', json(null), /not asked for: the whole/, 'protocol'],
  ['a container that is a number', json([7]), /not asked for: 0: /, 'protocol'],
  ['no id', json([{ ...container, Id: undefined }]), /not asked for: 0\.Id: /, 'protocol'],
  ['an empty id', json([{ ...container, Id: '' }]), /not asked for: 0\.Id: /, 'protocol'],
  ['names that are a text', json([{ ...container, Names: 'web' }]), /0\.Names/, 'protocol'],
  ['a mount without a kind', json([{ ...container, Mounts: [{}] }]), /0\.Mounts\.0\.Type/, 'protocol'],
  ['without an end', endless, /answered more than 65536 bytes/, 'protocol'],
  ['cut off', cutOff, /does not answer: ECONNRESET/, 'unreachable'],
  ['nothing at all', silent, /does not answer: it takes too long/, 'unreachable'],
  ['the half, and then nothing', half, /does not answer: it takes too long/, 'unreachable'],
  [
    'an error in words',
    json({ message: 'no room' }, 500),
    /the container engine says: no room/,
    'unreachable',
  ],
  ['an error without words', text('', 503), /the container engine says: status 503/, 'unreachable'],
  ['an error that is not JSON', text('oops', 500), /says: status 500/, 'unreachable'],
  ['an error of another shape', json({ message: { a: 1 } }, 500), /says: status 500/, 'unreachable'],
  ['an error without an end', (...at) => endless(...at), /answered more than 65536 bytes/, 'protocol'],
];

for (const [title, answer, message, code] of bad) {
  test(`a list of containers: ${title}`, async (t) => {
    const fake = await fakeEngine(t, answer);
    const engine = new Engine(fake.socketPath, limits);
    await t.throwsAsync(engine.containersWithVolumes('inro'), { message, code });
  });
}

test('an engine that is not there, or is no engine', async (t) => {
  const engine = new Engine('/run/never-there.sock');
  await t.throwsAsync(engine.hasImage('web'), { message: /does not answer: ENOENT/, code: 'unreachable' });
});

test('the state of a container', async (t) => {
  const fake = await fakeEngine(
    t,
    json({ State: { Status: 'exited', ExitCode: 3, OOMKilled: true, Error: 'e' } }),
  );
  const engine = new Engine(fake.socketPath, limits);
  t.deepEqual(await engine.inspect('c1'), { state: 'exited', exitCode: 3, outOfMemory: true, error: 'e' });
  fake.answer = json({ State: { Status: 'running' } });
  t.deepEqual(await engine.inspect('c1'), { state: 'running', exitCode: 0, outOfMemory: false, error: '' });
  for (const wrong of [{}, { State: null }, { State: {} }, { State: { Status: 'exited', ExitCode: '3' } }]) {
    fake.answer = json(wrong);
    await t.throwsAsync(engine.inspect('c1'), { code: 'protocol' });
  }
  fake.answer = json({ message: 'No such container: c1' }, 404);
  await t.throwsAsync(engine.inspect('c1'), { code: 'not_found', message: /No such container: c1/ });
});

test('a pull: its failure stands in the stream; what comes before it is not kept', async (t) => {
  const progress = `${JSON.stringify({ status: 'Downloading' })}\n`.repeat(20_000);
  const fake = await fakeEngine(t, text(`${progress}${JSON.stringify({ error: 'manifest unknown' })}\n`));
  const engine = new Engine(fake.socketPath, limits);
  const { signal } = new AbortController();
  await t.throwsAsync(engine.pull('web', signal), { message: /web cannot be pulled: manifest unknown/ });
  t.deepEqual(fake.asked, ['POST /images/create?fromImage=web&tag=latest']);
  fake.answer = text(progress);
  await t.notThrowsAsync(engine.pull('registry:5000/web@sha256:00', signal));
  t.is(fake.asked[1], 'POST /images/create?fromImage=registry%3A5000%2Fweb%40sha256%3A00');
  fake.answer = cutOff;
  await t.throwsAsync(engine.pull('web', signal), { code: 'unreachable' });
});

test('a container that is made without an id, and one that is gone before it is removed', async (t) => {
  const fake = await fakeEngine(t, json({ Warnings: [] }, 201));
  const engine = new Engine(fake.socketPath, limits);
  await t.throwsAsync(engine.create('web', {}), { code: 'protocol', message: /Id/ });
  fake.answer = json({ message: 'gone' }, 404);
  await t.notThrowsAsync(engine.remove('c1'));
  fake.answer = json({ message: 'busy' }, 409);
  await t.throwsAsync(engine.remove('c1'), { code: 'conflict' });
  fake.answer = text('', 304);
  await t.notThrowsAsync(engine.stop('c1', 0));
});

test('events come one by one, however they are cut', async (t) => {
  const event = (action: string): string =>
    `${JSON.stringify({ Action: action, Actor: { ID: 'c1' }, timeNano: 5e6 })}\n`;
  const fake = await fakeEngine(t, (_, response) => {
    response.writeHead(200);
    const bytes = Buffer.from(`${event('start')}\n${event('exec_create: \u00e9')}${event('die')}`);
    const one = async (): Promise<void> => {
      for (const byte of bytes) {
        response.write(Buffer.of(byte));
        await setImmediate();
      }
      response.destroy();
    };
    void one();
  });
  const engine = new Engine(fake.socketPath, limits);
  const seen: unknown[] = [];
  await t.throwsAsync(
    async () => {
      for await (const one of engine.events(new AbortController().signal)) seen.push(one);
    },
    { code: 'unreachable' },
  );
  t.deepEqual(
    seen,
    ['start', 'exec_create: \u00e9', 'die'].map((action) => ({ action, containerId: 'c1', atMs: 5 })),
  );
});

for (const [title, answer, code] of [
  ['without an end', endless, 'protocol'],
  ['not JSON', text('start\n'), 'protocol'],
  ['a list', text('[]\n'), 'protocol'],
  ['an id that is a number', text('{"Actor":{"ID":7}}\n'), 'protocol'],
] as const) {
  test(`an event: ${title}`, async (t) => {
    const fake = await fakeEngine(t, answer);
    const engine = new Engine(fake.socketPath, limits);
    const follow = async (): Promise<void> => {
      for await (const _one of engine.events(new AbortController().signal)) t.fail();
    };
    await t.throwsAsync(follow(), { code });
  });
}
