/** inro agent stop */
import { Agent } from '../../proto/gen/inro/v1/agent_pb.js';
import { withAgent } from '../../rpc/agent_socket.js';
import { call } from '../../rpc/client.js';
import { paths } from '../paths.js';

/** Resolves when everything is wiped and unmounted; the process ends right after. */
export async function agentStop({ socket }: { socket?: string }): Promise<void> {
  await withAgent(socket ?? paths.agentSocket, (agent) => call(agent, Agent, 'stop', {}));
}
