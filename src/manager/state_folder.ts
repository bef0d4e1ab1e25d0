/**
 * The manager's folder:
 *
 *   ca.crt, ca.key             the CA that signs, those above it up to the root, and the first one's key (PEM); see ca_files.ts
 *   manager.crt, manager.key   this manager's certificate and key (PEM); see own_certificate.ts
 *   sealing.key, data.key      key files (src/crypto/key_file.ts)
 *   store/                     the embedded store
 *   store.key, exchange.key    instead of that, of a distributed one (distributed.ts)
 *
 * Everything is 0600 in a 0700 folder; private keys may be wrapped (src/crypto/at_rest.ts). The cluster record in the store is written last: without it the rest
 * is the remainder of a first start that was cut off, and is made anew.
 */
import { create } from '@bufbuild/protobuf';
import { join } from 'node:path';
import type { Logger } from 'pino';
import type { Arena } from '../crypto/arena.js';
import { readPrivateFile, settlePrivateFiles, writePrivateFile } from '../crypto/at_rest.js';
import { drawExchangeKey, drawKey, exchangeKeyOf } from '../crypto/exchange.js';
import { readKeyFile, writeKeyFile } from '../crypto/key_file.js';
import { generateNodeKey, readAuthorityKey } from '../crypto/signing.js';
import type { Clock, Random } from '../model/clock.js';
import { InroError } from '../model/error.js';
import type { ExternalCaSpec } from '../model/external_ca.js';
import { newId } from '../model/id.js';
import { createAuthority } from '../pki/authority.js';
import { readBrought, readBroughtChain } from '../pki/brought.js';
import type { Certificate } from '../pki/certificate.js';
import { chainPem, leafOf, readChain } from '../pki/chain.js';
import { createCsr } from '../pki/csr.js';
import { openExternalAuthority, type ExternalAuthority } from '../pki/external.js';
import { makeJoinToken } from '../pki/join_token.js';
import { roles, type Role } from '../pki/role.js';
import { sealingNameOf } from '../pki/sealing_name.js';
import { ClusterRecordSchema, type CaRecord, type ClusterRecord } from '../proto/gen/inro/v1/records_pb.js';
import type { Store } from '../store/store.js';
import { tables } from '../store/tables.js';
import { transact } from '../store/transaction.js';
import { parseFile, readFileIfThere, replaceFile } from '../system/files.js';
import { Authorities } from './authorities.js';
import { settleNextCa } from './ca_files.js';
import { certificateLifetimeMs } from './cluster_record.js';
import { readDataKeys, writeDataKey } from './data_key_files.js';
import { ExternalCa } from './external_ca.js';
import { createKeyring, type Keyring } from './keyring.js';
import { ownIdentity, restore } from './own_certificate.js';
import { privateFilesIn } from './private_files.js';

const storeFormat = 1;

export interface ManagerState {
  cluster: ClusterRecord;
  authority: Authorities;
  keyring: Keyring;
  store: Store;
  /** For TLS. */
  certificatePem: string;
  keyPem: string;
  /** Where the CA is one. */
  external: ExternalCa | undefined;
  /** True when this start made the cluster. */
  isNew: boolean;
}

export interface StateSurroundings {
  arena: Arena;
  clock: Clock;
  random: Random;
  log: Logger;
}

/** What a new cluster is founded with, where inro does not make its CA. */
export type GivenCa = BroughtFiles | { external: readonly ExternalCaSpec[] };

/** Paths of PEM files. */
export interface BroughtFiles {
  certificatePath: string;
  keyPath: string;
}

/** What the manager keeps, opened. */
export interface OpenedStore {
  store: Store;
  /** As an operator knows it. */
  where: string;
  /** What this manager's first certificate is made for, where that is decided already. */
  ownId?: string;
}

/**
 * @param folder is claimed. @param opened is the state's to close, also when this throws.
 * @param ca what a new cluster is founded with; one that is there must have been.
 * @throws state_unusable, store_corrupt; bad_certificate and bad_input for a CA that cannot be used.
 */
