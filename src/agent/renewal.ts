/**
 * Renews the node certificate while the agent runs: at a random point of its life, again and again until a manager gives
 * one or the present one has expired. Looks at the clocks once a minute, so that no jump of one is slept through.
 */
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Logger } from 'pino';
import type { Clock, Random } from '../model/clock.js';
import { asInroError, type InroError } from '../model/error.js';
import { issuedMs, RenewalPoint } from '../pki/renewal_point.js';
import { expired } from '../pki/verify.js';
import type { RenewalStatusSchema } from '../proto/gen/inro/v1/agent_pb.js';
import type { HeldIdentity } from './held_identity.js';
import type { Identity, KeyPair } from './identity.js';
import { agentLimits } from './limits.js';

export interface RenewalParts {
  held: HeldIdentity;
  /** HOST:PORT, the one to ask first at the head. */
  managers: () => readonly string[];
  ask: (identity: Identity, manager: string) => Promise<KeyPair>;
  /** A new stream, under the certificate that was taken. */
  reconnect: () => void;
  clock: Clock;
  random: Random;
  log: Logger;
}

export class Renewal {
  readonly #parts: RenewalParts;
  /** Of the present certificate. */
  #point: RenewalPoint;
  /** Of the one before, while the present one is tried. */
  #formerPoint: RenewalPoint | undefined;
  #attempt = 0;
  #backoffMs = 0;
  /** Boot-time ms before which nothing is tried again. */
  #nextTryMs = -Infinity;
  #lastFailure: InroError | undefined;
  #failedMs = 0;
  #hasToldEnd = false;
  /** A manager wants it, whenever it is due. */
  #isWanted = false;
  #wake = new AbortController();

  constructor(parts: RenewalParts) {
    this.#parts = parts;
    this.#point = this.#drawn(false);
    // Not when it is given: it may be refused, and the next one too.
    parts.held.onWorked = () => {
      this.#backoffMs = 0;
      this.#formerPoint = undefined;
    };
    parts.held.onBack = (why) => {
      // It was over, or else nothing would have been renewed.
      this.#point = this.#formerPoint ?? this.#drawn(false);
      this.#formerPoint = undefined;
      this.#failed(why);
    };
  }

  get status(): MessageInitShape<typeof RenewalStatusSchema> {
    const end = this.expired();
    return {
      dueMs: BigInt(this.#point.dueMs),
      lastFailure: this.#lastFailure?.message ?? '',
      failedMs: BigInt(this.#failedMs),
      onTrial: this.#parts.held.isOnTrial,
      expired: end === undefined ? '' : `${end.message}: ${end.remedy ?? ''}`,
    };
  }

  /** Says what to do once the certificate has expired: neither a renewal nor a stream can be had with it. */
  expired(): InroError | undefined {
    return expired(this.#parts.held.current.certificate, this.#parts.clock.now());
  }

  /** Whatever its time: the CA that signed it is being given up. */
  renewNow(): void {
    if (this.#isWanted) return;
    this.#parts.log.info('the manager wants the certificate to be renewed now');
    this.#isWanted = true;
    this.#nextTryMs = -Infinity;
    this.#wake.abort();
  }

  /** Runs until the signal aborts. Never throws: each failure is logged, shown in the status, and tried again. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock } = this.#parts;
    while (!signal.aborted) {
      await this.#look(signal);
      await clock.sleep(this.#untilLookMs(), AbortSignal.any([signal, this.#wake.signal]));
      this.#wake = new AbortController();
    }
  }

  /** At the latest when the certificate ends, which is said at once. */
  #untilLookMs(): number {
    const { held, clock } = this.#parts;
    const dueMs = this.#isWanted ? 0 : this.#point.leftMs();
    const untilTryMs = Math.max(this.#nextTryMs - clock.boottimeMs(), dueMs);
    const untilEndMs = held.current.certificate.notAfterMs - clock.now() + 1;
    const ahead = [untilTryMs, untilEndMs].filter((ms) => ms > 0);
    return Math.min(agentLimits.renewalCheckMs, ...ahead);
  }

  async #look(signal: AbortSignal): Promise<void> {
    const { held, clock, log } = this.#parts;
    held.settle();
    const end = this.expired();
    if (end !== undefined) {
      if (!this.#hasToldEnd) log.error({ err: end, remedy: end.remedy }, 'the certificate has expired');
      this.#hasToldEnd = true;
      this.#backoffMs = 0;
      return;
    }
    this.#hasToldEnd = false;
    if (!this.#isWanted && !this.#point.isOver()) return;
    if (clock.boottimeMs() < this.#nextTryMs) return;
    try {
      await this.#renew(signal);
    } catch (error) {
      if (!signal.aborted) this.#failed(asInroError(error));
    }
  }

  async #renew(signal: AbortSignal): Promise<void> {
    const { held, managers, ask, reconnect, clock, log } = this.#parts;
    const known = managers();
    const manager = known[this.#attempt++ % known.length] as string;
    const before = held.current;
    const pair = await unlessAborted(ask(before, manager), signal);
    // Stopped, the state folder may be another process's; and one that was refused meanwhile is not to come back.
    if (pair === undefined || signal.aborted || held.current !== before) return;
    const isAnotherTrial = held.isOnTrial;
    held.take(pair, clock.now());
    if (!isAnotherTrial) this.#formerPoint = this.#point;
    this.#point = this.#drawn(true);
    this.#isWanted = false;
    this.#attempt = 0;
    this.#lastFailure = undefined;
    this.#failedMs = 0;
    const { serial, notAfterMs } = held.current.certificate;
    log.info(
      {
        manager,
        serial,
        was: before.certificate.serial,
        expires: iso(notAfterMs),
        due: iso(this.#point.dueMs),
      },
      'certificate renewed',
    );
    reconnect();
  }

  #drawn(isFresh: boolean): RenewalPoint {
    return new RenewalPoint(this.#parts.held.current.certificate, isFresh, this.#parts);
  }

  #failed(error: InroError): void {
    const { held, clock, random, log } = this.#parts;
    const { certificate } = held.current;
    const lifeMs = certificate.notAfterMs - issuedMs(certificate);
    const maxMs = Math.min(
      agentLimits.renewalBackoffMaxMs,
      Math.max(lifeMs * agentLimits.renewalBackoffMaxPart, agentLimits.renewalBackoffBaseMs),
    );
    this.#backoffMs = Math.min(agentLimits.renewalBackoffBaseMs + 2 * this.#backoffMs, maxMs);
    const drawn = Buffer.from(random(4)).readUInt32BE() / 2 ** 32;
    const delayMs = Math.round(this.#backoffMs * (0.5 + drawn / 2));
    this.#nextTryMs = clock.boottimeMs() + delayMs;
    this.#lastFailure = error;
    this.#failedMs = clock.now();
    log.warn(
      {
        err: error,
        remedy: error.remedy,
        againInS: Math.round(delayMs / 1000),
        expires: iso(certificate.notAfterMs),
      },
      'the certificate could not be renewed; trying again',
    );
  }
}

/** @returns undefined when the signal came first; what comes later is nobody's any more. */
async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T | undefined> {
  let stop = (): void => undefined;
  const aborted = new Promise<undefined>((resolve) => {
    stop = () => resolve(undefined);
    signal.addEventListener('abort', stop, { once: true });
    if (signal.aborted) stop();
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
