/** inro agent join: the token from the command line or, so that it stands in no process list, from standard input. */
import { readSync } from 'node:fs';
import { joinCluster } from '../../agent/join.js';
import { parseJoinToken } from '../../pki/join_token.js';
import { checkAddress } from '../../rpc/address.js';
import { systemClock } from '../../system/clock.js';
import { claimStateFolder } from '../../system/files.js';
import { paths } from '../paths.js';
import { printJson, printLine } from '../print.js';

export interface JoinOptions {
  token: string;
  manager: string;
  state?: string;
  json?: boolean;
}

export async function agentJoin({
  token,
  manager,
  state = paths.agentState,
  json,
}: JoinOptions): Promise<void> {
  const parsed = parseJoinToken(token === '-' ? readToken() : token);
  checkAddress(manager);
  claimStateFolder(state, 'agent');
  const { nodeId, clusterId } = await joinCluster({
    token: parsed,
    manager,
    stateFolder: state,
    clock: systemClock,
  });
  if (json === true) return printJson({ nodeId, clusterId });
  printLine(
    `joined cluster ${clusterId} as node ${nodeId}; now start the agent: inro agent run${state === paths.agentState ? '' : ` --state ${state}`}`,
  );
}

/** A token stands on one line; what is longer than a page is none. */
function readToken(): string {
  const page = Buffer.alloc(4096);
  let length = 0;
  for (let read = -1; read !== 0 && length < page.length; length += read)
    read = readSync(0, page, length, page.length - length, null);
  return page.toString('utf8', 0, length);
}
