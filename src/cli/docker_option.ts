/** What --docker and the key docker mean. */
import { isAbsolute } from 'node:path';
import type { DockerOptions } from '../agent/agent.js';
import type { DriverName } from '../agent/mount/drivers.js';
import { InroError } from '../model/error.js';
import { paths } from './paths.js';

const usualEngine = '/var/run/docker.sock';

/**
 * Root's agent serves the engine where it usually is, if there is one; who says another wants that one. To run
 * containers for the cluster's operators is an administrator's decision: he names the socket.
 * @throws bad_input.
 */
export function dockerOptions(
  socket: string | undefined,
  driver: DriverName,
  { runsContainers = socket !== undefined }: { runsContainers?: boolean } = {},
): DockerOptions | undefined {
  if (socket === 'off') return undefined;
  if (socket !== undefined && !isAbsolute(socket))
    throw new InroError('bad_input', `${socket} is not the absolute path of a socket`, {
      remedy: `such as --docker ${usualEngine}, or --docker off`,
    });
  const optional = socket === undefined;
  if (optional && (process.getuid?.() !== 0 || driver !== 'kernel')) return undefined;
  return { engineSocket: socket ?? usualEngine, pluginSocket: paths.enginePlugin, optional, runsContainers };
}
