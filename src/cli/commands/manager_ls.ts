/** inro manager ls, rm */
import { Control } from '../../proto/gen/inro/v1/control_pb.js';
import { call } from '../../rpc/client.js';
import { withManager, removeEach, type ManagerOption } from '../operator.js';
import { ago, iso, printJson, printLine, printTable, warn } from '../print.js';

interface Common extends ManagerOption {
  json?: boolean;
}

export async function managerLs(options: Common): Promise<void> {
  const { managers, distributed } = await withManager(options, (manager) =>
    call(manager, Control, 'listManagers', {}),
  );
  if (options.json === true) {
    return printJson(
      managers.map(({ id, hostname, address, state, joinedMs }) => ({
        id,
        hostname,
        address,
        state,
        joinedAt: iso(joinedMs),
      })),
    );
  }
  if (!distributed)
    return printLine(
      'one manager, with a store of its own on its host (several share one in etcd: inro manager migrate)',
    );
  const rows = managers.map((one) => [
    one.id,
    one.hostname || '-',
    one.address || '-',
    one.state,
    ago(one.joinedMs),
  ]);
  printTable(['ID', 'HOSTNAME', 'ADDRESS', 'STATE', 'JOINED'], rows);
}

export async function managerRm(ids: string[], options: Common): Promise<void> {
  await withManager(options, (manager) =>
    removeEach(ids, options, async (name) => (await call(manager, Control, 'removeManager', { name })).id),
  );
  if (options.json === true) return;
  warn(
    "it has had the cluster's keys: if it is in foreign hands, 'inro manager data-key --rotate', 'inro ca rotate', and renew what was secret",
  );
}
