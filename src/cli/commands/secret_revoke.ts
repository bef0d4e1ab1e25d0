/** inro secret revoke: one version is withdrawn everywhere and for ever, and each node says how long its wipe took. */
import { userInfo } from 'node:os';
import { InroError } from '../../model/error.js';
import { parseVersionedName } from '../../model/versioned_name.js';
import { Control, type NodeWipe, type Revoked } from '../../proto/gen/inro/v1/control_pb.js';
import { call, type Connection } from '../../rpc/client.js';
import { settleMs, withManager, type ManagerOption } from '../operator.js';
import { formatTable, iso, isoOrNull, printJson, printLine } from '../print.js';

interface Options extends ManagerOption {
  json?: boolean;
  detach?: boolean;
}

export async function secretRevoke(text: string, options: Options): Promise<void> {
  const { name, version: wanted } = parseVersionedName(text);
  await withManager(options, async (manager) => {
    // The one that is current now, and none that somebody gives it meanwhile.
    const version = wanted ?? (await call(manager, Control, 'getSecret', { name })).version;
    const revoked = await call(manager, Control, 'revokeSecret', { name, version, operator: operatorName() });
    const { secretName } = revoked;
    if (options.json !== true) printLine(`${secretName}@${revoked.version} is revoked`);
    const nodes = options.detach === true ? [] : await waitFor(manager, revoked);
    if (options.json === true) printJson(revokedJson(revoked, nodes));
    else if (revoked.nodeIds.length === 0) printLine('no node held it');
    else for (const node of nodes) printWipe(node);
    const missing = nodes.map(missingRow).filter((row) => row !== undefined);
    if (missing.length === 0) return;
    process.stderr.write(formatTable([['NODE', 'WHY'], ...missing]));
    throw new InroError('pending', 'the version is revoked, but not wiped everywhere yet', {
      remedy: `the nodes above wipe it as soon as they hear of it, or when their lease ends; 'inro secret inspect ${secretName}' counts those that may still hold it`,
    });
  });
}

async function waitFor(manager: Connection, revoked: Revoked): Promise<NodeWipe[]> {
  const { secretId, version, nodeIds, revokedMs: sinceMs } = revoked;
  const request = { secretId, version, nodeIds, sinceMs, timeoutMs: settleMs };
  return (await call(manager, Control, 'waitForWipes', request, settleMs + 10_000)).nodes;
}

/** For the record that is left of the version; the manager's socket cannot tell. */
function operatorName(): string {
  const own = ownName();
  const { SUDO_USER: before } = process.env;
  return before === undefined || before === '' || before === own ? own : `${before} as ${own}`;
}

function ownName(): string {
  try {
    return userInfo().username;
  } catch {
    return `uid ${process.getuid?.() ?? '?'}`; // it has no name here
  }
}

function printWipe({ nodeId, nodeHostname, outcome }: NodeWipe): void {
  const say = (words: string): void => printLine(`node ${nodeHostname || nodeId}: ${words}`);
  switch (outcome.case) {
    case 'wiped': {
      const { reason, durationUs, mapped } = outcome.value;
      const why = reason === 'revoked' ? '' : ` (${reason})`;
      say(
        `wiped in ${durationUs} us${why}${mapped ? ', but a program that mapped the file may see it yet' : ''}`,
      );
      break;
    }
    case 'gone':
      say('has no copy any more: its agent was started anew');
      break;
    case 'expired':
      say(`serves nothing: its lease was over at ${iso(outcome.value.leaseEndedMs)}`);
      break;
    default: // missing: said elsewhere
  }
}

function missingRow({ nodeId, nodeHostname, outcome }: NodeWipe): [string, string] | undefined {
  if (outcome.case !== 'missing') return undefined;
  const { reason, leaseEndsMs } = outcome.value;
  const until = leaseEndsMs === 0n ? '' : `; its lease ends at ${iso(leaseEndsMs)} at the latest`;
  return [nodeHostname || nodeId, `${reason}${until}`];
}

function revokedJson({ secretId, secretName, version, revokedMs }: Revoked, nodes: readonly NodeWipe[]) {
  return {
    id: secretId,
    name: secretName,
    version,
    revokedAt: iso(revokedMs),
    nodes: nodes.map(({ nodeId, nodeHostname, outcome }) => {
      const wiped = outcome.case === 'wiped' ? outcome.value : undefined;
      const leaseMs =
        outcome.case === 'missing'
          ? outcome.value.leaseEndsMs
          : outcome.case === 'expired'
            ? outcome.value.leaseEndedMs
            : 0n;
      return {
        node: nodeHostname,
        nodeId,
        outcome: outcome.case ?? '',
        reason: wiped?.reason ?? '',
        wipedAt: isoOrNull(wiped?.wipedMs ?? 0n),
        durationUs: Number(wiped?.durationUs ?? 0n),
        mapped: wiped?.mapped ?? false,
        leaseEndsAt: isoOrNull(leaseMs),
      };
    }),
  };
}
