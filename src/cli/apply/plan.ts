/** What is to be done so that the cluster is as the file says: found by looking, and shown before it is done. */
import { Control } from '../../proto/gen/inro/v1/control_pb.js';
import { call, type Connection } from '../../rpc/client.js';
import type { Wanted } from './file.js';
import { secretStep } from './secret_step.js';
import { serviceStep } from './service_step.js';
import type { Step } from './step.js';

/** In the order in which it is to be done. @throws bad_input, not_found */
export async function planOf(wanted: Wanted, manager: Connection): Promise<Step[]> {
  const [{ secrets }, { services }] = await Promise.all([
    call(manager, Control, 'listSecrets', { filters: [] }),
    call(manager, Control, 'listServices', { filters: [] }),
  ]);
  const named = <T extends { name: string }>(all: readonly T[], name: string): T | undefined =>
    all.find((one) => one.name === name);
  return [
    ...wanted.secrets.map((one) => secretStep(one, named(secrets, one.name))),
    ...wanted.services.map((one) => serviceStep(one, named(services, one.name))),
  ];
}
