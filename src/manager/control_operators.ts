/** Operators: people with certificates of their own. What each may do stands in the store, not in his certificate. */
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import type { Logger } from 'pino';
import type { Clock, Random } from '../model/clock.js';
import { InroError } from '../model/error.js';
import { newId } from '../model/id.js';
import { checkName, quoted } from '../model/name.js';
import { checkGrants, checkOperatorRole } from '../model/operator.js';
import { readCsr } from '../pki/csr.js';
import type { Control, OperatorSchema } from '../proto/gen/inro/v1/control_pb.js';
import { OperatorRecordSchema, type OperatorRecord } from '../proto/gen/inro/v1/records_pb.js';
import type { Handlers } from '../rpc/server.js';
import type { Store } from '../store/store.js';
import { operatorNamePrefix, tables } from '../store/tables.js';
import { transact, type Transaction } from '../store/transaction.js';
import type { Authorities, Issued } from './authorities.js';
import { find } from './find.js';
import { noteChange, versionOf } from './if_version.js';
import { managerLimits } from './limits.js';
import { keyDigest } from './refusals.js';
import { Tries } from './tries.js';
import type { ClusterView } from './view.js';

export interface OperatorHandlersParts {
  clusterId: string;
  store: Store;
  view: ClusterView;
  authority: Pick<Authorities, 'issue' | 'root' | 'isPresent'>;
  managerAddresses: () => readonly string[];
  clock: Clock;
  random: Random;
  log: Logger;
}

type Calls =
  | 'createOperator'
  | 'getOperator'
  | 'listOperators'
  | 'updateOperator'
  | 'revokeOperator'
  | 'removeOperator'
  | 'renewOperator';

