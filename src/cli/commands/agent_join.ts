/** inro agent join */
import { settleKeys } from '../../agent/identity.js';
import { joinCluster } from '../../agent/join.js';
import { checkAddress } from '../../rpc/address.js';
import { systemClock } from '../../system/clock.js';
import { claimStateFolder } from '../../system/files.js';
import { useKeyCredential } from '../key_credential.js';
import { joinTokenFrom } from '../join_token_input.js';
import { paths } from '../paths.js';
import { iso, printJson, printLine, warn } from '../print.js';

export interface JoinOptions {
  token: string;
  manager: string;
  state?: string;
  again?: boolean;
  keyCredential?: string;
  json?: boolean;
}

export async function agentJoin(options: JoinOptions): Promise<void> {
  const { manager, state = paths.agentState, again = false } = options;
  const token = joinTokenFrom(options.token);
  checkAddress(manager);
  useKeyCredential(options);
  claimStateFolder(state, 'agent');
  settleKeys(state);
  const { nodeId, clusterId, isSame, newIdBecause } = await joinCluster({
    token,
    manager,
    stateFolder: state,
    clock: systemClock,
    again,
    onWaiting: (id, untilMs) => warn(`waiting for approval until ${iso(untilMs)}: inro node approve ${id}`),
  });
  if (newIdBecause !== '') warn(`this host has a new node id: ${newIdBecause}`);
  if (options.json === true) return printJson({ nodeId, clusterId });
  printLine(
    `${isSame ? 'enrolled again in' : 'joined'} cluster ${clusterId} as node ${nodeId}; now start the agent: inro agent run${state === paths.agentState ? '' : ` --state ${state}`}`,
  );
}
