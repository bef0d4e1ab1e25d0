/** Which file of which task a unit of systemd is given when it asks for a credential. Pure. */
import { quoted } from '../../model/name.js';
import { templateOf } from '../../model/unit.js';
import type { AssignedReference } from '../../proto/gen/inro/v1/dispatcher_pb.js';
import type { HostTask } from '../host_tasks.js';

export interface Asked {
  unit: string;
  /** Of the credential: a target of the service. */
  id: string;
}

export type Bound =
  { task: HostTask; reference: AssignedReference } | { refusal: 'not bound' | 'no such target'; why: string };

/** A service that is bound to the instance goes before one that is bound to its template. */
export function boundTo({ unit, id }: Asked, tasks: readonly HostTask[]): Bound {
  const template = templateOf(unit);
  const exact = tasks.filter(({ assigned }) => assigned.unit === unit);
  const bound =
    exact.length > 0 || template === undefined
      ? exact
      : tasks.filter(({ assigned }) => assigned.unit === template);
  const services = [...new Set(bound.map(({ assigned }) => assigned.serviceName))];
  if (services.length === 0)
    return notBound(`no service with unit ${quoted(unit)} has a task on this node: see 'inro service ps'`);
  // The manager lets nobody bind two; tasks from before a change of their services may still be here.
  if (services.length > 1)
    return notBound(
      `several services are bound to unit ${quoted(unit)} on this node: ${services.join(', ')}`,
    );
  const task = bound.findLast(({ shown }) => shown !== '');
  if (task === undefined) {
    const { state = '', error = '' } = bound.at(-1) ?? {};
    return notBound(
      `the task of service ${quoted(services[0] ?? '')} shows nothing here (${error || state})`,
    );
  }
  const { references, serviceName, notice } = task.assigned;
  const reference = references.find((each) => each.reference?.target === id);
  if (reference !== undefined) return { task, reference };
  const more = notice === '' ? '' : ` (${notice})`;
  return {
    refusal: 'no such target',
    why: `service ${quoted(serviceName)} gives unit ${quoted(unit)} no ${quoted(id)}${more}`,
  };
}

function notBound(why: string): Bound {
  return { refusal: 'not bound', why };
}
