/** The operators' service: the parts of it, and what concerns the cluster and its nodes. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Random } from '../model/clock.js';
import { InroError } from '../model/error.js';
import { quoted } from '../model/name.js';
import { hasEnded } from '../model/task.js';
import { Control, type NodeSchema } from '../proto/gen/inro/v1/control_pb.js';
import type { NodeRecord } from '../proto/gen/inro/v1/records_pb.js';
import { stateOf } from '../proto/task_state.js';
import { makeJoinToken, type JoinToken } from '../pki/join_token.js';
import type { Certificate } from '../pki/certificate.js';
import { serve, type Registration } from '../rpc/server.js';
import { tables } from '../store/tables.js';
import { transact } from '../store/transaction.js';
import { clusterIn } from './cluster_record.js';
import { caHandlers } from './control_ca.js';
import { revokeHandlers } from './control_revoke.js';
import { secretHandlers, type ControlParts } from './control_secrets.js';
import { serviceHandlers } from './control_services.js';
import { find, matcher } from './find.js';
import { waitForNodes } from './wait.js';

export interface AllControlParts extends ControlParts {
  random: Random;
  root: Certificate;
  sealingSignature: Uint8Array;
  createdMs: number;
  workerToken: () => Promise<JoinToken>;
}

export function control(parts: AllControlParts): Registration {
  const {
    clusterId,
    store,
    view,
    keyring,
    clock,
    random,
    log,
    dispatcher,
    root,
    sealingSignature,
    createdMs,
    workerToken,
  } = parts;

  const shownNode = (node: NodeRecord): MessageInitShape<typeof NodeSchema> => ({
    id: node.id,
    role: node.role,
    status: dispatcher.statusOf(node.id),
    ...(node.description === undefined ? {} : { description: node.description }),
    createdMs: node.createdMs,
    lastSeenMs: BigInt(dispatcher.lastSeenMs(node.id) ?? node.lastSeenMs),
    certificateExpiresMs: node.certificateExpiresMs,
    tasks: view.tasksOfNode(node.id).filter((task) => !hasEnded(stateOf(task.state))).length,
    address: node.address,
  });
  const hostnameOf = (node: NodeRecord): string => node.description?.hostname ?? '';

  return serve(Control, 'local', {
    ...caHandlers(parts),
    ...secretHandlers(parts),
    ...revokeHandlers(parts),
    ...serviceHandlers(parts),

    getCluster: async () => ({
      id: clusterId,
      rootPem: root.pem,
      sealingKey: { clusterId, publicKey: keyring.sealingPublicKey, signature: sealingSignature },
      createdMs: BigInt(createdMs),
    }),

    getJoinToken: async ({ role }) => {
      checkRole(role);
      return { token: (await workerToken()).reveal() };
    },

    rotateJoinToken: async ({ role }) => {
      checkRole(role);
      const token = makeJoinToken(root.der, random);
      await transact(store, async (tx) => {
        const cluster = await clusterIn(tx);
        cluster.sealedWorkerToken = keyring.keepText(token.reveal());
        tx.put(tables.cluster, 'self', cluster);
      });
      log.info({ role }, 'join token rotated');
      return { token: token.reveal() };
    },

    getNode: async ({ name }) => shownNode(find('node', view.nodes, name, hostnameOf)),

    listNodes: async ({ filters }) => {
      const isWanted = matcher(filters);
      return {
        nodes: [...view.nodes.values()]
          .filter((node) => isWanted({ id: node.id, name: hostnameOf(node), labels: {} }))
          .sort((a, b) => Number(a.createdMs - b.createdMs))
          .map(shownNode),
      };
    },

    wait: (request, { signal }) => waitForNodes(request, { view, dispatcher, clock }, signal),
  });
}

function checkRole(role: string): void {
  if (role === 'worker') return;
  throw new InroError('bad_input', `there is no join token for role ${quoted(role)}`, {
    remedy: "write 'inro token show worker'",
  });
}
