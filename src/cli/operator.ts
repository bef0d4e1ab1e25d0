/** An operator's connection to a manager, and waiting until the nodes have done what he changed. */
import { InroError } from '../model/error.js';
import { Control, type Changed } from '../proto/gen/inro/v1/control_pb.js';
import { call, connectUnix, type Connection } from '../rpc/client.js';
import { paths } from './paths.js';
import { formatTable } from './print.js';

export interface ManagerOption {
  /** `unix:PATH`; INRO_MANAGER and the usual socket stand in for it. */
  manager?: string;
}

/** How long a change waits for the nodes. */
const settleMs = 30_000;

export async function withManager<T>(
  { manager }: ManagerOption,
  use: (connection: Connection) => Promise<T>,
): Promise<T> {
  const address = manager ?? process.env['INRO_MANAGER'] ?? `unix:${paths.managerSocket}`;
  if (!address.startsWith('unix:') || address.length === 5) {
    throw new InroError('bad_input', `manager address ${JSON.stringify(address)} is not understood`, {
      remedy: 'operators reach a manager through its socket: --manager unix:PATH, or INRO_MANAGER=unix:PATH',
    });
  }
  const connection = connectUnix(address.slice('unix:'.length), 'the manager');
  try {
    return await use(connection);
  } catch (error) {
    throw error instanceof InroError && error.code === 'unreachable' ? notRunning(error, address) : error;
  } finally {
    connection.close();
  }
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
  throw new InroError('pending', 'the change is stored, but not everywhere done', {
    remedy:
      "the nodes go on with it; look again with 'inro service ps SERVICE' and 'inro node ls' (--detach does not wait)",
  });
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
