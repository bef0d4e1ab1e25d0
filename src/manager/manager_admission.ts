/** Who becomes another manager of the cluster: a host that shows a manager token, once for each use that the token has. */
import { create } from '@bufbuild/protobuf';
import type { Logger } from 'pino';
import { keyBytes } from '../crypto/exchange.js';
import { constantTimeEqual } from '../crypto/signing.js';
import type { Clock, Random } from '../model/clock.js';
import { InroError } from '../model/error.js';
import { newId } from '../model/id.js';
import { printable } from '../model/name.js';
import { parseJoinToken } from '../pki/join_token.js';
import { sealingNameOf } from '../pki/sealing_name.js';
import type { JoinManagerRequest, JoinManagerResponseSchema } from '../proto/gen/inro/v1/enrollment_pb.js';
import { ManagerRecordSchema } from '../proto/gen/inro/v1/records_pb.js';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Store } from '../store/store.js';
import { tables } from '../store/tables.js';
import { transact, type Transaction } from '../store/transaction.js';
import { usableToken } from './admission.js';
import type { AuditBook } from './audit_book.js';
import type { Authorities } from './authorities.js';
import { certificateLifetimeMs, readCluster } from './cluster_record.js';
import type { JoinGuard } from './join_guard.js';
import type { Keyring } from './keyring.js';
import { managerLimits } from './limits.js';
import type { Managers } from './managers.js';
import type { ClusterView } from './view.js';

export interface ManagerAdmissionParts {
  authority: Authorities;
  store: Store;
  view: ClusterView;
  keyring: Keyring;
  managers: Managers;
  guard: JoinGuard;
  audit: Pick<AuditBook, 'append' | 'appendStranger'>;
  clock: Clock;
  random: Random;
  log: Logger;
}

/** @throws bad_token, rate_limited, bad_input, not_supported, envelope, unreachable, store_full. */
export async function admitManager(
  parts: ManagerAdmissionParts,
  { csrPem, token: text, exchangeKey, hostname: named }: JoinManagerRequest,
  address: string,
): Promise<MessageInitShape<typeof JoinManagerResponseSchema>> {
  const { authority, store, view, keyring, managers, guard, audit, clock, random, log } = parts;
  guard.check(address);
  if (exchangeKey.length !== keyBytes)
    throw new InroError('bad_input', `an exchange key has ${keyBytes} bytes`);
  const hash = parseJoinToken(text).secretHash(authority.clusterId);
  const found = [...view.joinTokens.values()].find((one) => constantTimeEqual(one.secretHash, hash));
  const tokenIn = (tx: Transaction) => usableToken(tx, found?.id, 'manager', clock.now());
  try {
    await transact(store, tokenIn);
  } catch (error) {
    if (!(error instanceof InroError) || error.code !== 'bad_token') throw error;
    if (found === undefined) guard.noteWrong(address);
    await audit.appendStranger({ action: 'join', address, outcome: 'bad_token', reason: error.message });
    log.warn({ address, why: error.message }, 'a host showed a manager token that is not valid');
    throw error;
  }
  const { clusterId } = authority;
  const id = newId(random);
  const hostname = printable(named, managerLimits.maxDescriptionChars);
  const sealingName = sealingNameOf(clusterId, keyring.sealingPublicKey);
  const lifetimeMs = certificateLifetimeMs(await readCluster(store));
  const issued = await authority.issue({ csr: csrPem, nodeId: id, role: 'manager', lifetimeMs, sealingName });
  const files = managers.filesFor(exchangeKey);
  await transact(store, async (tx) => {
    const token = await tokenIn(tx);
    if ((await tx.list(tables.managers)).length >= managerLimits.maxManagers)
      throw new InroError('too_large', `there are ${managerLimits.maxManagers} managers already`, {
        remedy: "remove those that are gone: 'inro manager ls', 'inro manager rm ID'",
      });
    token.usesLeft -= 1;
    token.lastUsedMs = BigInt(clock.now());
    tx.put(tables.joinTokens, token.id, token);
    const record = { id, hostname, joinedMs: BigInt(clock.now()), exchangeKey, files };
    tx.put(tables.managers, id, create(ManagerRecordSchema, record));
  });
  log.info({ manager: id, address, hostname }, 'a manager joined');
  const { serial } = issued.certificate;
  const reason = `a manager joined: ${hostname}`;
  await audit.append({ action: 'join', object: id, serial, address, outcome: 'done', reason });
  const sealingPublicKey = keyring.sealingPublicKey;
  return { certificatePem: issued.chainPem, clusterId, sealingPublicKey, files };
}
