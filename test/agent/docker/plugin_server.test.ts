/** Who speaks to the plugin's socket as no engine does. */
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { pino } from 'pino';
import { servePlugin, type PluginRequest } from '../../../src/agent/docker/plugin_server.js';
import { InroError } from '../../../src/model/error.js';

interface Plugin {
  path: string;
  handled: PluginRequest[];
  ask: (method: string, path: string, body?: string | Buffer) => Promise<{ status: number; body: unknown }>;
}

async function plugin(t: ExecutionContext): Promise<Plugin> {
  const folder = mkdtempSync(join(tmpdir(), 'plugin-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const path = join(folder, 'inro.sock');
  const handled: PluginRequest[] = [];
  const handlers = {
    Mount: async (asked: PluginRequest) => {
      handled.push(asked);
      return { Mountpoint: '/there' };
    },
    Get: async () => Promise.reject(new InroError('not_found', 'there is no volume', { remedy: 'make it' })),
    Path: async () => Promise.reject(new TypeError('a bug')),
  };
  t.teardown(await servePlugin(path, handlers, pino({ level: 'silent' })));
  const ask = (method: string, url: string, body: string | Buffer = '') =>
    new Promise<{ status: number; body: unknown }>((resolve, reject) => {
      const sent = request({ socketPath: path, path: url, method, agent: false }, (response) => {
        let said = '';
        response.setEncoding('utf8').on('data', (chunk: string) => (said += chunk));
        response.on('end', () => resolve({ status: response.statusCode ?? 0, body: JSON.parse(said) }));
      });
      sent.once('error', reject).end(body);
    });
  return { path, handled, ask };
}

test('it says what it is, and answers a call', async (t) => {
  const { path, handled, ask } = await plugin(t);
  t.is(statSync(path).mode & 0o777, 0o600);
  t.deepEqual(await ask('POST', '/Plugin.Activate'), { status: 200, body: { Implements: ['VolumeDriver'] } });
  const body = JSON.stringify({ Name: 'web', ID: '1', Opts: { service: 'web' } });
  t.deepEqual(await ask('POST', '/VolumeDriver.Mount', body), {
    status: 200,
    body: { Mountpoint: '/there', Err: '' },
  });
  t.deepEqual(handled, [{ Name: 'web', ID: '1', Opts: { service: 'web' } }]);
});

test('what is no call of its', async (t) => {
  const { handled, ask } = await plugin(t);
  for (const [method, path] of [
    ['GET', '/VolumeDriver.Mount'],
    ['POST', '/VolumeDriver.'],
    ['POST', '/VolumeDriver.toString'],
    ['POST', '/VolumeDriver.__proto__'],
    ['POST', '/Mount'],
    ['POST', '/../VolumeDriver.Mount'],
    ['POST', '/'],
  ] as const) {
    t.deepEqual(await ask(method, path), { status: 404, body: { Err: `inro knows no ${path}` } }, path);
  }
  t.deepEqual(handled, []);
});

test('a request that is damaged, too large, or of another shape', async (t) => {
  const { handled, ask } = await plugin(t);
  const mount = (body: string | Buffer) => ask('POST', '/VolumeDriver.Mount', body);
  t.deepEqual(await mount('{"Name":'), {
    status: 500,
    body: { Err: 'inro: the request of the container engine is not JSON' },
  });
  t.deepEqual(await mount('x'.repeat(100_000)), {
    status: 500,
    body: { Err: 'inro: the request of the container engine is too large' },
  });
  const empty = { Name: '', ID: '', Opts: {} };
  for (const body of [
    '',
    'null',
    '7',
    '[]',
    '{"Name":7,"ID":{},"Opts":"x"}',
    JSON.stringify({ Name: 'n'.repeat(256) }),
    Buffer.from([0x22, 0xff, 0xfe, 0x22]),
  ]) {
    t.is((await mount(body)).status, 200);
    t.deepEqual(handled.pop(), empty, String(body));
  }
});

test('an error is told in words, with what to do; a bug, too', async (t) => {
  const { ask } = await plugin(t);
  const err = async (call: string) => (await ask('POST', `/VolumeDriver.${call}`)).body;
  t.deepEqual(await err('Get'), { Err: 'inro: there is no volume (make it)' });
  t.regex(JSON.stringify(await err('Path')), /inro: .*a bug/);
});

test('who connects and says nothing, or nonsense, keeps nobody else from an answer', async (t) => {
  const { path, ask } = await plugin(t);
  const sockets = Array.from({ length: 40 }, (_, n) => {
    const socket = connect(path);
    socket.on('error', () => undefined);
    if (n % 2 === 0) socket.write(n % 4 === 0 ? '\0\xff\r\n\r\n' : 'POST /VolumeDriver.Mount HTTP/1.1\r\n');
    return socket;
  });
  t.teardown(() => sockets.forEach((socket) => socket.destroy()));
  t.is((await ask('POST', '/VolumeDriver.Mount', '{}')).status, 200);
});

test('another process serves the socket, or something else is there', async (t) => {
  const { path } = await plugin(t);
  await t.throwsAsync(servePlugin(path, {}, pino({ level: 'silent' })), { code: 'socket_taken' });
  const folder = mkdtempSync(join(tmpdir(), 'plugin-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  writeFileSync(join(folder, 'file'), 'mine');
  await t.throwsAsync(servePlugin(join(folder, 'file'), {}, pino({ level: 'silent' })), {
    code: 'state_unusable',
    message: /something else is there, and stays/,
  });
});
