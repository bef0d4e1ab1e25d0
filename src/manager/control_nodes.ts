/** Nodes, as operators see them and decide on them. */
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import type { Logger } from 'pino';
import { checkAvailability } from '../model/availability.js';
import type { Clock } from '../model/clock.js';
import { InroError } from '../model/error.js';
import { quoted } from '../model/name.js';
import { hasEnded } from '../model/task.js';
import type { Control, NodeSchema } from '../proto/gen/inro/v1/control_pb.js';
import { RefusedRecordSchema, type NodeRecord, type TaskRecord } from '../proto/gen/inro/v1/records_pb.js';
import { stateOf } from '../proto/task_state.js';
import type { Handlers } from '../rpc/server.js';
import type { Store } from '../store/store.js';
import { tables } from '../store/tables.js';
import { transact, type Transaction } from '../store/transaction.js';
import type { CaRotation } from './ca_rotation.js';
import type { Clones } from './clones.js';
import type { Dispatcher } from './dispatcher.js';
import { changedLabels } from './changed_labels.js';
import { find, matcher } from './find.js';
import { noteChange, versionOf } from './if_version.js';
import { managerLimits } from './limits.js';
import type { NodeRemoval } from './node_removal.js';
import type { ClusterView } from './view.js';

export interface NodeHandlersParts {
  store: Store;
  view: ClusterView;
  dispatcher: Dispatcher;
  removal: NodeRemoval;
  clones: Clones;
  rotation: CaRotation;
  clock: Clock;
  log: Logger;
}

type Calls =
  'getNode' | 'listNodes' | 'approveNode' | 'rejectNode' | 'removeNode' | 'updateNode' | 'clearNodeAlarm';

