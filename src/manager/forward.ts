/** What operators ask of a manager that waits, handed on to the one that leads. */
import { create } from '@bufbuild/protobuf';
import type { Logger } from 'pino';
import { InroError } from '../model/error.js';
import { Control, LockCallSchema } from '../proto/gen/inro/v1/control_pb.js';
import { call, stands, type Connection } from '../rpc/client.js';
import { rpcLimits } from '../rpc/limits.js';
import type { Registration } from '../rpc/server.js';
import type { AuditEntry } from './audit_book.js';
import { managerLimits } from './limits.js';

/** Calls of Control, to whichever manager leads; values in them are sealed, and stay so. */
export class Forward {
  readonly #leader: () => string | undefined;
  readonly #connect: (address: string) => Connection;
  readonly #log: Logger;
  #present: { address: string; connection: Connection } | undefined;

  constructor(leader: () => string | undefined, connect: (address: string) => Connection, log: Logger) {
    this.#leader = leader;
    this.#connect = connect;
    this.#log = log;
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

  /** To the audit, which the one that leads writes; what it cannot be told stands in the log. */
  async append({ action, outcome, reason = '' }: AuditEntry): Promise<void> {
    try {
      await this.#ask('noteLockCall', create(LockCallSchema, { call: action, outcome, reason }) as never);
    } catch (error) {
      this.#log.error({ call: action, outcome, err: error }, 'a line of the audit could not be written');
    }
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
