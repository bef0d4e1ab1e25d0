/** A call that nobody has answered: what its caller is told of what became of it. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { Control } from '../../src/proto/gen/inro/v1/control_pb.js';
import { call, connectUnix } from '../../src/rpc/client.js';
import { listenUnix } from '../../src/rpc/server.js';
import { refusesAsync } from '../support/refuses.js';

const unknown = /whether it did is not known: look before you try again/;

async function silent(t: ExecutionContext) {
  const folder = mkdtempSync(join(tmpdir(), 'inro-silent-'));
  const path = join(folder, 's.sock');
  let begun = (): void => undefined;
  const isBegun = new Promise<void>((resolve) => (begun = resolve));
  const getCluster = (): Promise<never> => {
    begun();
    return new Promise(() => undefined);
  };
  const server = await listenUnix(path, [{ service: Control, access: 'local', handlers: { getCluster } }]);
  const connection = connectUnix(path, 'the manager');
  t.teardown(async () => {
    connection.close();
    await server.stop(0);
    rmSync(folder, { recursive: true });
  });
  const ask = (timeoutMs?: number) => call(connection, Control, 'getCluster', {}, timeoutMs);
  return { server, ask, isBegun };
}

test('no answer in time', async (t) => {
  const { ask } = await silent(t);
  const error = await refusesAsync(
    t,
    ask(500),
    'unreachable',
    /^the manager at unix:\S+ does not answer: it takes too long$/,
  );
  t.regex(error.remedy ?? '', unknown);
});

test('an end in between, and nobody there after it', async (t) => {
  const { server, ask, isBegun } = await silent(t);
  const asked = ask();
  await isBegun;
  const stopped = server.stop(0);
  const error = await refusesAsync(t, asked, 'unreachable', /ended the call|does not answer/);
  t.regex(error.remedy ?? '', unknown);
  await stopped;
  // What was not even asked has done nothing.
  t.is((await refusesAsync(t, ask(), 'unreachable', /ENOENT|ECONNREFUSED/)).remedy, undefined);
});
