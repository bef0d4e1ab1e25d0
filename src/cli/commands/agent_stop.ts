/** inro agent stop */
import { Agent } from '../../proto/gen/inro/v1/agent_pb.js';
import { withAgent } from '../../rpc/agent_socket.js';
import { call } from '../../rpc/client.js';
import { paths } from '../paths.js';

/** Containers that the agent runs end first, each within its stop grace. */
const stopMs = 60_000;

/** Resolves when everything is wiped and unmounted; the process ends right after. */
export async function agentStop({ socket }: { socket?: string }): Promise<void> {
  await withAgent(socket ?? paths.agentSocket, (agent) => call(agent, Agent, 'stop', {}, stopMs));
}
