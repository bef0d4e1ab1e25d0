/** Managers, as operators see them. */
import type { Control } from '../proto/gen/inro/v1/control_pb.js';
import type { Handlers } from '../rpc/server.js';
import type { Managers } from './managers.js';

type Calls = 'listManagers' | 'removeManager';

export interface ManagerHandlersParts {
  managers: Managers;
}

export function managerHandlers({
  managers,
}: ManagerHandlersParts): Pick<Handlers<typeof Control, 'operator'>, Calls> {
  return {
    listManagers: async () => ({
      distributed: managers.membership !== undefined,
      managers: managers
        .list()
        .map(({ id, hostname, address, joinedMs, state }) => ({ id, hostname, address, joinedMs, state })),
    }),

    removeManager: async ({ name }) => {
      const { id, revision } = await managers.remove(name);
      return { id, revision: BigInt(revision) };
    },
  };
}
