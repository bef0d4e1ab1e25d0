/** What operators do with secrets. Ciphertext goes in; no call gives a value, or anything that opens one, back. */
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import type { Logger } from 'pino';
import { digestOf, valueBytesOf } from '../crypto/envelope.js';
import type { Clock } from '../model/clock.js';
import { InroError } from '../model/error.js';
import { isId } from '../model/id.js';
import { checkLease } from '../model/lease.js';
import { checkLabels, checkName, quoted } from '../model/name.js';
import type {
  Control,
  CreateSecretRequest,
  Expiration,
  UpdateSecretRequest,
  VersionHolderSchema,
} from '../proto/gen/inro/v1/control_pb.js';
import {
  SecretRecordSchema,
  VersionRecordSchema,
  type SecretRecord,
  type VersionRecord,
} from '../proto/gen/inro/v1/records_pb.js';
import type { Handlers } from '../rpc/server.js';
import type { Store } from '../store/store.js';
import { ciphertextPrefix, decodeRecord, secretNamePrefix, tables, versionKey } from '../store/tables.js';
import { transact, type Transaction } from '../store/transaction.js';
import type { Dispatcher } from './dispatcher.js';
import { callerOf, checkSees, type Caller } from './caller.js';
import { latestOf, pinning } from './control_versions.js';
import { changedLabels } from './changed_labels.js';
import { stageOf } from './stage.js';
import { find, matcher } from './find.js';
import { checkVersion } from './if_version.js';
import type { Keyring } from './keyring.js';
import { deleteReads } from './read_records.js';
import { shownReads } from './shown_reads.js';
import { leaseOf, neverComesMs } from './version_lease.js';
import type { ClusterView } from './view.js';

type ControlHandlers = Handlers<typeof Control, 'operator'>;
type SecretCalls =
  'createSecret' | 'updateSecret' | 'removeSecret' | 'getSecret' | 'getSecretReads' | 'listSecrets';

export interface ControlParts {
  clusterId: string;
  store: Store;
  view: ClusterView;
  dispatcher: Dispatcher;
  keyring: Keyring;
  clock: Clock;
  log: Logger;
}

export function secretHandlers({
  clusterId,
  store,
  view,
  dispatcher,
  keyring,
  clock,
  log,
}: ControlParts): Pick<ControlHandlers, SecretCalls> {
  const changes = secretChanges({ clusterId, view, keyring, clock });
  const findSecret = (typed: string, caller: Caller): SecretRecord => {
    const seen = new Map([...view.secrets].filter(([, { name }]) => caller.sees(name)));
    try {
      return find('secret', seen, typed, (secret) => secret.name);
    } catch (error) {
      if (error instanceof InroError && error.code === 'not_found') checkSees(caller, typed);
      throw error;
    }
  };

  return {
    createSecret: async (request) => {
      const { id, name } = request;
      const { revision } = await transact(store, (tx) => changes.create(tx, request));
      log.info({ secret: id, name }, 'secret created');
      return { id, revision: BigInt(revision), version: 1 };
    },

    updateSecret: async (request) => {
      const { id, version } = request;
      const hasValue = request.ciphertext.length > 0;
      const { result, revision } = await transact(store, (tx) => changes.update(tx, request));
      log.info(
        { secret: id, name: result.name, version: result.stage?.version ?? result.currentVersion },
        result.stage !== undefined && hasValue
          ? 'secret has a new version, in some places'
          : hasValue
            ? 'secret has a new version'
            : 'secret has new labels',
      );
      return {
        id,
        revision: BigInt(revision),
        version: hasValue ? version : result.currentVersion,
        nodeIds: hasValue ? [...view.nodesOfServices(result.serviceIds)] : [],
        // A task that no node was found for waits for its node, not for this value.
        serviceIds: hasValue ? result.serviceIds.filter((one) => view.nodesOfServices([one]).size > 0) : [],
      };
    },

    removeSecret: async ({ name }, { peer }) => {
      const { id } = findSecret(name, callerOf(view, peer));
      const { result, revision } = await transact(store, async (tx) => {
        const secret = await tx.get(tables.secrets, id);
        if (secret === undefined) throw new InroError('not_found', `no secret ${quoted(name)}`);
        if (secret.serviceIds.length > 0) throw inUse(secret, view);
        for (const { version } of await tx.list(tables.versions, `${id}/`)) {
          tx.delete(tables.versions, versionKey(id, version));
          tx.deleteBytes(ciphertextPrefix + versionKey(id, version));
        }
        await deleteReads(tx, id);
        tx.delete(tables.secrets, id);
        tx.deleteBytes(secretNamePrefix + secret.name);
        return secret;
      });
      log.info({ secret: id, name: result.name }, 'secret removed');
      return { id, revision: BigInt(revision) };
    },

    getSecret: async ({ name }, { peer }) =>
      shownSecret(findSecret(name, callerOf(view, peer)), view, dispatcher),

    getSecretReads: async ({ name }, { peer }) => {
      const { id } = findSecret(name, callerOf(view, peer));
      const entries = await store.list(`${tables.reads.prefix}${id}/`);
      const records = entries.map(({ key, value }) => decodeRecord(tables.reads, key, value));
      return { versions: shownReads(id, records, view) };
    },

    listSecrets: async ({ filters }, { peer }) => ({
      secrets: [...view.secrets.values()]
        .filter(({ name }) => callerOf(view, peer).sees(name))
        .filter(matcher(filters))
        .sort((a, b) => (a.name < b.name ? -1 : 1))
        // Who holds what is asked for one by one: of many nodes it is much.
        .map((secret) => withoutHolders(shownSecret(secret, view, dispatcher))),
    }),
  };
}

