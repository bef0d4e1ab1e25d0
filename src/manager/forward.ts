/** What operators ask of a manager that waits, handed on to the one that leads. */
import { InroError } from '../model/error.js';
import { Control } from '../proto/gen/inro/v1/control_pb.js';
import { call, stands, type Connection } from '../rpc/client.js';
import { rpcLimits } from '../rpc/limits.js';
import type { Registration } from '../rpc/server.js';
import { managerLimits } from './limits.js';

/** Calls of Control, to whichever manager leads; values in them are sealed, and stay so. */
export class Forward {
  readonly #leader: () => string | undefined;
  readonly #connect: (address: string) => Connection;
  #present: { address: string; connection: Connection } | undefined;

  constructor(leader: () => string | undefined, connect: (address: string) => Connection) {
    this.#leader = leader;
    this.#connect = connect;
  }

  registration(): Registration {
    const handlers = Object.keys(Control.method).map((name) => [
      name,
      (request: never) => this.#ask(name as keyof typeof Control.method, request),
    ]);
    return {
      service: Control,
      access: 'local',
      handlers: Object.fromEntries(handlers) as Registration['handlers'],
    };
  }

  close(): void {
    this.#present?.connection.close();
    this.#present = undefined;
  }

  async #ask(name: keyof typeof Control.method, request: never): Promise<unknown> {
    const address = this.#leader();
    if (address === undefined) throw waits(undefined);
    if (this.#present?.address !== address) {
      this.close();
      this.#present = { address, connection: this.#connect(address) };
    }
    const { connection } = this.#present;
    if (!(await stands(connection, rpcLimits.redirectMs))) {
      throw new InroError('not_leader', `the manager at ${address}, which leads, does not answer`, {
        remedy: 'if it is gone, another one takes its place within seconds: try again',
      });
    }
    try {
      return await call(connection, Control, name, request, managerLimits.maxForwardMs);
    } catch (error) {
      if (!(error instanceof InroError) || error.code !== 'unreachable') throw error;
      throw new InroError('unreachable', `the manager at ${address}, which leads, went away meanwhile`, {
        remedy: 'whether the change was made is not known: look before you try again',
        cause: error,
      });
    }
  }
}

/** @param leader HOST:PORT; undefined while there is none. */
export function waits(leader: string | undefined): InroError {
  if (leader === undefined)
    return new InroError('not_leader', 'no manager leads just now: one takes over within seconds', {
      remedy: 'try again in a moment',
    });
  return new InroError('not_leader', `this manager waits; the one at ${leader} leads`, {
    leader,
    remedy: `ask that one: --manager ${leader}`,
  });
}
