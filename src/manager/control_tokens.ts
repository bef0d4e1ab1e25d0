/** Join tokens, as operators see them: the standing one of a role, and those that are made to measure. */
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import type { Logger } from 'pino';
import type { Clock, Random } from '../model/clock.js';
import { InroError } from '../model/error.js';
import { newId } from '../model/id.js';
import { checkLabels, quoted } from '../model/name.js';
import type { Authority } from '../pki/authority.js';
import { makeJoinToken, type JoinToken } from '../pki/join_token.js';
import type { Control, JoinTokenInfoSchema } from '../proto/gen/inro/v1/control_pb.js';
import { JoinTokenRecordSchema, type JoinTokenRecord } from '../proto/gen/inro/v1/records_pb.js';
import type { Handlers } from '../rpc/server.js';
import type { Store } from '../store/store.js';
import { tables } from '../store/tables.js';
import { transact, type Transaction } from '../store/transaction.js';
import { clusterIn, readCluster } from './cluster_record.js';
import { find } from './find.js';
import type { JoinGuard } from './join_guard.js';
import type { Keyring } from './keyring.js';
import { managerLimits } from './limits.js';
import type { Managers } from './managers.js';
import type { ClusterView } from './view.js';

export interface TokenHandlersParts {
  clusterId: string;
  store: Store;
  view: ClusterView;
  keyring: Keyring;
  guard: JoinGuard;
  clock: Clock;
  random: Random;
  log: Logger;
  authority: Pick<Authority, 'root'>;
  workerToken: () => Promise<JoinToken>;
  managers: Managers;
}

type Calls = 'getJoinToken' | 'rotateJoinToken' | 'createJoinToken' | 'listJoinTokens' | 'revokeJoinToken';

export function tokenHandlers(parts: TokenHandlersParts): Pick<Handlers<typeof Control, 'operator'>, Calls> {
  const { clusterId, store, view, keyring, guard, clock, random, log, authority, workerToken, managers } =
    parts;
  return {
    getJoinToken: async ({ role }) => {
      checkRole(role);
      return { token: (await workerToken()).reveal() };
    },

    rotateJoinToken: async ({ role }) => {
      checkRole(role);
      const token = makeJoinToken(authority.root.der, random);
      const seen = keyring.readText((await readCluster(store)).sealedWorkerToken);
      await transact(store, async (tx) => {
        const cluster = await clusterIn(tx);
        // Of two at the same time both would hold a token, and one of them a dead one.
        if (keyring.readText(cluster.sealedWorkerToken) !== seen)
          throw new InroError('conflict', 'the join token was rotated by somebody else just now', {
            remedy: `'inro token show ${role}' shows that one; rotate it again if it has to be another`,
          });
        cluster.sealedWorkerToken = keyring.keepText(token.reveal());
        tx.put(tables.cluster, 'self', cluster);
      });
      log.info({ role }, 'join token rotated');
      return { token: token.reveal() };
    },

    createJoinToken: async ({ role, ttlMs, uses, nodeLabels, requireApproval }) => {
      if (role === 'manager') checkManagerToken(managers, { nodeLabels, requireApproval });
      else checkRole(role);
      const token = makeJoinToken(authority.root.der, random);
      const now = clock.now();
      const record = create(JoinTokenRecordSchema, {
        id: newId(random),
        role,
        secretHash: token.secretHash(clusterId),
        ...checkedUses(uses),
        createdMs: BigInt(now),
        expiresMs: BigInt(now + checkedTtl(ttlMs)),
        nodeLabels: checkLabels(nodeLabels),
        requireApproval,
      });
      await transact(store, async (tx) => {
        await makeRoom(tx, now);
        tx.put(tables.joinTokens, record.id, record);
      });
      const { id, expiresMs } = record;
      log.info({ token: id, role, uses, expires: Number(expiresMs), requireApproval }, 'join token made');
      return { token: token.reveal(), id, expiresMs };
    },

    listJoinTokens: async () => {
      const { count, lastMs, address } = guard.wrong;
      return {
        tokens: [...view.joinTokens.values()]
          .sort((a, b) => Number(a.createdMs - b.createdMs))
          .map(shownToken),
        refused: BigInt(count),
        refusedMs: BigInt(lastMs),
        refusedAddress: address,
      };
    },

    revokeJoinToken: async ({ name }) => {
      const { id } = find('token', view.joinTokens, name, () => '');
      const { revision } = await transact(store, async (tx) => {
        if ((await tx.get(tables.joinTokens, id)) === undefined)
          throw new InroError('not_found', `no token ${quoted(name)}`, {
            remedy: "'inro token ls' lists them",
          });
        tx.delete(tables.joinTokens, id);
      });
      log.info({ token: id }, 'join token revoked');
      return { id, revision: BigInt(revision) };
    },
  };
}

