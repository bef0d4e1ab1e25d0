/** Keeps a stream to some manager alive: connects, backs off with jitter, comes back, and says how it stands. */
import type { Logger } from 'pino';
import type { Clock, Random } from '../model/clock.js';
import { asInroError, type InroError } from '../model/error.js';
import { agentLimits } from './limits.js';
import type { AgentChannel } from './channel.js';

export interface SessionState {
  state: 'connecting' | 'connected' | 'waiting' | 'removed' | 'stopped';
  manager: string;
  sinceMs: number;
  lastError: InroError | undefined;
  revision: number;
}

export interface SessionParts {
  managers: () => readonly string[];
  /** Opens a stream; how is not this actor's business. */
  open: (manager: string) => AgentChannel;
  /** Runs one stream to its end; calls back once the manager has welcomed us. */
  attach: (channel: AgentChannel, onWelcome: () => void) => Promise<void>;
  /** Why no manager need be asked at present; undefined when there is no such reason. */
  obstacle: () => InroError | undefined;
  /** A try has failed. True when the next one differs in what may have been the reason. */
  onFailed: (error: InroError) => boolean;
  /** The manager says that this node is no longer one of its cluster. */
  onExpelled: () => void;
  clock: Clock;
  random: Random;
  log: Logger;
}

export class Session {
  readonly #parts: SessionParts;
  #status: SessionState;
  #channel: AgentChannel | undefined;

  constructor(parts: SessionParts) {
    this.#parts = parts;
    this.#status = {
      state: 'connecting',
      manager: '',
      sinceMs: parts.clock.now(),
      lastError: undefined,
      revision: 0,
    };
  }

  get status(): SessionState {
    return this.#status;
  }

  applied(revision: number): void {
    this.#status = { ...this.#status, revision };
  }

  /** Ends the present stream and begins a new one, in which everything is told anew. */
  reconnect(): void {
    this.#channel?.close();
  }

  /** Runs until the signal aborts. Never throws: each failure is logged, shown in the status, and tried again. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, random, log, managers, onFailed, onExpelled } = this.#parts;
    let backoffMs = 0;
    /** The one that another manager has named as leading. */
    let leader: string | undefined;
    for (let attempt = 0; !signal.aborted; attempt++) {
      const obstacle = this.#parts.obstacle();
      if (obstacle !== undefined) {
        if (this.#status.lastError?.message !== obstacle.message)
          log.error({ err: obstacle, remedy: obstacle.remedy }, 'no session with a manager is tried');
        this.#set('waiting', this.#status.manager, obstacle);
        await clock.sleep(agentLimits.obstacleCheckMs, signal);
        continue;
      }
      const known = managers();
      const isNamed = leader !== undefined;
      const manager: string = leader ?? known[attempt % known.length] ?? '';
      leader = undefined;
      const beganMs = clock.boottimeMs();
      try {
        await this.#once(manager, signal);
        log.info({ manager }, 'the manager ended the stream');
        this.#set('connecting', manager, this.#status.lastError);
      } catch (thrown) {
        const error = asInroError(thrown);
        if (signal.aborted) break;
        if (error.code === 'not_leader' && error.leader !== undefined && !isNamed) {
          leader = error.leader;
          log.info({ manager, leader }, 'another manager leads; going there');
          continue;
        }
        const isOther = onFailed(error);
        const same = this.#status.lastError?.message === error.message;
        if (error.code === 'not_permitted' && !isOther) {
          onExpelled();
          log[same ? 'debug' : 'error'](
            { err: error, manager, remedy: error.remedy },
            'this node is not one of the cluster any more: everything is wiped',
          );
          this.#set('removed', manager, error);
          // It may have been said by a manager that was restored from a backup, or is the last that is heard.
          await clock.sleep((agentLimits.expelledRetryMs * (1 + drawn(random))) / 2, signal);
          continue;
        }
        log[same ? 'debug' : 'warn'](
          { err: error, manager, remedy: error.remedy },
          'no session with the manager; trying again',
        );
        this.#set('waiting', manager, error);
      }
      // A session that ends at once, again and again, is no success.
      if (clock.boottimeMs() - beganMs > agentLimits.backoffMaxMs) backoffMs = 0;
      // One after the other is asked before it waits for longer: another one may have taken over.
      if ((attempt + 1) % known.length === 0)
        backoffMs = Math.min(agentLimits.backoffBaseMs + 2 * backoffMs, agentLimits.backoffMaxMs);
      await clock.sleep(Math.max(backoffMs, agentLimits.backoffBaseMs) * drawn(random), signal);
    }
    this.#set('stopped', '', this.#status.lastError);
  }

  async #once(manager: string, signal: AbortSignal): Promise<void> {
    if (!['waiting', 'removed'].includes(this.#status.state))
      this.#set('connecting', manager, this.#status.lastError);
    const channel = this.#parts.open(manager);
    this.#channel = channel;
    const close = (): void => channel.close();
    signal.addEventListener('abort', close, { once: true });
    try {
      await this.#parts.attach(channel, () => {
        this.#set('connected', manager, undefined);
        this.#parts.log.info({ manager }, 'session with the manager');
      });
    } finally {
      signal.removeEventListener('abort', close);
      channel.close();
    }
  }

  #set(state: SessionState['state'], manager: string, lastError: InroError | undefined): void {
    this.#status = { ...this.#status, state, manager, lastError, sinceMs: this.#parts.clock.now() };
  }
}

/** From 0 to 1. */
function drawn(random: Random): number {
  return Buffer.from(random(4)).readUInt32BE() / 2 ** 32;
}
