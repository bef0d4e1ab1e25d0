/** inro token show|rotate|create worker, token ls, token revoke */
import { parseDuration } from '../../model/duration.js';
import { Control, type JoinTokenInfo } from '../../proto/gen/inro/v1/control_pb.js';
import { call } from '../../rpc/client.js';
import { withManager, removeEach, type ManagerOption } from '../operator.js';
import { ago, iso, isoOrNull, labelText, printJson, printLine, printTable } from '../print.js';

interface Common extends ManagerOption {
  json?: boolean;
}

export interface TokenCreateOptions extends Common {
  ttl: string;
  uses: number;
  nodeLabel: Record<string, string>;
  requireApproval?: boolean;
}

export async function tokenShow(role: string, options: Common): Promise<void> {
  const { token } = await withManager(options, (manager) => call(manager, Control, 'getJoinToken', { role }));
  print(token, options);
}

export async function tokenRotate(role: string, options: Common): Promise<void> {
  const { token } = await withManager(options, (manager) =>
    call(manager, Control, 'rotateJoinToken', { role }),
  );
  print(token, options);
}

export async function tokenCreate(role: string, options: TokenCreateOptions): Promise<void> {
  const { uses, nodeLabel: nodeLabels, requireApproval = false } = options;
  const ttlMs = BigInt(parseDuration(options.ttl));
  const { token, id, expiresMs } = await withManager(options, (manager) =>
    call(manager, Control, 'createJoinToken', { role, ttlMs, uses, nodeLabels, requireApproval }),
  );
  if (options.json === true) printJson({ id, token, expiresAt: iso(expiresMs) });
  else printLine(token);
}

export async function tokenLs(options: Common & { quiet?: boolean }): Promise<void> {
  const { tokens, refused, refusedMs, refusedAddress } = await withManager(options, (manager) =>
    call(manager, Control, 'listJoinTokens', {}),
  );
  if (options.json === true) {
    return printJson({
      tokens: tokens.map(tokenJson),
      refused: Number(refused),
      lastRefusedAt: isoOrNull(refusedMs),
      lastRefusedFrom: refusedAddress,
    });
  }
  if (options.quiet === true) return tokens.forEach(({ id }) => printLine(id));
  const rows = tokens.map((one) => [
    one.id,
    one.role,
    `${one.usesLeft} of ${one.uses}`,
    ago(one.expiresMs),
    labelText(one.nodeLabels),
    one.requireApproval ? 'needed' : '-',
    ago(one.createdMs),
    ago(one.lastUsedMs),
  ]);
  printTable(['ID', 'ROLE', 'USES LEFT', 'EXPIRES', 'NODE LABELS', 'APPROVAL', 'CREATED', 'LAST USED'], rows);
  if (refused > 0n)
    printLine(
      `wrong tokens since the manager's start: ${refused}, the last ${ago(refusedMs)} from ${refusedAddress}`,
    );
}

export async function tokenRevoke(ids: string[], options: Common): Promise<void> {
  await withManager(options, (manager) =>
    removeEach(ids, options, async (name) => (await call(manager, Control, 'revokeJoinToken', { name })).id),
  );
}

function print(token: string, { json }: Common): void {
  if (json === true) printJson({ token });
  else printLine(token);
}

function tokenJson(token: JoinTokenInfo) {
  const { id, role, uses, usesLeft, nodeLabels, requireApproval, createdMs, expiresMs, lastUsedMs } = token;
  return {
    id,
    role,
    uses,
    usesLeft,
    nodeLabels,
    requireApproval,
    createdAt: iso(createdMs),
    expiresAt: iso(expiresMs),
    lastUsedAt: isoOrNull(lastUsedMs),
  };
}
