/** inro agent oci-hook: run by Podman before a container begins; attaches it to the services whose folders it mounts. */
import { text } from 'node:stream/consumers';
import { resolve } from 'node:path';
import { begunContainer, hookCommand, hookFile } from '../../agent/docker/oci_hook.js';
import { InroError } from '../../model/error.js';
import { Agent } from '../../proto/gen/inro/v1/agent_pb.js';
import { withAgent } from '../../rpc/agent_socket.js';
import { call } from '../../rpc/client.js';
import { paths } from '../paths.js';
import { printJson } from '../print.js';

interface HookOptions {
  print?: boolean;
  mount?: string | undefined;
  socket?: string | undefined;
}

export async function agentOciHook({ print, mount, socket }: HookOptions): Promise<void> {
  if (print === true) return printJson(hookFile(argvOf({ mount, socket })));
  if (process.stdin.isTTY)
    throw new InroError('bad_input', 'a container runtime runs this, and says which container it is for', {
      remedy: `--print prints the file by which Podman knows it: inro agent ${hookCommand} --print`,
    });
  const { id, pid, services } = begunContainer(await text(process.stdin), resolve(mount ?? paths.mount));
  if (services.length === 0) return;
  await withAgent(socket ?? paths.agentSocket, async (agent) => {
    for (const service of services)
      await call(agent, Agent, 'attach', { service, kind: 'container', name: id.slice(0, 12), pid });
  });
}

/** Hooks get no PATH: this very Node, and this very program. */
function argvOf({ mount, socket }: HookOptions): string[] {
  const [node = process.execPath, script = ''] = process.argv;
  const named = Object.entries({ mount, socket }).flatMap(([key, path]) =>
    path === undefined ? [] : [`--${key}`, resolve(path)],
  );
  return [node, script, 'agent', hookCommand, ...named];
}
