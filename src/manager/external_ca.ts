/** The CA outside of inro that signs for the cluster: one that is there at several URLs, asked one after the other. */
import type { Logger } from 'pino';
import type { Clock } from '../model/clock.js';
import { asInroError, InroError } from '../model/error.js';
import type { ExternalCaSpec } from '../model/external_ca.js';
import { printable } from '../model/name.js';
import type { Certificate } from '../pki/certificate.js';
import type { AskToSign, SigningRequest } from '../pki/external.js';
import { cfssl, profileOf, type Cfssl } from './cfssl.js';

export interface ExternalCaState {
  url: string;
  /** ms since 1970; 0: never since this manager's start. */
  lastSignedMs: number;
  lastFailedMs: number;
  /** What it did last, when that was to fail; ''. */
  lastError: string;
}

interface Endpoint {
  client: Cfssl;
  state: ExternalCaState;
}

export class ExternalCa {
  readonly #endpoints: readonly Endpoint[];
  readonly #clock: Pick<Clock, 'now'>;
  readonly #log: Logger;
  /** The one that signed last is asked first. */
  #first = 0;

  /** @param rootPem by which the URLs are verified where they name no other. @throws bad_input for files that cannot be read. */
  constructor(
    specs: readonly ExternalCaSpec[],
    { rootPem, clock, log }: { rootPem: string; clock: Pick<Clock, 'now'>; log: Logger },
  ) {
    this.#clock = clock;
    this.#log = log;
    this.#endpoints = specs.map((spec) => ({
      client: cfssl(spec, rootPem),
      state: { url: spec.url, lastSignedMs: 0, lastFailedMs: 0, lastError: '' },
    }));
  }

  get states(): readonly ExternalCaState[] {
    return this.#endpoints.map(({ state }) => state);
  }

  readonly ask: AskToSign = async (request, accept) => {
    const reasons: string[] = [];
    for (let n = 0; n < this.#endpoints.length; n++) {
      const at = (this.#first + n) % this.#endpoints.length;
      const endpoint = this.#endpoints[at] as Endpoint;
      const outcome = await this.#askOne(endpoint, request, accept);
      if (typeof outcome !== 'string') {
        this.#first = at;
        return outcome;
      }
      reasons.push(`${endpoint.client.url}: ${outcome}`);
    }
    throw new InroError('unreachable', `the external CA signs nothing: ${reasons.join('; ')}`, {
      remedy: 'look at it there; what it is asked for stands in docs/external-ca.md',
    });
  };

  close(): void {
    for (const { client } of this.#endpoints) client.close();
  }

  /** @returns the reason when it did not sign. */
  async #askOne(
    { client, state }: Endpoint,
    request: SigningRequest,
    accept: (pem: string) => Certificate,
  ): Promise<Certificate | string> {
    const now = (): number => this.#clock.now();
    let pem: string | undefined;
    try {
      pem = await client.sign(request);
      const certificate = accept(pem);
      state.lastSignedMs = now();
      state.lastError = '';
      return certificate;
    } catch (thrown) {
      const { message } = asInroError(thrown);
      const isAnswer = pem !== undefined;
      const why = isAnswer
        ? `signs something else than was asked for (${message}): ${wanted(request)}`
        : message;
      state.lastFailedMs = now();
      state.lastError = printable(why, 500);
      this.#log.warn({ url: client.url, why: state.lastError }, 'the external CA did not sign');
      return state.lastError;
    }
  }
}

function wanted({ role }: SigningRequest): string {
  const usages = role === 'manager' ? '"server auth" and "client auth"' : '"client auth"';
  return `it needs a profile ${profileOf(role)} with the usages "digital signature", ${usages}, and an expiry of an hour or more`;
}
