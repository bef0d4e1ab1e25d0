/**
 * The manager's folder:
 *
 *   ca.crt, ca.key             the CA that signs, those above it up to the root, and the first one's key (PEM); see ca_files.ts
 *   manager.crt, manager.key   this manager's certificate and key (PEM); see own_certificate.ts
 *   sealing.key, data.key      key files (src/crypto/key_file.ts)
 *   store/                     the embedded store
 *
 * Everything is 0600 in a 0700 folder; private keys may be wrapped (src/crypto/at_rest.ts). The cluster record in the store is written last: without it the rest
 * is the remainder of a first start that was cut off, and is made anew.
 */
import { create } from '@bufbuild/protobuf';
import { join } from 'node:path';
import type { Arena } from '../crypto/arena.js';
import { readPrivateFile, settlePrivateFiles, writePrivateFile } from '../crypto/at_rest.js';
import { drawExchangeKey, drawKey, exchangeKeyOf } from '../crypto/exchange.js';
import { readKeyFile, writeKeyFile } from '../crypto/key_file.js';
import { readAuthorityKey } from '../crypto/signing.js';
import type { Clock, Random } from '../model/clock.js';
import { InroError } from '../model/error.js';
import { newId } from '../model/id.js';
import { createAuthority } from '../pki/authority.js';
import { readBrought } from '../pki/brought.js';
import type { Certificate } from '../pki/certificate.js';
import { chainPem, leafOf, readChain } from '../pki/chain.js';
import { makeJoinToken } from '../pki/join_token.js';
import { sealingNameOf } from '../pki/sealing_name.js';
import { ClusterRecordSchema, type CaRecord, type ClusterRecord } from '../proto/gen/inro/v1/records_pb.js';
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
import { Authorities } from './authorities.js';
import { settleNextCa } from './ca_files.js';
import { certificateLifetimeMs } from './cluster_record.js';
import { createKeyring, type Keyring } from './keyring.js';
import { ownIdentity, restore } from './own_certificate.js';

const storeFormat = 1;
const privateFiles = ['ca.key', 'ca-next.key', 'manager.key', 'sealing.key', 'data.key'];

export interface ManagerState {
  cluster: ClusterRecord;
  authority: Authorities;
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

/** Paths of PEM files. */
export interface BroughtFiles {
  certificatePath: string;
  keyPath: string;
}

/**
 * @param ca what a new cluster is founded with; one that is there must have been.
 * @throws state_unusable, store_corrupt, already_running; bad_certificate and bad_input for a CA that cannot be used.
 */
export async function openManagerState(
  folder: string,
  surroundings: StateSurroundings,
  ca?: BroughtFiles,
): Promise<ManagerState> {
  claimStateFolder(folder, 'manager');
  settlePrivateFiles(privateFiles.map((name) => join(folder, name)));
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
    const cluster = entry.result ?? (await makeCluster(folder, store, surroundings, ca));
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
    const authority = openAuthorities(folder, cluster, surroundings);
    checkSameCluster(folder, authority);
    if (ca !== undefined && !isNew) checkSameCa(authority.records, ca, cluster.id);
    const sealing = exchangeKeyOf(readKeyFile(join(folder, 'sealing.key'), arena));
    const keyring = createKeyring(arena, sealing, readKeyFile(join(folder, 'data.key'), arena));
    const sealingName = sealingNameOf(cluster.id, keyring.sealingPublicKey);
    const lifetimeMs = certificateLifetimeMs(cluster);
    const parts = { folder, authority, ...surroundings, lifetimeMs, sealingName };
    return { cluster, authority, keyring, store, isNew, ...(await ownIdentity(parts)) };
  } catch (error) {
    await store.close();
    throw error;
  }
}

/** @throws state_unusable; bad_certificate, bad_input. */
function openAuthorities(
  folder: string,
  { id: clusterId, cas, createdMs }: ClusterRecord,
  surroundings: StateSurroundings,
): Authorities {
  const isLast = (certPem: string): boolean => sameChain(certPem, cas.at(-1)?.chainPem ?? '');
  settleNextCa(folder, isLast);
  const certPem = mustRead(folder, 'ca.crt', readChain);
  const key = mustRead(folder, 'ca.key', readAuthorityKey, readPrivateFile);
  if (cas.length > 0 && !isLast(certPem)) {
    throw new InroError(
      'state_unusable',
      `${join(folder, 'ca.crt')} is not the CA that signs for cluster ${clusterId}, by its store`,
      { remedy: restore },
    );
  }
  const records = cas.length > 0 ? cas : [Authorities.first(certPem, Number(createdMs))];
  return new Authorities(records, key, { ...surroundings, clusterId });
}

