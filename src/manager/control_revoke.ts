/** Revoking: one version is withdrawn for ever. What is left of it is its number, its times, and who ordered it. */
import type { Logger } from 'pino';
import type { Clock } from '../model/clock.js';
import { InroError } from '../model/error.js';
import { printable, quoted } from '../model/name.js';
import type { Control } from '../proto/gen/inro/v1/control_pb.js';
import type { SecretRecord, VersionRecord } from '../proto/gen/inro/v1/records_pb.js';
import type { Handlers } from '../rpc/server.js';
import type { Store } from '../store/store.js';
import { ciphertextPrefix, tables, versionKey } from '../store/tables.js';
import { transact } from '../store/transaction.js';
import type { Dispatcher } from './dispatcher.js';
import { callerOf } from './caller.js';
import { find } from './find.js';
import { managerLimits } from './limits.js';
import type { ClusterView } from './view.js';
import { waitForWipes } from './wait_wipes.js';

export interface RevokeParts {
  store: Store;
  view: ClusterView;
  dispatcher: Dispatcher;
  clock: Clock;
  log: Logger;
}

export function revokeHandlers(
  parts: RevokeParts,
): Pick<Handlers<typeof Control, 'operator'>, 'revokeSecret' | 'waitForWipes'> {
  const { view } = parts;
  return {
    revokeSecret: async ({ name: typed, version: wanted, operator }, { peer }) => {
      const { id } = find('secret', view.secrets, typed, (secret) => secret.name);
      const by = printable(callerOf(view, peer).name ?? operator, managerLimits.maxOperatorChars);
      const { secret, record } = await revokeVersion(parts, { id, version: wanted, by });
      const { version, revokedMs } = record;
      return {
        secretId: id,
        secretName: secret.name,
        version,
        revokedMs,
        nodeIds: view.holders.of(id, version),
      };
    },

    waitForWipes: (request, { signal }) => waitForWipes(request, parts, signal),
  };
}

/** @param version 0: the current one. @throws not_found, revoked. */
export async function revokeVersion(
  { store, view, clock, log }: Pick<RevokeParts, 'store' | 'view' | 'clock' | 'log'>,
  { id, version: wanted, by }: { id: string; version: number; by: string },
): Promise<{ secret: SecretRecord; record: VersionRecord }> {
  const { result } = await transact(store, async (tx) => {
    const secret = await tx.get(tables.secrets, id);
    if (secret === undefined) throw new InroError('not_found', `no secret ${quoted(id)}`);
    const version = wanted === 0 ? secret.currentVersion : wanted;
    const record = await tx.get(tables.versions, versionKey(id, version));
    if (record === undefined) throw unknown(secret, version);
    if (record.revokedMs > 0n) throw revokedBefore(secret, record);
    record.revokedMs = BigInt(clock.now());
    record.revokedBy = by;
    record.sealedKey = new Uint8Array();
    secret.updatedMs = record.revokedMs;
    if (secret.stage?.version === version) {
      // Where it was tried, the current one is served again.
      secret.latestVersion = version;
      delete secret.stage;
    }
    tx.put(tables.versions, versionKey(id, version), record);
    tx.deleteBytes(ciphertextPrefix + versionKey(id, version));
    tx.put(tables.secrets, id, secret);
    return { secret, record };
  });
  const { name } = result.secret;
  const { version } = result.record;
  const nodes = view.holders.of(id, version).length;
  log.info({ secret: id, name, version, by, nodes }, 'version revoked');
  return result;
}

function unknown({ name }: SecretRecord, version: number): InroError {
  return new InroError('not_found', `secret ${quoted(name)} has no version ${version}`, {
    remedy: `'inro secret inspect ${name}' shows those that it has`,
  });
}

function revokedBefore({ name, currentVersion }: SecretRecord, record: VersionRecord): InroError {
  const { version, revokedMs, revokedBy } = record;
  const since = new Date(Number(revokedMs)).toISOString();
  return new InroError(
    'revoked',
    `version ${version} of secret ${quoted(name)} is revoked since ${since}, by ${revokedBy || 'an unknown operator'}`,
    {
      remedy:
        version === currentVersion
          ? `give the secret a new value: inro secret update ${name} -`
          : `'inro secret inspect ${name}' shows how many nodes may still hold it`,
    },
  );
}