/** Everything but the hash. */
function shownToken(record: JoinTokenRecord): MessageInitShape<typeof JoinTokenInfoSchema> {
  const { id, role, uses, usesLeft, createdMs, expiresMs, lastUsedMs, nodeLabels, requireApproval } = record;
  return { id, role, uses, usesLeft, createdMs, expiresMs, lastUsedMs, nodeLabels, requireApproval };
}

/** Whether it lets nobody in any more, and since when (ms since 1970). */
export function endedMs(
  { usesLeft, expiresMs, lastUsedMs }: JoinTokenRecord,
  now: number,
): bigint | undefined {
  if (usesLeft === 0) return lastUsedMs;
  return expiresMs <= BigInt(now) ? expiresMs : undefined;
}

/** Those that are of no use any more go when there is no room for another. @throws too_large */
async function makeRoom(tx: Transaction, now: number): Promise<void> {
  const all = await tx.list(tables.joinTokens);
  if (all.length < managerLimits.maxJoinTokens) return;
  const ended = all.filter((one) => endedMs(one, now) !== undefined);
  for (const { id } of ended) tx.delete(tables.joinTokens, id);
  if (ended.length > 0) return;
  throw new InroError('too_large', `there are ${all.length} join tokens, and no more are kept`, {
    remedy: "revoke what is not needed: 'inro token ls', 'inro token revoke ID'",
  });
}

/** It gives all keys of the cluster: there is no standing one. */
function checkManagerToken(
  { membership }: Managers,
  { nodeLabels, requireApproval }: { nodeLabels: Record<string, string>; requireApproval: boolean },
): void {
  if (membership === undefined)
    throw new InroError('not_supported', 'this manager keeps its store on its own host, for itself alone', {
      remedy:
        'several managers share a distributed store: inro manager migrate --store etcd://HOST:2379/inro',
    });
  if (requireApproval || Object.keys(nodeLabels).length > 0)
    throw new InroError('bad_input', 'node labels and approval are for tokens of workers', {
      remedy: "write 'inro token create manager', with --ttl and --uses alone",
    });
}

function checkRole(role: string): void {
  if (role === 'worker') return;
  if (role === 'manager')
    throw new InroError('bad_input', 'there is no standing join token for managers', {
      remedy: "make one that is used once: 'inro token create manager'",
    });
  throw new InroError('bad_input', `there is no join token for role ${quoted(role)}`, {
    remedy: "write 'inro token show worker'",
  });
}

function checkedTtl(ttlMs: bigint): number {
  const { minTokenTtlMs, maxTokenTtlMs } = managerLimits;
  if (ttlMs >= BigInt(minTokenTtlMs) && ttlMs <= BigInt(maxTokenTtlMs)) return Number(ttlMs);
  throw new InroError('bad_input', 'a join token cannot live for that long', {
    remedy: 'write --ttl 1s to --ttl 90d',
  });
}

function checkedUses(uses: number): { uses: number; usesLeft: number } {
  if (uses >= 1 && uses <= managerLimits.maxTokenUses) return { uses, usesLeft: uses };
  throw new InroError('bad_input', `a join token cannot have ${uses} uses`, {
    remedy: `write --uses 1 to --uses ${managerLimits.maxTokenUses}`,
  });
}
