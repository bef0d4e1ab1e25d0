/** The side that has the mount and gives it to another process of the same user, over the agent's own socket. */
import { InroError } from '../../model/error.js';
import type { Agent } from '../../proto/gen/inro/v1/agent_pb.js';
import type { Handlers } from '../../rpc/server.js';
import { addon } from '../../system/addon.js';
import { agentLimits } from '../limits.js';
import type { MountDriver } from '../mount/driver.js';

export interface GiverParts {
  driver: MountDriver;
  /** The socket on which units ask for credentials, if there is one. */
  credentials: () => number | undefined;
  /** Why this agent is not handed over by hand; '' when it is. */
  whyNot: () => string;
  /** Ends whatever changes the mount, then its answers. Not undone. */
  letGo: () => void;
}

/** One at a time; until the successor commits, nothing has changed. */
export function giver({
  driver,
  credentials,
  whyNot,
  letGo,
}: GiverParts): Handlers<typeof Agent, 'local'>['handOver'] {
  let isBusy = false;
  return async (channel) => {
    if (isBusy) throw new InroError('already_running', 'this agent is being taken over already');
    isBusy = true;
    try {
      const refusal = whyNot();
      if (refusal !== '')
        throw new InroError('not_supported', `this agent cannot be taken over: ${refusal}`, {
          remedy: "restart it instead: 'systemctl restart inro-agent', or stop it and start it again",
        });
      for await (const { step } of channel.messages) {
        if (step.case === 'prepare') {
          const { arena, device } = driver.handover?.descriptors() ?? { arena: -1, device: -1 };
          const failure = await addon().passDescriptors(
            step.value.socketPath,
            [arena, device, credentials() ?? []].flat(),
            agentLimits.handOverMs,
          );
          if (failure !== '')
            throw new InroError('not_permitted', `the mount cannot be passed on: ${failure}`);
          await channel.send({ step: { case: 'passed', value: { pid: process.pid } } });
        } else if (step.case === 'commit') {
          letGo();
          await channel.send({ step: { case: 'letGo', value: {} } });
          return;
        }
      }
    } finally {
      isBusy = false;
    }
  };
}
