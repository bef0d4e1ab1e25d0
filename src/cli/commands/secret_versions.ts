/** inro secret history|rollback|prune */
import { parseVersionedName } from '../../model/versioned_name.js';
import { Control, type SecretVersion } from '../../proto/gen/inro/v1/control_pb.js';
import { call } from '../../rpc/client.js';
import { settle, withManager, type ManagerOption } from '../operator.js';
import { ago, iso, isoOrNull, printJson, printLine, printTable } from '../print.js';

interface Options extends ManagerOption {
  json?: boolean;
  detach?: boolean;
}

export async function secretHistory(name: string, options: Options): Promise<void> {
  const secret = await withManager(options, (manager) => call(manager, Control, 'getSecret', { name }));
  const newestFirst = secret.versions.toReversed();
  const stateOf = ({ version, revokedMs, pinnedBy }: SecretVersion): string => {
    if (revokedMs > 0n) return 'revoked';
    if (version === secret.version) return 'current';
    if (version === secret.stagedVersion) return 'staged';
    return pinnedBy.length > 0 ? 'pinned' : 'kept';
  };
  if (options.json === true)
    return printJson(
      newestFirst.map((one) => ({
        version: one.version,
        state: stateOf(one),
        sizeBytes: one.sizeBytes,
        createdAt: iso(one.createdMs),
        nodes: one.nodes,
        revokedAt: isoOrNull(one.revokedMs),
        revokedBy: one.revokedBy,
        expiresAt: isoOrNull(one.expiresMs),
        pinnedBy: one.pinnedBy,
      })),
    );
  const rows = newestFirst.map((one) => [
    String(one.version),
    one.revokedMs > 0n ? `revoked ${ago(one.revokedMs)}, by ${one.revokedBy}` : stateOf(one),
    String(one.sizeBytes),
    ago(one.createdMs),
    String(one.nodes),
    one.expiresMs === 0n ? '-' : ago(one.expiresMs),
    one.pinnedBy.join(', ') || '-',
  ]);
  printTable(['VERSION', 'STATE', 'BYTES', 'CREATED', 'NODES', 'EXPIRES', 'PINNED BY'], rows);
}

export async function secretRollback(text: string, options: Options & { ifVersion?: number }): Promise<void> {
  const { name, version = 0 } = parseVersionedName(text);
  await withManager(options, async (manager) => {
    const ifVersion = options.ifVersion ?? (await call(manager, Control, 'getSecret', { name })).version;
    const changed = await call(manager, Control, 'rollbackSecret', { name, version, ifVersion });
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
