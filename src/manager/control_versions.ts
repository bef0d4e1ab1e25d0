/** Versions of a secret that are there already: going back to one, and letting old ones go. */
import type { Logger } from 'pino';
import type { Clock } from '../model/clock.js';
import { InroError } from '../model/error.js';
import { quoted } from '../model/name.js';
import type { Control } from '../proto/gen/inro/v1/control_pb.js';
import type { SecretRecord, VersionRecord } from '../proto/gen/inro/v1/records_pb.js';
import type { Handlers } from '../rpc/server.js';
import type { Store } from '../store/store.js';
import { ciphertextPrefix, tables, versionKey } from '../store/tables.js';
import { transact } from '../store/transaction.js';
import { find } from './find.js';
import { checkVersion } from './if_version.js';
import { deleteReadsOf } from './read_records.js';
import type { ClusterView } from './view.js';

export interface VersionHandlersParts {
  store: Store;
  view: ClusterView;
  clock: Clock;
  log: Logger;
}

export function versionHandlers({
  store,
  view,
  clock,
  log,
}: VersionHandlersParts): Pick<
  Handlers<typeof Control, 'operator'>,
  'rollbackSecret' | 'pruneSecret' | 'endStage'
> {
  const idOf = (typed: string): string => find('secret', view.secrets, typed, ({ name }) => name).id;
  const told = (id: string, revision: number, { currentVersion: version, serviceIds }: SecretRecord) => ({
    id,
    revision: BigInt(revision),
    version,
    nodeIds: [...view.nodesOfServices(serviceIds)],
    serviceIds: serviceIds.filter((one) => view.nodesOfServices([one]).size > 0),
  });
  return {
    endStage: async ({ name: typed, promote, ifVersion, ifStaged }) => {
      const id = idOf(typed);
      const { result: secret, revision } = await transact(store, async (tx) => {
        const found = await tx.get(tables.secrets, id);
        if (found === undefined) throw new InroError('not_found', `no secret ${quoted(typed)}`);
        if (found.stage === undefined)
          throw new InroError('not_found', `no version of secret ${quoted(found.name)} is staged`, {
            remedy: `stage one: inro secret update ${found.name} - --stage SERVICE`,
          });
        checkVersion(`secret ${quoted(found.name)}`, found.currentVersion, ifVersion);
        if (ifStaged > 0 && ifStaged !== found.stage.version)
          throw new InroError(
            'conflict',
            `version ${found.stage.version} of secret ${quoted(found.name)} is staged by now, not ${ifStaged}`,
            { remedy: `look at it with 'inro secret history ${found.name}', and decide anew` },
          );
        found.latestVersion = latestOf(found);
        if (promote) found.currentVersion = found.stage.version;
        delete found.stage;
        found.updatedMs = BigInt(clock.now());
        tx.put(tables.secrets, id, found);
        return found;
      });
      log.info(
        { secret: id, name: secret.name, version: secret.currentVersion },
        promote ? 'the staged version is the current one' : 'the staged version was taken back',
      );
      return told(id, revision, secret);
    },

    rollbackSecret: async ({ name: typed, version: wanted, ifVersion }) => {
      const id = idOf(typed);
      const { result, revision } = await transact(store, async (tx) => {
        const secret = await tx.get(tables.secrets, id);
        if (secret === undefined) throw new InroError('not_found', `no secret ${quoted(typed)}`);
        checkVersion(`secret ${quoted(secret.name)}`, secret.currentVersion, ifVersion);
        const versions = await tx.list(tables.versions, `${id}/`);
        const from = secret.currentVersion;
        if (secret.stage !== undefined)
          throw new InroError(
            'conflict',
            `version ${secret.stage.version} of secret ${quoted(secret.name)} is staged`,
            { remedy: `first inro secret update ${secret.name} --promote, or --unstage` },
          );
        const { version } = wanted === 0 ? before(secret, versions) : chosen(secret, versions, wanted);
        secret.latestVersion = latestOf(secret);
        secret.currentVersion = version;
        secret.updatedMs = BigInt(clock.now());
        tx.put(tables.secrets, id, secret);
        return { secret, from };
      });
      const { secret, from } = result;
      const { name, currentVersion: version } = secret;
      log.info({ secret: id, name, version, from }, 'secret was rolled back');
      return told(id, revision, secret);
    },

    pruneSecret: async ({ name: typed, keep }) => {
      if (keep < 1)
        throw new InroError('bad_input', 'the newest version is always kept', {
          remedy: 'write --keep 1 or more',
        });
      const id = idOf(typed);
      const { result } = await transact(store, async (tx) => {
        const secret = await tx.get(tables.secrets, id);
        if (secret === undefined) throw new InroError('not_found', `no secret ${quoted(typed)}`);
        const versions = (await tx.list(tables.versions, `${id}/`)).filter(
          ({ revokedMs }) => revokedMs === 0n,
        );
        const old = versions.slice(0, Math.max(0, versions.length - keep));
        const gone = old.filter(
          ({ version }) =>
            version !== secret.currentVersion &&
            version !== secret.stage?.version &&
            pinning(view, secret, version).length === 0 &&
            view.holders.of(id, version).length === 0,
        );
        if (gone.length === 0) return { secret, gone, stays: old };
        for (const { version } of gone) {
          tx.delete(tables.versions, versionKey(id, version));
          tx.deleteBytes(ciphertextPrefix + versionKey(id, version));
          await deleteReadsOf(tx, id, version);
        }
        // Its number is not given again.
        secret.latestVersion = latestOf(secret);
        tx.put(tables.secrets, id, secret);
        return { secret, gone, stays: old.filter((one) => !gone.includes(one)) };
      });
      const numbers = (records: readonly VersionRecord[]): number[] => records.map(({ version }) => version);
      const { secret, gone, stays } = result;
      log.info({ secret: id, name: secret.name, versions: numbers(gone) }, 'versions were pruned');
      return { id, name: secret.name, pruned: numbers(gone), inUse: numbers(stays) };
    },
  };
}