export interface SecretChanges {
  /** @throws bad_input, already_exists, envelope. */
  create(tx: Transaction, request: CreateSecretRequest): Promise<void>;
  /** @throws bad_input, not_found, conflict, envelope. */
  update(tx: Transaction, request: UpdateSecretRequest): Promise<SecretRecord>;
}

/** What is done to secrets, as part of a transaction. */
export function secretChanges({
  clusterId,
  view,
  keyring,
  clock,
}: Pick<ControlParts, 'clusterId' | 'view' | 'keyring' | 'clock'>): SecretChanges {
  const keepVersion = (
    tx: Transaction,
    secretId: string,
    version: number,
    ciphertext: Uint8Array,
    sealedKey: Uint8Array,
    createdMs: bigint,
    expiration: Expiration | undefined,
    leaseMs: bigint,
  ): void => {
    if (expiration?.ttlMs === 0n)
      throw new InroError('bad_input', 'a value that has expired already is none');
    if (leaseMs !== 0n) checkLease(Number(leaseMs));
    const sizeBytes = valueBytesOf(ciphertext);
    const ciphertextDigest = digestOf(ciphertext);
    const kept = keyring.keep(sealedKey, { clusterId, secretId, version, ciphertextDigest });
    const record = create(VersionRecordSchema, {
      secretId,
      version,
      createdMs,
      sizeBytes,
      ciphertextDigest,
      sealedKey: kept,
      expiresMs: expiration === undefined ? 0n : createdMs + expiration.ttlMs,
      withdraw: expiration?.withdraw ?? false,
      leaseMs,
    });
    tx.put(tables.versions, versionKey(secretId, version), record);
    tx.putBytes(ciphertextPrefix + versionKey(secretId, version), ciphertext);
  };

  return {
    async create(tx, { id, name, labels, ciphertext, sealedKey, expiration, leaseMs }) {
      checkName('secret', name);
      checkLabels(labels);
      if (!isId(id)) throw new InroError('bad_input', `${quoted(id)} is not an id`);
      if ((await tx.getBytes(secretNamePrefix + name)) !== undefined) {
        throw new InroError('already_exists', `secret ${quoted(name)} exists already`, {
          remedy: `give it a new value with 'inro secret update ${name} -', or choose another name`,
        });
      }
      if ((await tx.get(tables.secrets, id)) !== undefined)
        throw new InroError('already_exists', `secret id ${id} exists already`);
      const now = BigInt(clock.now());
      keepVersion(tx, id, 1, ciphertext, sealedKey, now, expiration, leaseMs);
      tx.put(
        tables.secrets,
        id,
        create(SecretRecordSchema, {
          id,
          name,
          labels,
          createdMs: now,
          updatedMs: now,
          currentVersion: 1,
          leaseMs,
        }),
      );
      tx.putBytes(secretNamePrefix + name, Buffer.from(id));
    },

    async update(tx, request) {
      const { id, version, ciphertext, sealedKey, expiration } = request;
      const { stageServices, stageNodes, ifVersion } = request;
      const hasValue = ciphertext.length > 0;
      const secret = await tx.get(tables.secrets, id);
      if (secret === undefined)
        throw new InroError('not_found', `no secret with id ${id}`, {
          remedy: "'inro secret ls' lists them",
        });
      secret.labels = changedLabels(secret.labels, request);
      secret.updatedMs = BigInt(clock.now());
      checkVersion(`secret ${quoted(secret.name)}`, secret.currentVersion, ifVersion);
      if (hasValue && secret.stage !== undefined)
        throw new InroError(
          'conflict',
          `version ${secret.stage.version} of secret ${quoted(secret.name)} is staged`,
          {
            remedy: `first inro secret update ${secret.name} --promote, or --unstage`,
          },
        );
      if (hasValue) {
        const latest = latestOf(secret);
        if (version !== latest + 1) {
          throw new InroError(
            'conflict',
            `secret ${quoted(secret.name)} was updated by somebody else: it has version ${latest} now`,
            {
              remedy: `look at it with 'inro secret inspect ${secret.name}', then give your value again if it is still the right one`,
            },
          );
        }
        if (request.leaseMs !== 0n) secret.leaseMs = request.leaseMs;
        keepVersion(tx, id, version, ciphertext, sealedKey, secret.updatedMs, expiration, secret.leaseMs);
        const stage = stageOf(version, secret, { services: stageServices, nodes: stageNodes }, view);
        if (stage === undefined) secret.currentVersion = version;
        else secret.stage = stage;
        secret.latestVersion = stage === undefined ? 0 : version;
      }
      tx.put(tables.secrets, id, secret);
      return secret;
    },
  };
}

