/** One word on an agent, from what it says of itself: does it serve, and as well as it should? */
import { TaskState } from '../proto/gen/inro/v1/common_pb.js';
import type { AgentStatus } from '../proto/gen/inro/v1/agent_pb.js';
import { stateOf } from '../proto/task_state.js';

/** A lease that lasts so long outlives a manager's restart, and a look at it by a person. */
const comfortableLeaseMs = 60 * 60_000;

export interface Health {
  /** unhealthy: nothing is served. degraded: it is, but something needs attention. */
  health: 'healthy' | 'degraded' | 'unhealthy';
  /** One short sentence each, without a full stop; none when healthy. */
  reasons: string[];
}

export function healthOf(status: AgentStatus): Health {
  const fatal = [...mountNotServed(status), ...leaseOver(status)];
  if (fatal.length > 0) return { health: 'unhealthy', reasons: [...fatal, ...certificateExpired(status)] };
  const reasons = [
    ...noSession(status),
    ...certificateExpired(status),
    ...notRenewed(status),
    ...protectionsMissing(status),
    ...receiptsDropped(status),
    ...tasksFailed(status),
  ];
  return { health: reasons.length === 0 ? 'healthy' : 'degraded', reasons };
}

type Look = (status: AgentStatus) => string[];

const mountNotServed: Look = ({ mount }) => {
  const why = mount?.notServed ?? '';
  return why === '' ? [] : [`the mount ${mount?.path ?? ''} is not served: ${why}`];
};

const leaseOver: Look = ({ session }) =>
  leaseLeftMs(session) > 0 ? [] : [`nothing is served: no lease of a manager holds${because(session)}`];

/** Between two streams a moment without one is nothing to be told of; a try that has failed is. */
const noSession: Look = ({ session }) => {
  if (session?.state === 'connected') return [];
  if (session?.state === 'connecting' && leaseLeftMs(session) >= comfortableLeaseMs) return [];
  const minutes = Math.floor(leaseLeftMs(session) / 60_000);
  return [`no session with a manager, the lease holds for ${minutes} min more${because(session)}`];
};

const certificateExpired: Look = ({ renewal }) => {
  const expired = renewal?.expired ?? '';
  return expired === '' ? [] : [expired];
};

const notRenewed: Look = ({ renewal, certificateExpiresMs }) => {
  const { lastFailure = '', expired = '' } = renewal ?? {};
  if (lastFailure === '' || expired !== '') return [];
  const until = new Date(Number(certificateExpiresMs)).toISOString();
  return [`the certificate could not be renewed, it lasts until ${until}: ${lastFailure}`];
};

const protectionsMissing: Look = ({ protections }) =>
  protections
    .filter(({ inForce, extra }) => !inForce && !extra)
    .map(({ name, detail }) => `not in force: ${name}${detail === '' ? '' : ` (${detail})`}`);

const receiptsDropped: Look = ({ receipts }) => {
  const dropped = receipts?.dropped ?? 0n;
  return dropped === 0n ? [] : [`${dropped} receipts were dropped: too many waited for a manager`];
};

const tasksFailed: Look = ({ tasks }) =>
  tasks
    .filter(({ state }) => state === TaskState.FAILED || state === TaskState.REJECTED)
    .map(
      ({ id, serviceName, state, error }) => `task ${id} of ${serviceName} is ${stateOf(state)}: ${error}`,
    );

function leaseLeftMs(session: AgentStatus['session']): number {
  return Number(session?.leaseLeftMs ?? 0n);
}

function because(session: AgentStatus['session']): string {
  const error = session?.lastError ?? '';
  return error === '' ? '' : `: ${error}`;
}