export function nodeHandlers(parts: NodeHandlersParts): Pick<Handlers<typeof Control, 'operator'>, Calls> {
  const { store, view, dispatcher, removal, clones, rotation, clock, log } = parts;

  const shown = (node: NodeRecord): MessageInitShape<typeof NodeSchema> => ({
    id: node.id,
    role: node.role,
    status: dispatcher.statusOf(node.id),
    ...(node.description === undefined ? {} : { description: node.description }),
    createdMs: node.createdMs,
    lastSeenMs: BigInt(dispatcher.lastSeenMs(node.id) ?? node.lastSeenMs),
    certificateExpiresMs: node.certificateExpiresMs,
    tasks: view.liveTasksOn(node.id),
    address: node.address,
    labels: node.labels,
    pendingUntilMs: node.pendingUntilMs,
    availability: availabilityOf(node),
    mustEnrol: rotation.mustEnrol(node),
    version: versionOf(node),
    ...(node.clone === undefined ? {} : { clone: node.clone }),
  });

  const decide = async (typed: string, change: (tx: Transaction, node: NodeRecord) => void) => {
    const { id } = findWaiting(view, typed);
    const { result } = await transact(store, async (tx) => {
      const node = await tx.get(tables.nodes, id);
      if (node === undefined || node.pendingUntilMs <= BigInt(clock.now())) throw notWaiting(typed);
      change(tx, node);
      return node;
    });
    return result;
  };

  return {
    getNode: async ({ name }) => shown(find('node', view.nodes, name, hostnameOf)),

    listNodes: async ({ filters }) => {
      const isWanted = matcher(filters);
      return {
        nodes: [...view.nodes.values()]
          .filter((node) => isWanted({ id: node.id, name: hostnameOf(node), labels: node.labels }))
          .sort((a, b) => Number(a.createdMs - b.createdMs))
          .map(shown),
      };
    },

    approveNode: async ({ name }) => {
      const node = await decide(name, (tx, waiting) => {
        waiting.pendingUntilMs = 0n;
        waiting.uncollected = true;
        tx.put(tables.nodes, waiting.id, waiting);
      });
      log.info({ node: node.id, hostname: hostnameOf(node) }, 'node approved');
      return shown(node);
    },

    rejectNode: async ({ name }) => {
      const node = await decide(name, (tx, { id, description, keyDigest }) => {
        const now = clock.now();
        const refused = create(RefusedRecordSchema, {
          nodeId: id,
          hostname: description?.hostname ?? '',
          reason: 'rejected',
          refusedMs: BigInt(now),
          untilMs: BigInt(now + managerLimits.pendingNodeMs),
          keyDigests: [keyDigest],
        });
        tx.put(tables.refused, id, refused);
        tx.delete(tables.nodes, id);
      });
      log.info({ node: node.id, hostname: hostnameOf(node) }, 'node rejected');
      return shown(node);
    },

    updateNode: async ({ name, labelsAdd, labelsRemove, labelsSeen, availability, ifVersion }) => {
      const { id } = find('node', view.nodes, name, hostnameOf);
      const { result, revision } = await transact(store, async (tx) => {
        const node = await tx.get(tables.nodes, id);
        if (node === undefined) throw new InroError('not_found', `node ${quoted(name)} was removed`);
        noteChange(node, `node ${quoted(name)}`, ifVersion);
        const missing = labelsRemove.find((key) => !Object.hasOwn(node.labels, key));
        if (missing !== undefined)
          throw new InroError('not_found', `node ${quoted(name)} has no label ${quoted(missing)}`);
        node.labels = changedLabels(node.labels, { labelsAdd, labelsRemove, labelsSeen });
        if (availability !== '') node.availability = checkAvailability(availability);
        tx.put(tables.nodes, id, node);
        return node;
      });
      const { labels } = result;
      log.info({ node: id, labels, availability: availabilityOf(result) }, 'a node is changed');
      // A service may have waited for just that, or must leave it now.
      dispatcher.onNodeReady?.();
      // Looked for now: until this was written the node could be given others.
      const serviceIds = [
        ...new Set(
          view
            .tasksOfNode(id)
            .filter(isLive)
            .map(({ serviceId }) => serviceId),
        ),
      ];
      return { node: shown(result), changed: { id, revision: BigInt(revision), serviceIds } };
    },

    clearNodeAlarm: async ({ name }) => {
      const { id } = find('node', view.nodes, name, hostnameOf);
      const { result } = await transact(store, async (tx) => {
        const node = await tx.get(tables.nodes, id);
        if (node?.clone === undefined)
          throw new InroError('not_found', `there is no alarm about node ${quoted(name)}`);
        clones.clear(node);
        tx.put(tables.nodes, id, node);
        return node;
      });
      log.info({ node: id }, 'the alarm about a node is cleared');
      return shown(result);
    },

    removeNode: async ({ name, force }, { signal }) => {
      const node = find('node', view.nodes, name, hostnameOf);
      return removal.remove(node, { waitMs: force ? 0 : managerLimits.removalWaitMs, signal });
    },
  };
}

function isLive(task: TaskRecord): boolean {
  return !hasEnded(stateOf(task.state));
}

function availabilityOf({ availability }: NodeRecord): string {
  return availability === '' ? 'active' : availability;
}

function hostnameOf(node: NodeRecord): string {
  return node.description?.hostname ?? '';
}

/** By its name only among those that wait: what a host calls itself must not hide another. */
function findWaiting({ nodes }: ClusterView, typed: string): NodeRecord {
  const waiting = new Map([...nodes].filter(([, { pendingUntilMs }]) => pendingUntilMs > 0n));
  try {
    return find('node', waiting, typed, hostnameOf);
  } catch (error) {
    if (!(error instanceof InroError) || error.code !== 'not_found') throw error;
    find('node', nodes, typed, hostnameOf);
    throw notWaiting(typed);
  }
}

function notWaiting(typed: string): InroError {
  return new InroError('not_found', `node ${quoted(typed)} does not wait for approval`, {
    remedy: "'inro node ls' shows those that do as pending; 'inro node rm' removes a node that was approved",
  });
}
