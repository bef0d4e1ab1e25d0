/** Values that come to their end: warned of in time, and withdrawn where that was asked for. */
import type { Logger } from 'pino';
import type { Clock } from '../model/clock.js';
import { asInroError } from '../model/error.js';
import type { VersionRecord } from '../proto/gen/inro/v1/records_pb.js';
import type { Store } from '../store/store.js';
import { versionKey } from '../store/tables.js';
import type { AuditBook } from './audit_book.js';
import { revokeVersion } from './control_revoke.js';
import { pinning } from './control_versions.js';
import type { EventBook } from './event_book.js';
import { managerLimits } from './limits.js';
import type { ClusterView } from './view.js';

export interface ValueExpiryParts {
  store: Store;
  view: ClusterView;
  audit: Pick<AuditBook, 'append'>;
  events: Pick<EventBook, 'expires'>;
  clock: Clock;
  log: Logger;
}

export class ValueExpiry {
  readonly #parts: ValueExpiryParts;
  readonly #over = new AbortController();
  readonly #running: Promise<void>;
  /** By version: what was said of it last. */
  readonly #said = new Map<string, 'soon' | 'over'>();

  constructor(parts: ValueExpiryParts) {
    this.#parts = parts;
    this.#running = this.#run();
  }

  async stop(): Promise<void> {
    this.#over.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { clock } = this.#parts;
    while (!this.#over.signal.aborted) {
      for (const version of ending(this.#parts.view)) await this.#look(version);
      await clock.sleep(managerLimits.valueExpiryCheckMs, this.#over.signal);
    }
  }

  async #look(record: VersionRecord): Promise<void> {
    const { view, events, clock, log } = this.#parts;
    const { secretId, version, expiresMs, withdraw } = record;
    const leftMs = Number(expiresMs) - clock.now();
    if (leftMs > managerLimits.valueExpiryWarningMs) return;
    const secret = view.secrets.get(secretId)?.name ?? secretId;
    if (leftMs <= 0 && withdraw) return this.#withdraw(record, secret);
    if (!isServed(view, record)) return;
    const state = leftMs <= 0 ? 'over' : 'soon';
    if (this.#said.get(versionKey(secretId, version)) === state) return;
    this.#said.set(versionKey(secretId, version), state);
    events.expires(state === 'soon' ? 'expires' : 'expired', secretId, version, Number(expiresMs));
    const facts = {
      secret,
      version,
      expires: new Date(Number(expiresMs)).toISOString(),
      remedy: `give it a new value: inro secret update ${secret} -`,
    };
    log.warn(facts, state === 'soon' ? 'a value expires soon' : 'a value has expired, and is still served');
  }

  async #withdraw({ secretId, version }: VersionRecord, secret: string): Promise<void> {
    const { audit, log } = this.#parts;
    const line = {
      action: 'expire',
      object: `${secret}@${version}`,
      actor: 'manager',
      actorId: '',
      role: '',
    };
    try {
      await revokeVersion(this.#parts, { id: secretId, version, by: 'its expiry' });
      await audit.append({ ...line, serial: '', address: '', outcome: 'done', reason: '' });
      log.warn({ secret, version }, 'a value has expired and was withdrawn');
    } catch (error) {
      const { code } = asInroError(error);
      if (code !== 'revoked' && code !== 'not_found')
        log.error({ err: error, secret, version }, 'a value has expired and could not be withdrawn yet');
    }
  }
}

/** Not revoked, and with an end. */
export function ending(view: ClusterView): VersionRecord[] {
  return view.everyVersion().filter(({ expiresMs, revokedMs }) => expiresMs > 0n && revokedMs === 0n);
}

/** To anybody, now or at his next task. */
export function isServed(view: ClusterView, { secretId, version }: VersionRecord): boolean {
  const secret = view.secrets.get(secretId);
  if (secret === undefined) return false;
  const isAnywhere = secret.currentVersion === version || secret.stage?.version === version;
  return isAnywhere || pinning(view, secret, version).length > 0;
}
