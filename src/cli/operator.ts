/** An operator's connection to a manager, and waiting until the nodes have done what he changed. */
import { statSync } from 'node:fs';
import { dirname } from 'node:path';
import { asInroError, InroError } from '../model/error.js';
import { Control, type Changed } from '../proto/gen/inro/v1/control_pb.js';
import { call, connectUnix, type Connection } from '../rpc/client.js';
import { paths } from './paths.js';
import { formatTable, printJson, printLine } from './print.js';

export interface ManagerOption {
  /** `unix:PATH`; INRO_MANAGER and the usual socket stand in for it. */
  manager?: string;
}

/** How long a change waits for the nodes. */
export const settleMs = 30_000;

export async function withManager<T>(
  { manager }: ManagerOption,
  use: (connection: Connection) => Promise<T>,
): Promise<T> {
  const address = manager ?? (process.env['INRO_MANAGER'] || `unix:${paths.managerSocket}`);
  if (!address.startsWith('unix:') || address.length === 5) {
    throw new InroError('bad_input', `manager address ${JSON.stringify(address)} is not understood`, {
      remedy: 'operators reach a manager through its socket: --manager unix:PATH, or INRO_MANAGER=unix:PATH',
    });
  }
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
