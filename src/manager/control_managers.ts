/** Managers, as operators see them. */
import type { Control } from '../proto/gen/inro/v1/control_pb.js';
import type { Handlers } from '../rpc/server.js';
import { InroError } from '../model/error.js';
import type { AuditBook } from './audit_book.js';
import { socketOf } from './caller.js';
import type { Managers } from './managers.js';

type Calls = 'listManagers' | 'removeManager' | 'noteLockCall';

export interface ManagerHandlersParts {
  managers: Managers;
  audit: AuditBook;
}

const lockCalls = ['getUnlockKey', 'setUnlockKey'];

export function managerHandlers({
  managers,
  audit,
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

    noteLockCall: async ({ call, outcome, reason }, { peer }) => {
      if (peer.kind !== 'local' || peer.through === undefined || !lockCalls.includes(call))
        throw new InroError('bad_input', 'that is for another manager to say');
      const address = socketOf(peer);
      await audit.append({ action: call, actor: 'socket', address, outcome, reason });
      return {};
    },
  };
}