async function makeCluster(
  folder: string,
  store: Store,
  { arena, clock, random }: StateSurroundings,
  ca: BroughtFiles | undefined,
): Promise<ClusterRecord> {
  const clusterId = newId(random);
  const { certPem, keyPem } =
    ca === undefined
      ? createAuthority({ clusterId, clock, random })
      : readBrought({ certPem: readGiven(ca.certificatePath), keyPem: readGiven(ca.keyPath) }, clock.now());
  writePrivateFile(join(folder, 'ca.key'), keyPem);
  replaceFile(join(folder, 'ca.crt'), certPem, 0o600);
  const sealing = drawExchangeKey(arena);
  const dataKey = drawKey(arena);
  const keyring = createKeyring(arena, sealing, dataKey);
  try {
    writeKeyFile(join(folder, 'sealing.key'), sealing.secret, arena);
    writeKeyFile(join(folder, 'data.key'), dataKey, arena);
    const token = makeJoinToken((readChain(certPem).at(-1) as Certificate).der, random);
    const cluster = create(ClusterRecordSchema, {
      id: clusterId,
      createdMs: BigInt(clock.now()),
      sealedWorkerToken: keyring.keepText(token.reveal()),
      format: storeFormat,
      cas: [Authorities.first(certPem, clock.now())],
    });
    await transact(store, async (tx) => tx.put(tables.cluster, 'self', cluster));
    return cluster;
  } finally {
    keyring.wipe();
  }
}

/** The names in a CA are its own, so what it signed for this manager tells. @throws state_unusable. */
function checkSameCluster(folder: string, authority: Authorities): void {
  const path = join(folder, 'manager.crt');
  const text = readFileIfThere(path);
  if (text === undefined) return;
  const own = parseFile(path, text, leafOf, restore);
  const { clusterId } = authority;
  // By one of them: a stop may have come between a new CA and the certificate that is made with it.
  if (own.clusterId === clusterId && authority.signerOf(own) !== undefined) return;
  throw new InroError(
    'state_unusable',
    `${path} was not issued by the CA in ${join(folder, 'ca.crt')} for cluster ${clusterId}, which the store is of`,
    { remedy: 'restore the whole folder from one backup' },
  );
}

/** The key may be gone from where it was brought from, so it is not looked at. @throws bad_input, bad_certificate. */
function checkSameCa(cas: readonly CaRecord[], { certificatePath }: BroughtFiles, clusterId: string): void {
  const given = readGiven(certificatePath);
  if (cas.some(({ chainPem: known }) => sameChain(given, known))) return;
  throw new InroError(
    'bad_input',
    `${certificatePath} is not the CA that cluster ${clusterId} was founded with`,
    {
      remedy:
        'leave --ca-cert and --ca-key out: they are for a new cluster, and this one goes on with the CA that it has; to have another sign, start it and type: inro ca rotate --ca-cert FILE --ca-key FILE',
    },
  );
}

function sameChain(a: string, b: string): boolean {
  return b !== '' && chainPem(readChain(a)) === chainPem(readChain(b));
}

/** @throws bad_input, naming the file. */
function readGiven(path: string): string {
  const text = readFileIfThere(path);
  if (text !== undefined) return text;
  throw new InroError('bad_input', `the file ${path} is not there`, {
    remedy: 'give a PEM file that is there with --ca-cert and with --ca-key',
  });
}

/** @param parse throws for what is not a file of this kind. @throws state_unusable, naming the file. */
function mustRead(
  folder: string,
  name: string,
  parse: (text: string) => unknown,
  read: (path: string) => string | undefined = readFileIfThere,
): string {
  const path = join(folder, name);
  const text = read(path);
  if (text === undefined) throw new InroError('state_unusable', `${path} is missing`, { remedy: restore });
  parseFile(path, text, parse, restore);
  return text;
}
