/** inro secret rollback|prune */
import { parseVersionedName } from '../../model/versioned_name.js';
import { Control } from '../../proto/gen/inro/v1/control_pb.js';
import { call } from '../../rpc/client.js';
import { settle, withManager, type ManagerOption } from '../operator.js';
import { printJson, printLine } from '../print.js';

interface Options extends ManagerOption {
  json?: boolean;
  detach?: boolean;
}

export async function secretRollback(text: string, options: Options): Promise<void> {
  const { name, version = 0 } = parseVersionedName(text);
  await withManager(options, async (manager) => {
    const changed = await call(manager, Control, 'rollbackSecret', { name, version });
    await settle(manager, changed, options);
    if (options.json === true) printJson({ id: changed.id, name, version: changed.version });
    else printLine(`${name} is at version ${changed.version} again`);
  });
}

export async function secretPrune(name: string, options: Options & { keep: number }): Promise<void> {
  const { keep, json } = options;
  const pruned = await withManager(options, (manager) =>
    call(manager, Control, 'pruneSecret', { name, keep }),
  );
  const { id, name: whole, pruned: gone, inUse } = pruned;
  if (json === true) return printJson({ id, name: whole, pruned: gone, inUse });
  printLine(
    gone.length === 0 ? 'nothing to prune' : `pruned: ${gone.map((v) => `${whole}@${v}`).join(', ')}`,
  );
  if (inUse.length > 0)
    printLine(
      `kept, because it is served or a node may hold it: ${inUse.map((v) => `${whole}@${v}`).join(', ')}`,
    );
}
