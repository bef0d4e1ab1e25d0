/** An operator's connection to a manager, and waiting until the nodes have done what he changed. */
import { statSync } from 'node:fs';
import { dirname } from 'node:path';
import { asInroError, InroError } from '../model/error.js';
import { Control, type Changed } from '../proto/gen/inro/v1/control_pb.js';
import { checkAddress } from '../rpc/address.js';
import { call, connectTls, connectUnix, stands, type Connection } from '../rpc/client.js';
import { rpcLimits } from '../rpc/limits.js';
import { nodeCredentials } from '../rpc/tls.js';
import { systemClock } from '../system/clock.js';
import type { OperatorIdentity } from './identity_file.js';
import { paths } from './paths.js';
import { formatTable, printJson, printLine } from './print.js';

export interface ManagerOption {
  /** `unix:PATH` or HOST:PORT; INRO_MANAGER, what the identity names, and the usual socket stand in for it. */
  manager?: string;
  /** A file; INRO_IDENTITY and the usual file stand in for it. */
  identity?: string;
}

/** How long a change waits for the nodes. */
export const settleMs = 30_000;

export async function withManager<T>(
  options: ManagerOption,
  use: (connection: Connection, identity?: OperatorIdentity) => Promise<T>,
): Promise<T> {
  const given = options.manager ?? (process.env['INRO_MANAGER'] || undefined);
  const named = options.identity ?? (process.env['INRO_IDENTITY'] || undefined);
  if (given === undefined ? named !== undefined : !given.startsWith('unix:'))
    return overNetwork(given, identityPath(options), use);
  const address = given ?? `unix:${paths.managerSocket}`;
  if (options.identity !== undefined) {
    throw new InroError('bad_input', "the manager's socket asks for no identity", {
      remedy: 'leave --identity away, or name the manager by its address: --manager HOST:PORT',
    });
  }
  if (address.length === 5) throw notUnderstood(address);
  const path = address.slice('unix:'.length);
  checkOwner(path);
  const connection = connectUnix(path, 'the manager');
  try {
    return await use(connection);
  } catch (error) {
    throw error instanceof InroError && error.code === 'unreachable' ? notRunning(error, address) : error;
  } finally {
    connection.close();
  }
}

/** @throws no_identity where this user has no usual place for one. */
export function identityPath({ identity }: ManagerOption): string {
  const path = identity ?? (process.env['INRO_IDENTITY'] || undefined) ?? paths.operatorIdentity;
  if (path !== undefined) return path;
  throw new InroError('no_identity', 'this user has no home folder, so no usual place for an identity', {
    remedy: 'name the file: --identity FILE',
  });
}

/** With an identity, to the first manager that answers. */
async function overNetwork<T>(
  given: string | undefined,
  path: string,
  use: (connection: Connection, identity: OperatorIdentity) => Promise<T>,
): Promise<T> {
  if (given !== undefined && !isAddress(given)) throw notUnderstood(given);
  // With all that reads certificates, which the manager's socket does not ask for.
  const { readIdentity } = await import('./identity_file.js');
  const identity = readIdentity(path, systemClock.now());
  const addresses = given === undefined ? identity.managers : [given];
  if (addresses.length === 0) {
    throw new InroError('bad_input', `${path} names no manager`, {
      remedy: 'say where one is: --manager HOST:PORT',
    });
  }
  const { connection, address } = await firstThatStands(addresses, identity);
  try {
    return await use(connection, identity);
  } catch (error) {
    throw inWords(error, address, identity);
  } finally {
    connection.close();
  }
}

/** The last one is taken as it is: what is wrong with it, the call will say. */
async function firstThatStands(
  addresses: readonly string[],
  identity: OperatorIdentity,
): Promise<{ connection: Connection; address: string }> {
  const { rootPem: pem, clusterId } = identity;
  const last = addresses.at(-1) as string;
  const open = (address: string): Connection =>
    Object.assign(connectTls(address, nodeCredentials(identity), rpcLimits.maxOperatorMessageBytes), {
      root: { pem, clusterId },
    });
  for (const address of addresses.slice(0, -1)) {
    const connection = open(address);
    if (await stands(connection)) return { connection, address };
    connection.close();
  }
  return { connection: open(last), address: last };
}

