/** Where things are unless an option says otherwise: the system's folders for root, the user's own for others. */
import { homedir } from 'node:os';
import { join } from 'node:path';

const isRoot = process.getuid?.() === 0;
const runFolder = isRoot
  ? '/run/inro'
  : join(process.env.XDG_RUNTIME_DIR ?? `/run/user/${process.getuid?.() ?? 'nobody'}`, 'inro');
const stateFolder = isRoot
  ? '/var/lib/inro'
  : join(process.env['XDG_STATE_HOME'] ?? join(homedir(), '.local/state'), 'inro');

export const paths = {
  mount: join(runFolder, 'secrets'),
  agentSocket: join(runFolder, 'agent.sock'),
  managerSocket: join(runFolder, 'manager.sock'),
  agentState: join(stateFolder, 'agent'),
  managerState: join(stateFolder, 'manager'),
} as const;
