/** inro manager join */
import { openArena } from '../../crypto/arena.js';
import { joinAsManager } from '../../manager/join.js';
import { arenaSize } from '../../manager/arena_size.js';
import { checkAddress } from '../../rpc/address.js';
import { addon } from '../../system/addon.js';
import { systemClock } from '../../system/clock.js';
import { claimStateFolder } from '../../system/files.js';
import { joinTokenFrom } from '../join_token_input.js';
import { useKeyCredential } from '../key_credential.js';
import { printJson, printLine } from '../print.js';

export interface ManagerJoinOptions {
  token: string;
  manager: string;
  state: string;
  keyCredential?: string;
  json?: boolean;
}

export async function managerJoin(options: ManagerJoinOptions): Promise<void> {
  const { manager, state: stateFolder } = options;
  const token = joinTokenFrom(options.token);
  checkAddress(manager);
  useKeyCredential(options);
  addon().forbidDumps();
  const release = claimStateFolder(stateFolder, 'manager');
  try {
    const arena = openArena(arenaSize((bytes) => addon().lockable(bytes)));
    const { managerId, clusterId } = await joinAsManager({
      token,
      manager,
      stateFolder,
      arena,
      clock: systemClock,
    });
    if (options.json === true) return printJson({ managerId, clusterId });
    printLine(
      `joined cluster ${clusterId} as manager ${managerId}; now start it: inro manager run --state ${stateFolder} --listen HOST:PORT --store etcd://...`,
    );
  } finally {
    release();
  }
}