/** OpenSSL's words for a manager that the identity's root does not vouch for. */
function inWords(error: unknown, address: string, { clusterId }: OperatorIdentity): unknown {
  if (!(error instanceof InroError) || error.code !== 'unreachable') return error;
  if (!/certificate|altnames|Hostname/i.test(error.message)) return error;
  return new InroError(
    'foreign_cluster',
    `what answers at ${address} does not prove that it is a manager of cluster ${clusterId}`,
    {
      remedy:
        'the identity is of another cluster, or the address is wrong, or something stands in between: name the right ones with --manager HOST:PORT and --identity FILE',
      cause: error,
    },
  );
}

function isAddress(text: string): boolean {
  try {
    return checkAddress(text) === text;
  } catch {
    return false;
  }
}

function notUnderstood(address: string): InroError {
  return new InroError('bad_input', `manager address ${JSON.stringify(address)} is not understood`, {
    remedy:
      'operators reach a manager through its socket, --manager unix:PATH, or with an identity: --manager HOST:PORT --identity FILE',
  });
}

/**
 * A value is sealed for whoever serves this socket: it must be this user's own, or root's, or of one whom root lets serve there.
 */
function checkOwner(path: string): void {
  const uid = statSync(path, { throwIfNoEntry: false })?.uid;
  if (uid === undefined || uid === 0 || uid === process.getuid?.() || rootsFolder(dirname(path))) return;
  throw new InroError(
    'not_permitted',
    `the socket ${path} belongs to another user (uid ${uid}): it is not trusted`,
    {
      remedy: 'name the right manager with --manager unix:PATH',
    },
  );
}

/** True when only root, and a group that root gave the folder to, could have put something there. */
function rootsFolder(folder: string): boolean {
  const { uid, mode } = statSync(folder);
  return uid === 0 && (mode & 0o002) === 0;
}

/** @throws pending, saying who has not done it, when the nodes take longer than 30 s or a task failed. */
export async function settle(
  connection: Connection,
  changed: Changed,
  { detach }: { detach?: boolean },
): Promise<void> {
  const { revision, nodeIds, serviceIds } = changed;
  if (detach === true || (nodeIds.length === 0 && serviceIds.length === 0)) return;
  const { missing } = await call(
    connection,
    Control,
    'wait',
    { revision, nodeIds, serviceIds, timeoutMs: settleMs },
    settleMs + 10_000,
  );
  if (missing.length === 0) return;
  const rows = missing.map(({ nodeId, nodeHostname, reason }) => [nodeHostname || nodeId || '-', reason]);
  process.stderr.write(formatTable([['NODE', 'WHY'], ...rows]));
  const failed = missing.find((one) => one.failed);
  if (failed !== undefined) {
    throw new InroError('pending', 'the change is stored, but a task failed', {
      remedy: `mend what stands above with 'inro service update', or remove the service; 'inro service ps ${failed.serviceName}' shows the next try`,
    });
  }
  throw new InroError('pending', 'the change is stored, but not everywhere done', {
    remedy:
      "the nodes go on with it; look again with 'inro service ps SERVICE' and 'inro node ls' (--detach does not wait)",
  });
}

/**
 * Removes one thing after the other, prints those that are gone, and throws the first failure at the end.
 * @param remove gives the id of what it removed.
 */
export async function removeEach(
  names: readonly string[],
  { json }: { json?: boolean },
  remove: (name: string) => Promise<string>,
): Promise<void> {
  const removed: { id: string }[] = [];
  const failures: unknown[] = [];
  for (const name of names) {
    try {
      removed.push({ id: await remove(name) });
      if (json !== true) printLine(name);
    } catch (error) {
      failures.push(error);
    }
  }
  if (json === true && removed.length > 0) printJson(removed);
  for (const failure of failures.slice(1)) process.stderr.write(`inro: ${asInroError(failure).message}\n`);
  if (failures.length > 0) throw failures[0];
}

function notRunning(error: InroError, address: string): InroError {
  if (!/ENOENT|ECONNREFUSED|EACCES/.test(error.message)) return error;
  const reason = /EACCES/.test(error.message)
    ? 'this user may not open its socket'
    : 'nothing answers on its socket';
  return new InroError('unreachable', `no manager at ${address}: ${reason}`, {
    remedy:
      "start one with 'inro dev' or 'inro manager run', run this as the user it runs as, or say where it is: --manager unix:PATH",
    cause: error,
  });
}
