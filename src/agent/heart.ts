import type { Clock, Random } from '../model/clock.js';
import { InroError } from '../model/error.js';
import type { Welcome } from '../proto/gen/inro/v1/dispatcher_pb.js';
import type { CountBatches } from './access/count_batches.js';
import type { AgentChannel } from './channel.js';
import type { Lease } from './lease.js';
import { agentLimits } from './limits.js';

interface HeartParts {
  counts: Pick<CountBatches, 'current'>;
  lease: Lease;
  clock: Clock;
  random: Random;
}

/** Beats, and extends the lease by what was answered. Silence for long ends the stream. */
export class Heart {
  readonly #channel: AgentChannel;
  readonly #periodMs: number;
  readonly #leaseMs: number;
  readonly #parts: HeartParts;
  /** By sequence: when beats that are not answered yet were sent. */
  readonly #sentMs = new Map<number, number>();
  #silentBeats = 0;

  constructor(channel: AgentChannel, { heartbeatPeriodMs, leaseMs }: Welcome, parts: HeartParts) {
    this.#channel = channel;
    this.#periodMs = Math.min(Math.max(heartbeatPeriodMs, 100), 60_000);
    this.#leaseMs = Number(leaseMs);
    this.#parts = parts;
  }

  async beat(signal: AbortSignal): Promise<void> {
    const { clock, random } = this.#parts;
    for (let sequence = 1; ; sequence++) {
      const drawn = ((random(1)[0] as number) / 255) * 2 - 1;
      await clock.sleep(this.#periodMs * (1 + drawn * agentLimits.heartbeatJitter), signal);
      if (signal.aborted) return;
      if (this.#silentBeats >= agentLimits.missedAnswers) {
        throw new InroError('unreachable', `the manager has been silent for ${this.#silentBeats} heartbeats`);
      }
      this.#silentBeats += 1;
      this.#sentMs.set(sequence, clock.boottimeMs());
      this.#sentMs.delete(sequence - agentLimits.maxUnansweredBeats);
      const accesses = this.#parts.counts.current();
      const value = { sequence, ...(accesses === undefined ? {} : { accesses }) };
      await this.#channel.send({ message: { case: 'heartbeat', value } });
    }
  }

  /** Whatever the manager says is a sign of life; an answer may wait behind a large assignment. */
  heard(): void {
    this.#silentBeats = 0;
  }

  answered(sequence: number): void {
    const sentMs = this.#sentMs.get(sequence);
    if (sentMs === undefined) return;
    for (const earlier of this.#sentMs.keys()) if (earlier <= sequence) this.#sentMs.delete(earlier);
    this.#parts.lease.extend(sentMs, this.#leaseMs);
  }
}
