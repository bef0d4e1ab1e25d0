/**
 * A socket between a command and its manager that passes every call on, but holds some of them back: so the
 * command has done all its own work and waits, for as long as a test wants to look at it.
 */
import { Control } from '../../src/proto/gen/inro/v1/control_pb.js';
import { call, connectUnix } from '../../src/rpc/client.js';
import type { UnaryNames } from '../../src/rpc/definition.js';
import { listenUnix, serve, type Handlers } from '../../src/rpc/server.js';

type Call = UnaryNames<typeof Control>;

export interface HeldManager {
  /** Resolves when the next call of one of the held kinds has arrived. */
  arrived(): Promise<Call>;
  /** Lets it go on to the manager. */
  release(): void;
  stop(): Promise<void>;
}

export async function holdCalls(
  socketPath: string,
  managerSocket: string,
  held: readonly Call[],
): Promise<HeldManager> {
  const manager = connectUnix(managerSocket, 'the manager');
  const waiting: { name: Call; release: () => void }[] = [];
  let notice = (): void => undefined;
  const handlers = Object.fromEntries(
    (Object.keys(Control.method) as Call[]).map((name) => [
      name,
      async (request: never) => {
        if (held.includes(name)) {
          await new Promise<void>((release) => {
            waiting.push({ name, release });
            notice();
          });
        }
        return call(manager, Control, name, request, 60_000);
      },
    ]),
  );
  const server = await listenUnix(socketPath, [
    serve(Control, 'local', handlers as unknown as Handlers<typeof Control, 'local'>),
  ]);
  return {
    arrived: async () => {
      while (waiting[0] === undefined) await new Promise<void>((resolve) => (notice = resolve));
      return waiting[0].name;
    },
    release: () => waiting.shift()?.release(),
    stop: async () => {
      for (const { release } of waiting.splice(0)) release();
      await server.stop(1_000);
      manager.close();
    },
  };
}