export function operatorHandlers(
  parts: OperatorHandlersParts,
): Pick<Handlers<typeof Control, 'operator'>, Calls> {
  const { clusterId, store, view, authority, managerAddresses, clock, random, log } = parts;

  const renewals = new Tries(clock, managerLimits.operatorRenewalsMs);

  const findOperator = (typed: string): OperatorRecord =>
    find('operator', view.operators, typed, ({ name }) => name);

  const shown = (record: OperatorRecord): MessageInitShape<typeof OperatorSchema> => {
    const { id, name, role, grants, createdMs, expiresMs, serial, revokedMs } = record;
    const isOver = expiresMs < BigInt(clock.now());
    const status = revokedMs > 0n ? 'revoked' : isOver ? 'expired' : 'valid';
    const formerCa = record.issuedCa.length > 0 && !authority.isPresent(record.issuedCa);
    const version = versionOf(record);
    return { id, name, role, grants, createdMs, expiresMs, serial, revokedMs, status, formerCa, version };
  };

  /** Before it is recorded: where the CA is elsewhere, that takes its time. */
  const issue = ({ id: nodeId, ttlMs }: OperatorRecord, csr: string): Promise<Issued> =>
    authority.issue({ csr, nodeId, role: 'operator', lifetimeMs: Number(ttlMs) });

  const note = (record: OperatorRecord, { certificate, issuedCa }: Issued): void => {
    record.serial = certificate.serial;
    record.keyDigest = keyDigest(certificate.publicKey);
    record.issuedCa = issuedCa;
    // An external CA decides itself how long it lasts: it is not accepted any longer than this.
    record.expiresMs = BigInt(Math.min(certificate.notAfterMs, clock.now() + Number(record.ttlMs)));
  };

  const noted = (record: OperatorRecord, words: string): void => {
    const { id, name, role, grants, expiresMs, serial } = record;
    log.info({ operator: id, name, role, grants, serial, expires: Number(expiresMs) }, words);
  };

  const answer = (record: OperatorRecord, { chainPem }: Issued) => ({
    operator: shown(record),
    certificatePem: chainPem,
    rootPem: authority.root.pem,
    clusterId,
    managers: managerAddresses().filter(isReachable),
  });

  /** @param decide changes the record, or takes it away and says so. */
  const change = async (
    typed: string,
    words: string,
    decide: (record: OperatorRecord, tx: Transaction) => 'gone' | void,
  ) => {
    const { id } = findOperator(typed);
    const { result } = await transact(store, async (tx) => {
      const record = await tx.get(tables.operators, id);
      if (record === undefined) throw unknown(typed);
      if (decide(record, tx) !== 'gone') tx.put(tables.operators, id, record);
      return record;
    });
    noted(result, words);
    return shown(result);
  };

  return {
    createOperator: async ({ name, role: text, grants, ttlMs, csrPem }) => {
      checkName('operator', name);
      const role = checkOperatorRole(text);
      const digest = keyDigest(readCsr(csrPem));
      const record = create(OperatorRecordSchema, {
        id: newId(random),
        name,
        role,
        grants: checkGrants(role, grants),
        createdMs: BigInt(clock.now()),
        ttlMs: checkedTtl(ttlMs),
      });
      const check = async (tx: Transaction): Promise<void> => {
        if ((await tx.getBytes(operatorNamePrefix + name)) !== undefined) {
          throw new InroError('already_exists', `operator ${quoted(name)} exists already`, {
            remedy: `change what he may do with 'inro operator update', or remove him first: inro operator rm ${name}`,
          });
        }
        const others = await tx.list(tables.operators);
        if (others.length >= managerLimits.maxOperators) {
          throw new InroError('too_large', `there are ${others.length} operators, and no more are kept`, {
            remedy: "remove some first: 'inro operator ls', 'inro operator rm NAME'",
          });
        }
        checkKeyIsNew(digest, others, view);
      };
      await transact(store, check);
      const issued = await issue(record, csrPem);
      note(record, issued);
      await transact(store, async (tx) => {
        await check(tx);
        tx.put(tables.operators, record.id, record);
        tx.putBytes(operatorNamePrefix + name, Buffer.from(record.id));
      });
      noted(record, 'operator created');
      return answer(record, issued);
    },

    getOperator: async ({ name }) => shown(findOperator(name)),

    listOperators: async () => ({
      operators: [...view.operators.values()].sort((a, b) => (a.name < b.name ? -1 : 1)).map(shown),
    }),

    updateOperator: ({ name, role: text, grantsAdd, grantsRemove, ifVersion }) =>
      change(name, 'operator updated', (record) => {
        noteChange(record, `operator ${quoted(record.name)}`, ifVersion);
        const role = checkOperatorRole(text ?? record.role);
        const had = role === 'deployer' ? record.grants : [];
        const missing = grantsRemove.find((grant) => !had.includes(grant));
        if (missing !== undefined) {
          throw new InroError(
            'not_found',
            `operator ${quoted(record.name)} has no grant ${quoted(missing)}`,
            {
              remedy: `'inro operator inspect ${record.name}' shows what he has`,
            },
          );
        }
        const kept = had.filter((grant) => !grantsRemove.includes(grant));
        record.grants = checkGrants(role, [...kept, ...grantsAdd]);
        record.role = role;
      }),

    revokeOperator: ({ name }) =>
      change(name, 'operator revoked', (record) => {
        if (record.revokedMs === 0n) record.revokedMs = BigInt(clock.now());
      }),

    removeOperator: ({ name }) =>
      change(name, 'operator removed', (record, tx) => {
        tx.delete(tables.operators, record.id);
        tx.deleteBytes(operatorNamePrefix + record.name);
        return 'gone';
      }),

    renewOperator: async ({ csrPem }, { peer }) => {
      if (peer.kind === 'local') {
        throw new InroError('bad_input', 'who uses the socket has no certificate to renew', {
          remedy: 'renew an identity with itself: inro operator renew --identity FILE',
        });
      }
      const digest = keyDigest(readCsr(csrPem));
      const { operatorId: id, certificate: own } = peer;
      if (renewals.count(id) >= managerLimits.maxOperatorRenewals) {
        throw new InroError('rate_limited', 'this identity was renewed too often just now', {
          remedy: `wait for ${Math.ceil(renewals.leftMs(id) / 1000)} s`,
        });
      }
      renewals.note(id);
      const present = async (tx: Transaction): Promise<OperatorRecord> => {
        const record = await tx.get(tables.operators, id);
        if (record === undefined || record.revokedMs > 0n) throw unknown(id);
        checkKeyIsNew(digest, await tx.list(tables.operators), view);
        return record;
      };
      const issued = await issue((await transact(store, present)).result, csrPem);
      const { result } = await transact(store, async (tx) => {
        const record = await present(tx);
        record.formerSerial = own.serial;
        record.formerKeyDigest = keyDigest(own.publicKey);
        const endsMs = Math.min(own.notAfterMs, Number(record.expiresMs));
        record.formerUntilMs = BigInt(Math.min(endsMs, clock.now() + managerLimits.formerOperatorMs));
        note(record, issued);
        tx.put(tables.operators, id, record);
        return record;
      });
      noted(result, 'operator renewed');
      return answer(result, issued);
    },
  };
}

/** A key is one person's, and no host's. @throws bad_input */
function checkKeyIsNew(digest: Uint8Array, operators: readonly OperatorRecord[], view: ClusterView): void {
  const known = [...operators, ...view.nodes.values()].flatMap((one) => [one.keyDigest, one.formerKeyDigest]);
  if (!known.some((other) => Buffer.compare(other, digest) === 0)) return;
  throw new InroError('bad_input', 'the request is for a key that has a certificate already', {
    remedy: 'make the request with a new key',
  });
}

function checkedTtl(ttlMs: bigint): bigint {
  const { minOperatorTtlMs, maxOperatorTtlMs } = managerLimits;
  if (ttlMs >= BigInt(minOperatorTtlMs) && ttlMs <= BigInt(maxOperatorTtlMs)) return ttlMs;
  throw new InroError('bad_input', "an operator's certificate cannot last that long, or that short", {
    remedy: 'write --ttl 5m to --ttl 3650d',
  });
}

/** One that listens on every address of its host names none. */
function isReachable(address: string): boolean {
  return !/^(0\.0\.0\.0|\[::\]|\*|):/.test(address);
}

function unknown(typed: string): InroError {
  return new InroError('not_found', `no operator ${quoted(typed)}`, {
    remedy: "'inro operator ls' lists them",
  });
}
