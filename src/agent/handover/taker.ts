/** The side that takes the mount over from an agent that runs, so that a new program goes on where the old one was. */
import { closeSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { InroError } from '../../model/error.js';
import { Agent, type HandOverResponse } from '../../proto/gen/inro/v1/agent_pb.js';
import { withAgent } from '../../rpc/agent_socket.js';
import { openStream, type Connection } from '../../rpc/client.js';
import { addon } from '../../system/addon.js';
import { makeFolder } from '../../system/files.js';
import { agentLimits } from '../limits.js';
import type { Left } from '../serving.js';

/**
 * Its descriptors, from the agent behind this socket; it answers nothing any more when this resolves. What it has is
 * looked at before it lets go.
 * @param name of the socket for the descriptors, in the same folder; drawn anew for each try.
 * @throws unreachable when no agent runs there; not_supported when it cannot hand over, or its memory is not understood here:
 * then it goes on as before.
 */
export async function takeFrom(socketPath: string, name: string): Promise<Left> {
  makeFolder(dirname(socketPath), 0o755);
  const path = join(dirname(socketPath), `handover-${name}.sock`);
  return withAgent(socketPath, (agent) => take(agent, path));
}

async function take(agent: Connection, path: string): Promise<Left> {
  const channel = openStream(agent, Agent, 'handOver');
  const answers = channel.messages[Symbol.asyncIterator]();
  try {
    const receiving = addon().receiveDescriptors(path, agentLimits.handOverMs);
    receiving.catch(() => undefined); // what the agent says goes before it
    await channel.send({ step: { case: 'prepare', value: { socketPath: path } } });
    await expect(answers, 'passed');
    const [arena, device, credentials, ...others] = await receiving;
    for (const fd of others) closeSync(fd);
    if (arena === undefined || device === undefined)
      throw new InroError('protocol', 'the agent passed too few descriptors on');
    try {
      const refusal = addon().inspectArena(arena);
      if (refusal !== '')
        throw new InroError('not_supported', `the agent cannot be taken over by this version: ${refusal}`, {
          remedy:
            'it goes on as before; stop it and start this version instead, or use a version that knows it',
        });
      await channel.send({ step: { case: 'commit', value: {} } });
      await expect(answers, 'letGo');
      return { arena, device, ...(credentials === undefined ? {} : { credentials }) };
    } catch (error) {
      closeSync(arena);
      closeSync(device);
      if (credentials !== undefined) closeSync(credentials);
      throw error;
    }
  } finally {
    channel.close();
  }
}

async function expect(answers: AsyncIterator<HandOverResponse>, wanted: 'passed' | 'letGo'): Promise<void> {
  const next = await answers.next();
  if (next.done === true || next.value.step.case !== wanted)
    throw new InroError('protocol', `the agent did not say ${wanted}`);
}
