/**
 * The manager's folder:
 *
 *   ca.crt, ca.key             the cluster's root and its key (PEM)
 *   manager.crt, manager.key   this manager's certificate and key (PEM); see own_certificate.ts
 *   sealing.key, data.key      key files (src/crypto/key_file.ts)
 *   store/                     the embedded store
 *
 * Everything is 0600 in a 0700 folder. The cluster record in the store is written last: without it the rest
 * is the remainder of a first start that was cut off, and is made anew.
 */
import { create } from '@bufbuild/protobuf';
import { join } from 'node:path';
import type { Arena } from '../crypto/arena.js';
import { drawExchangeKey, drawKey, exchangeKeyOf } from '../crypto/exchange.js';
import { readKeyFile, writeKeyFile } from '../crypto/key_file.js';
import { readPrivateKey } from '../crypto/signing.js';
import type { Clock, Random } from '../model/clock.js';
import { InroError } from '../model/error.js';
import { newId } from '../model/id.js';
import { createAuthority, openAuthority, type Authority } from '../pki/authority.js';
import { readCertificate } from '../pki/certificate.js';
import { readRoot } from '../pki/root.js';
import { makeJoinToken } from '../pki/join_token.js';
import { ClusterRecordSchema, type ClusterRecord } from '../proto/gen/inro/v1/records_pb.js';
import { openLmdbStore } from '../store/lmdb.js';
import type { Store } from '../store/store.js';
import { tables } from '../store/tables.js';
import { transact } from '../store/transaction.js';
import {
  claimStateFolder,
  makeStateFolder,
  parseFile,
  readFileIfThere,
  replaceFile,
} from '../system/files.js';
import { certificateLifetimeMs } from './cluster_record.js';
import { createKeyring, type Keyring } from './keyring.js';
import { ownIdentity, restore } from './own_certificate.js';

const storeFormat = 1;

export interface ManagerState {
  cluster: ClusterRecord;
  authority: Authority;
  keyring: Keyring;
  store: Store;
  /** For TLS. */
  certificatePem: string;
  keyPem: string;
  /** True when this start made the cluster. */
  isNew: boolean;
}

export interface StateSurroundings {
  arena: Arena;
  clock: Clock;
  random: Random;
}

/** @throws state_unusable, store_corrupt, already_running. */
export async function openManagerState(
  folder: string,
  surroundings: StateSurroundings,
): Promise<ManagerState> {
  claimStateFolder(folder, 'manager');
  const storePath = join(folder, 'store');
  makeStateFolder(storePath);
  const store = openLmdbStore(storePath);
  try {
    const entry = await transact(store, (tx) => tx.get(tables.cluster, 'self'));
    const isNew = entry.result === undefined;
    // Written after the cluster record: where it is, the record has been lost, and the keys must not be.
    if (isNew && readFileIfThere(join(folder, 'manager.crt')) !== undefined)
      throw new InroError(
        'state_unusable',
        `the store in ${storePath} is empty, but ${folder} belongs to a cluster`,
        {
          remedy: 'restore the whole folder from one backup',
        },
      );
    const cluster = entry.result ?? (await makeCluster(folder, store, surroundings));
    if (cluster.format !== storeFormat) {
      throw new InroError(
        'state_unusable',
        `the store in ${storePath} has format ${cluster.format}, and this version knows ${storeFormat}`,
        {
          remedy: 'use the version of inro that wrote it',
        },
      );
    }
    const { arena } = surroundings;
    const rootPem = mustRead(folder, 'ca.crt', readRoot);
    const authority = openAuthority(rootPem, mustRead(folder, 'ca.key', readPrivateKey), surroundings);
    if (authority.clusterId !== cluster.id) {
      throw new InroError(
        'state_unusable',
        `${join(folder, 'ca.crt')} is of cluster ${authority.clusterId}, the store of cluster ${cluster.id}`,
        {
          remedy: 'restore the whole folder from one backup',
        },
      );
    }
    const sealing = exchangeKeyOf(readKeyFile(join(folder, 'sealing.key'), arena));
    const keyring = createKeyring(arena, sealing, readKeyFile(join(folder, 'data.key'), arena));
    const parts = { folder, authority, ...surroundings, lifetimeMs: certificateLifetimeMs(cluster) };
    return { cluster, authority, keyring, store, isNew, ...ownIdentity(parts) };
  } catch (error) {
    await store.close();
    throw error;
  }
}

async function makeCluster(
  folder: string,
  store: Store,
  { arena, clock, random }: StateSurroundings,
): Promise<ClusterRecord> {
  const clusterId = newId(random);
  const { certPem, keyPem } = createAuthority({ clusterId, clock, random });
  replaceFile(join(folder, 'ca.key'), keyPem, 0o600);
  replaceFile(join(folder, 'ca.crt'), certPem, 0o600);
  const sealing = drawExchangeKey(arena);
  const dataKey = drawKey(arena);
  const keyring = createKeyring(arena, sealing, dataKey);
  try {
    writeKeyFile(join(folder, 'sealing.key'), sealing.secret, arena);
    writeKeyFile(join(folder, 'data.key'), dataKey, arena);
    const token = makeJoinToken(readCertificate(certPem).der, random);
    const cluster = create(ClusterRecordSchema, {
      id: clusterId,
      createdMs: BigInt(clock.now()),
      sealedWorkerToken: keyring.keepText(token.reveal()),
      format: storeFormat,
    });
    await transact(store, async (tx) => tx.put(tables.cluster, 'self', cluster));
    return cluster;
  } finally {
    keyring.wipe();
  }
}

/** @param parse throws for what is not a file of this kind. @throws state_unusable, naming the file. */
function mustRead(folder: string, name: string, parse: (text: string) => unknown): string {
  const path = join(folder, name);
  const text = readFileIfThere(path);
  if (text === undefined) throw new InroError('state_unusable', `${path} is missing`, { remedy: restore });
  parseFile(path, text, parse, restore);
  return text;
}