function inUse(secret: SecretRecord, view: ClusterView): InroError {
  const names = secret.serviceIds.map((id) => view.services.get(id)?.name ?? id);
  return new InroError(
    'in_use',
    `secret ${quoted(secret.name)} is in use by ${names.length === 1 ? 'service' : 'services'} ${names.join(', ')}`,
    {
      remedy: `take it away first: inro service update --secret-rm ${secret.name} ${names[0] ?? 'SERVICE'}`,
    },
  );
}

function shownHolder(
  nodeId: string,
  { secretId, version }: VersionRecord,
  view: ClusterView,
  dispatcher: Dispatcher,
): MessageInitShape<typeof VersionHolderSchema> {
  const untilMs = dispatcher.heldUntilMs(nodeId, secretId, version);
  return {
    nodeId,
    nodeHostname:
      view.nodes.get(nodeId)?.description?.hostname ?? view.refusals.ofNode(nodeId)?.hostname ?? '',
    sinceMs: view.holders.get(nodeId, secretId, version)?.sentMs ?? 0n,
    untilMs: untilMs >= neverComesMs ? 0n : BigInt(Math.round(untilMs)),
  };
}

function withoutHolders(shown: ReturnType<typeof shownSecret>) {
  return { ...shown, versions: shown.versions.map((version) => ({ ...version, holders: [] })) };
}

function shownSecret(secret: SecretRecord, view: ClusterView, dispatcher: Dispatcher) {
  const versions = view.versionsOf(secret.id).map((record) => {
    const { version, createdMs, sizeBytes, ciphertextDigest, revokedMs, revokedBy, expiresMs, withdraw } =
      record;
    const holders = dispatcher
      .holdersOf(secret.id, version)
      .map((id) => shownHolder(id, record, view, dispatcher));
    const pinnedBy = pinning(view, secret, version);
    const facts = { version, createdMs, sizeBytes, ciphertextDigest, revokedMs, revokedBy };
    const leaseMs = BigInt(leaseOf(record));
    return { ...facts, nodes: holders.length, holders, leaseMs, expiresMs, withdraw, pinnedBy };
  });
  return {
    id: secret.id,
    name: secret.name,
    labels: secret.labels,
    createdMs: secret.createdMs,
    updatedMs: secret.updatedMs,
    version: secret.currentVersion,
    latestVersion: latestOf(secret),
    sizeBytes: versions.find(({ version }) => version === secret.currentVersion)?.sizeBytes ?? 0,
    versions,
    serviceNames: secret.serviceIds.map((id) => view.services.get(id)?.name ?? id),
    stagedVersion: secret.stage?.version ?? 0,
    stagedServices: (secret.stage?.serviceIds ?? []).map((id) => view.services.get(id)?.name ?? id),
    stagedNodes: (secret.stage?.nodeIds ?? []).map((id) => view.nodes.get(id)?.description?.hostname ?? id),
  };
}