/** The highest number that was ever given. */
export function latestOf({ currentVersion, latestVersion, stage }: SecretRecord): number {
  return Math.max(currentVersion, latestVersion, stage?.version ?? 0);
}

/** Names of the services that reference this version and no other. */
export function pinning(view: ClusterView, { id, serviceIds }: SecretRecord, version: number): string[] {
  return serviceIds
    .flatMap((serviceId) => view.services.get(serviceId) ?? [])
    .filter(({ references }) =>
      references.some((reference) => reference.secretId === id && reference.version === version),
    )
    .map(({ name }) => name);
}

function before({ name, currentVersion }: SecretRecord, versions: readonly VersionRecord[]): VersionRecord {
  const found = versions.findLast(({ version, revokedMs }) => version < currentVersion && revokedMs === 0n);
  if (found !== undefined) return found;
  throw new InroError(
    'not_found',
    `secret ${quoted(name)} has no version before ${currentVersion} to go back to`,
    {
      remedy: `'inro secret inspect ${name}' shows those that it has; revoked and pruned ones do not come back`,
    },
  );
}

function chosen(
  { name, currentVersion }: SecretRecord,
  versions: readonly VersionRecord[],
  wanted: number,
): VersionRecord {
  const found = versions.find(({ version }) => version === wanted);
  const which = `version ${wanted} of secret ${quoted(name)}`;
  if (found === undefined)
    throw new InroError('not_found', `${which} is not there`, {
      remedy: `'inro secret inspect ${name}' shows those that it has`,
    });
  if (found.revokedMs > 0n)
    throw new InroError('revoked', `${which} is revoked, and never comes back`, {
      remedy: `choose another one, or give the secret a new value: inro secret update ${name} -`,
    });
  if (wanted === currentVersion)
    throw new InroError('bad_input', `${which} is the current one already`, {
      remedy: `'inro secret inspect ${name}' shows the others`,
    });
  return found;
}