export async function openManagerState(
  folder: string,
  surroundings: StateSurroundings,
  { store, where, ownId }: OpenedStore,
  ca?: GivenCa,
): Promise<ManagerState> {
  try {
    settlePrivateFiles(privateFilesIn(folder));
    const entry = await transact(store, (tx) => tx.get(tables.cluster, 'self'));
    const isNew = entry.result === undefined;
    // Written after the cluster record: where it is, the record has been lost, and the keys must not be.
    if (isNew && readFileIfThere(join(folder, 'manager.crt')) !== undefined)
      throw new InroError(
        'state_unusable',
        `the store in ${where} is empty, but ${folder} belongs to a cluster`,
        {
          remedy: 'restore the whole folder from one backup',
        },
      );
    const cluster = entry.result ?? (await makeCluster(folder, store, surroundings, ca));
    if (cluster.format !== storeFormat) {
      throw new InroError(
        'state_unusable',
        `the store in ${where} has format ${cluster.format}, and this version knows ${storeFormat}`,
        {
          remedy: 'use the version of inro that wrote it',
        },
      );
    }
    const { arena } = surroundings;
    const specs = ca !== undefined && 'external' in ca ? ca.external : [];
    const { authority, external } = openAuthorities(folder, cluster, specs, surroundings);
    checkSameCluster(folder, authority);
    if (!isNew) checkSameCa(authority.records, ca, cluster.id);
    const sealing = exchangeKeyOf(readKeyFile(join(folder, 'sealing.key'), arena));
    const keyring = createKeyring(arena, sealing, readDataKeys(folder, arena));
    const sealingName = sealingNameOf(cluster.id, keyring.sealingPublicKey);
    const lifetimeMs = certificateLifetimeMs(cluster);
    const own = ownId === undefined ? {} : { ownId };
    const parts = { folder, authority, ...surroundings, lifetimeMs, sealingName, ...own };
    return { cluster, authority, external, keyring, store, isNew, ...(await ownIdentity(parts)) };
  } catch (error) {
    await store.close();
    throw error;
  }
}

/** @throws state_unusable; bad_certificate, bad_input. */
function openAuthorities(
  folder: string,
  { id: clusterId, cas, createdMs }: ClusterRecord,
  specs: readonly ExternalCaSpec[],
  surroundings: StateSurroundings,
): { authority: Authorities; external: ExternalCa | undefined } {
  const isLast = (certPem: string): boolean => sameChain(certPem, cas.at(-1)?.chainPem ?? '');
  settleNextCa(folder, isLast);
  const certPem = mustRead(folder, 'ca.crt', readChain);
  if (cas.length > 0 && !isLast(certPem)) {
    throw new InroError(
      'state_unusable',
      `${join(folder, 'ca.crt')} is not the CA that signs for cluster ${clusterId}, by its store`,
      { remedy: restore },
    );
  }
  const records = cas.length > 0 ? cas : [Authorities.first(certPem, Number(createdMs))];
  const parts = { ...surroundings, clusterId };
  if (records.at(-1)?.external !== true) {
    const key = mustRead(folder, 'ca.key', readAuthorityKey, readPrivateFile);
    return { authority: new Authorities(records, key, parts), external: undefined };
  }
  if (specs.length === 0) {
    throw new InroError(
      'bad_input',
      `cluster ${clusterId} has an external CA, and it is not said where it is`,
      {
        remedy:
          "give --external-ca protocol=cfssl,url=https://HOST:PORT, or write it into manager.yaml as 'externalCa'",
      },
    );
  }
  const external = externalCaOf(specs, certPem, surroundings);
  return { authority: new Authorities(records, external.ask, parts), external };
}

function externalCaOf(
  specs: readonly ExternalCaSpec[],
  certPem: string,
  { clock, log }: StateSurroundings,
): ExternalCa {
  const rootPem = (readChain(certPem).at(-1) as Certificate).pem;
  return new ExternalCa(specs, { rootPem, clock, log });
}

