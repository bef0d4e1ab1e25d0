/** How the cluster is, in a few lines. */
import type { Clock } from '../model/clock.js';
import { hasEnded } from '../model/task.js';
import type { Control } from '../proto/gen/inro/v1/control_pb.js';
import { stateOf } from '../proto/task_state.js';
import type { Handlers } from '../rpc/server.js';
import { version } from '../system/version.js';
import type { Authorities } from './authorities.js';
import type { Autolock } from './autolock.js';
import type { DataKey } from './data_key.js';
import type { Dispatcher } from './dispatcher.js';
import { expiring } from './expiring.js';
import type { ClusterView } from './view.js';

type Calls = 'getStatus' | 'getDataKey' | 'rotateDataKey';

export interface StatusHandlersParts {
  clusterId: string;
  autolock: Autolock;
  view: ClusterView;
  dispatcher: Dispatcher;
  authority: Authorities;
  dataKey: DataKey;
  startedMs: number;
  clock: Clock;
}

export function statusHandlers({
  clusterId,
  autolock,
  view,
  dispatcher,
  authority,
  dataKey,
  startedMs,
  clock,
}: StatusHandlersParts): Pick<Handlers<typeof Control, 'operator'>, Calls> {
  const shownDataKey = async () => {
    const { sinceMs, progress, lastError } = await dataKey.state();
    const rotating = progress !== undefined;
    return { sinceMs: BigInt(sinceMs), rotating, ...progress, lastError };
  };
  return {
    getDataKey: shownDataKey,

    rotateDataKey: async () => {
      await dataKey.rotate();
      return shownDataKey();
    },

    getStatus: async () => {
      const isConnected = (nodeId: string): boolean => dispatcher.statusOf(nodeId) === 'ready';
      const lastSeenMs = (nodeId: string): number | undefined => dispatcher.lastSeenMs(nodeId);
      return {
        clusterId,
        locked: false,
        autolock: autolock.state,
        nodes: view.nodes.size,
        nodesReady: [...view.nodes.keys()].filter(isConnected).length,
        secrets: view.secrets.size,
        services: view.services.size,
        tasks: [...view.tasks.values()].filter(({ state }) => !hasEnded(stateOf(state))).length,
        startedMs: BigInt(startedMs),
        version,
        expiries: expiring(view, authority.records, { clock, lastSeenMs, isConnected }),
      };
    },
  };
}
