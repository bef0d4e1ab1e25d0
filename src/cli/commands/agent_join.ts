/** inro agent join: the token from the command line or, so that it stands in no process list, from standard input. */
import { readFileSync } from 'node:fs';
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
  const parsed = parseJoinToken(token === '-' ? readFileSync(0, 'utf8') : token);
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