async function makeCluster(
  folder: string,
  store: Store,
  surroundings: StateSurroundings,
  ca: GivenCa | undefined,
): Promise<ClusterRecord> {
  const { arena, clock, random } = surroundings;
  const clusterId = newId(random);
  const { certPem, keyPem } = await foundingCa(clusterId, ca, surroundings);
  if (keyPem !== undefined) writePrivateFile(join(folder, 'ca.key'), keyPem);
  replaceFile(join(folder, 'ca.crt'), certPem, 0o600);
  const sealing = drawExchangeKey(arena);
  const dataKey = drawKey(arena);
  const keyring = createKeyring(arena, sealing, { present: dataKey });
  try {
    writeKeyFile(join(folder, 'sealing.key'), sealing.secret, arena);
    writeDataKey(folder, dataKey, arena);
    const token = makeJoinToken((readChain(certPem).at(-1) as Certificate).der, random);
    const cluster = create(ClusterRecordSchema, {
      id: clusterId,
      createdMs: BigInt(clock.now()),
      sealedWorkerToken: keyring.keepText(token.reveal()),
      format: storeFormat,
      cas: [Authorities.first(certPem, clock.now(), keyPem === undefined)],
    });
    await transact(store, async (tx) => tx.put(tables.cluster, 'self', cluster));
    return cluster;
  } finally {
    keyring.wipe();
  }
}

/** @returns no key for an external one, which has signed something of each kind by then, and rightly. */
async function foundingCa(
  clusterId: string,
  ca: GivenCa | undefined,
  surroundings: StateSurroundings,
): Promise<{ certPem: string; keyPem?: string }> {
  const { clock, random } = surroundings;
  if (ca === undefined) return createAuthority({ clusterId, clock, random });
  if (!('external' in ca))
    return readBrought(
      { certPem: readGiven(ca.certificatePath), keyPem: readGiven(ca.keyPath) },
      clock.now(),
    );
  const [path, ...others] = ca.external.flatMap(({ cacert }) => cacert ?? []);
  if (path === undefined) {
    throw new InroError('bad_input', 'it is not said which CA signs at the external CA', {
      remedy: 'give its certificate, and those above it up to the root: --external-ca ...,cacert=FILE',
    });
  }
  const certPem = chainPem(readBroughtChain(readGiven(path), clock.now()));
  const other = others.find((one) => !sameChain(readGiven(one), certPem));
  if (other !== undefined)
    throw new InroError('bad_input', `${other} is another CA than ${path}`, {
      remedy: 'several --external-ca are several ways to one CA: give the same cacert to each',
    });
  // Who founds a cluster sees what fails at once.
  const log = surroundings.log.child({}, { level: 'silent' });
  const external = externalCaOf(ca.external, certPem, { ...surroundings, log });
  const authority = openExternalAuthority(certPem, external.ask, { clusterId, clock });
  try {
    for (const role of roles) await tryOut(authority, role, clusterId, surroundings);
  } finally {
    external.close();
  }
  return { certPem };
}

/** For a key that is thrown away. @throws unreachable. */
async function tryOut(
  authority: ExternalAuthority,
  role: Role,
  clusterId: string,
  { random }: StateSurroundings,
): Promise<void> {
  const csr = createCsr(generateNodeKey().privateKey);
  const names = role === 'manager' ? { sealingName: sealingNameOf(clusterId, random(32)) } : {};
  await authority.issueNode({ csr, nodeId: newId(random), role, ...names });
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
function checkSameCa(cas: readonly CaRecord[], ca: GivenCa | undefined, clusterId: string): void {
  if (ca === undefined) return;
  if ('external' in ca) return checkSameExternal(cas, ca.external, clusterId);
  const { certificatePath } = ca;
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

function checkSameExternal(
  cas: readonly CaRecord[],
  specs: readonly ExternalCaSpec[],
  clusterId: string,
): void {
  const last = cas.at(-1);
  if (last?.external !== true)
    throw new InroError('bad_input', `cluster ${clusterId} has a CA of its own, not an external one`, {
      remedy: 'leave --external-ca out: a cluster has an external CA when it is founded with one',
    });
  for (const { cacert } of specs) {
    if (cacert === undefined || sameChain(readGiven(cacert), last.chainPem)) continue;
    throw new InroError('bad_input', `${cacert} is not the CA that cluster ${clusterId} was founded with`, {
      remedy:
        'give the same cacert=FILE as then, or leave it out: the cluster goes on with the CA that it has',
    });
  }
}

function sameChain(a: string, b: string): boolean {
  return b !== '' && chainPem(readChain(a)) === chainPem(readChain(b));
}

/** @throws bad_input, naming the file. */
function readGiven(path: string): string {
  const text = readFileIfThere(path);
  if (text !== undefined) return text;
  throw new InroError('bad_input', `the file ${path} is not there`, {
    remedy: 'give a PEM file that is there with --ca-cert and with --ca-key, or as cacert= of --external-ca',
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
