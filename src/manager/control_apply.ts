/** Several changes as one: a node is told of all of them in one assignment, so each task sees them as one generation. */
import type { Logger } from 'pino';
import type { Random } from '../model/clock.js';
import { InroError } from '../model/error.js';
import type { Change, Control } from '../proto/gen/inro/v1/control_pb.js';
import type { Handlers } from '../rpc/server.js';
import { transact, type Transaction } from '../store/transaction.js';
import { callerOf, type Caller } from './caller.js';
import { secretChanges, type ControlParts } from './control_secrets.js';
import { serviceChanges } from './control_services.js';
import { managerLimits } from './limits.js';

interface Touched {
  secretIds: Set<string>;
  serviceIds: Set<string>;
}

export function applyHandlers(
  parts: ControlParts & { random: Random; log: Logger },
): Pick<Handlers<typeof Control, 'operator'>, 'apply'> {
  const { store, view, log } = parts;
  const secrets = secretChanges(parts);
  const services = serviceChanges(parts);

  const carryOut = async (tx: Transaction, { change }: Change, caller: Caller, touched: Touched) => {
    switch (change.case) {
      case 'createSecret':
        return secrets.create(tx, change.value);
      case 'updateSecret':
        await secrets.update(tx, change.value);
        return void touched.secretIds.add(change.value.id);
      case 'createService':
        return void touched.serviceIds.add((await services.create(tx, change.value, caller)).id);
      case 'updateService':
        return void touched.serviceIds.add((await services.update(tx, change.value, caller)).id);
      default:
        throw new InroError('bad_input', 'a change that this manager does not know', {
          remedy: 'use the inro of the same version as the manager',
        });
    }
  };

  return {
    apply: async ({ changes }, { peer }) => {
      const caller = callerOf(view, peer);
      if (changes.length > managerLimits.maxChangesAtOnce)
        throw new InroError(
          'bad_input',
          `${changes.length} changes are more than ${managerLimits.maxChangesAtOnce}`,
        );
      if (caller.role !== 'admin' && changes.some(({ change }) => change.case?.endsWith('Secret')))
        throw new InroError('not_permitted', 'a deployer changes services, not secrets', {
          remedy: 'have an admin apply the secrets first',
        });
      const { result, revision } = await transact(store, async (tx) => {
        const touched: Touched = { secretIds: new Set(), serviceIds: new Set() };
        for (const change of changes) await carryOut(tx, change, caller, touched);
        return touched;
      });
      const users = [...result.secretIds].flatMap((id) => view.secrets.get(id)?.serviceIds ?? []);
      // A task that no node was found for waits for its node, not for this value.
      const placed = users.filter((id) => view.nodesOfServices([id]).size > 0);
      const serviceIds = [...new Set([...result.serviceIds, ...placed])];
      log.info({ changes: changes.length, services: serviceIds.length }, 'changes are applied');
      return { revision: BigInt(revision), nodeIds: [...view.nodesOfServices(serviceIds)], serviceIds };
    },
  };
}
