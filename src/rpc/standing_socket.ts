/** A unix socket that stays while what answers on it changes, such as a manager that waits, then leads. */
import { InroError } from '../model/error.js';
import { systemClock } from '../system/clock.js';
import type { Service } from './definition.js';
import { outcomeUnknown } from './errors.js';
import { listenUnix, type Admit, type CallContext, type Registration, type RunningServer } from './server.js';

type Handler = (input: unknown, context: CallContext) => Promise<unknown>;

/** What answers, from when it begins until it is stopped. */
interface Role {
  registrations: readonly Registration[];
  admit: Admit;
  running: Set<Promise<unknown>>;
  over: AbortController;
  /** Rejects for calls that were not done when it had to end. */
  ended: Promise<never>;
}

export class StandingSocket {
  readonly #meanwhile: () => InroError;
  #server: RunningServer | undefined;
  #role: Role | undefined;

  private constructor(meanwhile: () => InroError) {
    this.#meanwhile = meanwhile;
  }

  /** @param meanwhile what callers hear while nothing answers. @throws as listenUnix. */
  static async open(
    path: string,
    services: readonly Service[],
    meanwhile: () => InroError,
  ): Promise<StandingSocket> {
    const socket = new StandingSocket(meanwhile);
    socket.#server = await listenUnix(
      path,
      services.map((service) => socket.#delegate(service)),
    );
    return socket;
  }

  /** As listenUnix. One at a time. */
  serve(registrations: readonly Registration[], admit: Admit = (peer) => peer): RunningServer {
    const over = new AbortController();
    const ended = new Promise<never>((_, reject) =>
      over.signal.addEventListener('abort', () => reject(wentAway()), { once: true }),
    );
    ended.catch(() => undefined);
    const role: Role = { registrations, admit, running: new Set(), over, ended };
    this.#role = role;
    return {
      port: 0,
      stop: async (graceMs) => {
        if (this.#role === role) this.#role = undefined;
        const late = new AbortController();
        const done = Promise.allSettled(role.running).then(() => late.abort());
        await Promise.race([done, systemClock.sleep(graceMs, late.signal)]);
        over.abort();
      },
    };
  }

  async close(graceMs: number): Promise<void> {
    await this.#server?.stop(graceMs);
  }

  #delegate(service: Service): Registration {
    const call = async (name: string, input: unknown, { peer, signal }: CallContext): Promise<unknown> => {
      const role = this.#role;
      if (role === undefined) throw this.#meanwhile();
      const { over, ended, running } = role;
      const registration = role.registrations.find((one) => one.service === service);
      const handler = registration?.handlers[name] as Handler | undefined;
      if (handler === undefined) throw this.#meanwhile();
      const context = { peer: role.admit(peer), signal: AbortSignal.any([signal, over.signal]) };
      const answer = Promise.race([handler(input, context), ended]);
      running.add(answer);
      try {
        return await answer;
      } finally {
        running.delete(answer);
      }
    };
    const handlers = Object.keys(service.method).map((name) => [
      name,
      (input: unknown, context: CallContext) => call(name, input, context),
    ]);
    return { service, access: 'local', handlers: Object.fromEntries(handlers) as Registration['handlers'] };
  }
}

function wentAway(): InroError {
  return new InroError('unreachable', 'this manager ended what it did before it was done', {
    remedy: outcomeUnknown,
  });
}
