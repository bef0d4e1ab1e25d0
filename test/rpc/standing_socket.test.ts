/** What a caller hears while that which answers on a socket changes. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { InroError } from '../../src/model/error.js';
import { Control } from '../../src/proto/gen/inro/v1/control_pb.js';
import { call, connectUnix, type Connection } from '../../src/rpc/client.js';
import type { CallContext, Registration } from '../../src/rpc/server.js';
import { StandingSocket } from '../../src/rpc/standing_socket.js';
import { refusesAsync } from '../support/refuses.js';

type Answer = (context: CallContext<never>) => Promise<{ id: string }>;
const answering = (getCluster: Answer): Registration => ({
  service: Control,
  access: 'local',
  handlers: { getCluster: (_request, context) => getCluster(context) },
});

async function scene(t: ExecutionContext, meanwhile: InroError) {
  const folder = mkdtempSync(join(tmpdir(), 'inro-standing-'));
  const path = join(folder, 's.sock');
  const socket = await StandingSocket.open(path, [Control], () => meanwhile);
  const connection: Connection = connectUnix(path, 'the manager');
  t.teardown(async () => {
    connection.close();
    await socket.close(0);
    rmSync(folder, { recursive: true });
  });
  return { socket, ask: async () => (await call(connection, Control, 'getCluster', {})).id };
}

test('one after the other answers, on one connection; who has no time to end is cut off, and it is said', async (t) => {
  const { socket, ask } = await scene(t, new InroError('pending', 'nobody is here'));
  await refusesAsync(t, ask(), 'pending', /nobody is here/);
  const first = socket.serve([answering(async () => ({ id: 'first' }))]);
  t.is(await ask(), 'first');
  await first.stop(0);
  await refusesAsync(t, ask(), 'pending', /nobody is here/);

  let begun = (): void => undefined;
  const isBegun = new Promise<void>((resolve) => (begun = resolve));
  let isTold = false;
  const hangs: Answer = ({ signal }) => {
    signal.addEventListener('abort', () => (isTold = true));
    begun();
    return new Promise(() => undefined);
  };
  const second = socket.serve([answering(hangs)]);
  const asked = ask();
  await isBegun;
  const stopped = second.stop(0);
  const error = await refusesAsync(t, asked, 'unreachable', /ended what it did before it was done/);
  t.regex(error.remedy ?? '', /whether it did is not known/);
  t.true(isTold);
  await stopped;
  socket.serve([answering(async () => ({ id: 'third' }))]);
  t.is(await ask(), 'third');
});

test('who asks while nobody leads is answered by the next one', async (t) => {
  const { socket, ask } = await scene(t, new InroError('not_leader', 'no manager leads just now'));
  const asked = ask();
  await new Promise((resolve) => setTimeout(resolve, 50));
  socket.serve([answering(async () => ({ id: 'the next one' }))]);
  t.is(await asked, 'the next one');
});

test('a role is asked whether it serves on each call', async (t) => {
  const { socket, ask } = await scene(t, new InroError('pending', 'nobody is here'));
  let isOver = false;
  socket.serve([answering(async () => ({ id: 'it' }))], (peer) => {
    if (isOver) throw new InroError('locked', 'not any more');
    return peer;
  });
  t.is(await ask(), 'it');
  isOver = true;
  await refusesAsync(t, ask(), 'locked', /not any more/);
});
