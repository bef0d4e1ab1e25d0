/** The receipts that are kept, as operators look at them. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Control, KeptReceiptSchema } from '../proto/gen/inro/v1/control_pb.js';
import type { ReceiptRecord } from '../proto/gen/inro/v1/records_pb.js';
import type { Handlers } from '../rpc/server.js';
import type { Store } from '../store/store.js';
import { decodeRecord, tables } from '../store/tables.js';
import { managerLimits } from './limits.js';
import type { ClusterView } from './view.js';

export interface ReceiptHandlersParts {
  store: Store;
  view: ClusterView;
}

export function receiptHandlers({
  store,
  view,
}: ReceiptHandlersParts): Pick<Handlers<typeof Control, 'operator'>, 'listReceipts'> {
  const hostnameOf = (nodeId: string): string => view.nodes.get(nodeId)?.description?.hostname ?? '';
  return {
    listReceipts: async ({ secret, node, after }) => {
      const kept = (await store.list(tables.receipts.prefix))
        .map(({ key, value }) => ({ key, receipt: decodeRecord(tables.receipts, key, value) }))
        .map(({ key, receipt }) => ({ receipt, place: placeOf(receipt, key) }))
        .filter(({ place }) => place > after)
        .filter(({ receipt }) => isMeant(secret, receipt.secretId, receipt.secretName))
        .filter(({ receipt }) => isMeant(node, receipt.nodeId, hostnameOf(receipt.nodeId)))
        .sort((a, b) => (a.place < b.place ? -1 : 1));
      const page = kept.slice(0, managerLimits.maxReceiptsPerPage);
      return {
        receipts: page.map(({ receipt }) => shown(receipt, hostnameOf(receipt.nodeId))),
        next: page.length < kept.length ? (page.at(-1)?.place ?? '') : '',
      };
    },
  };
}

function shown(
  { nodeId, secretId, secretName, version, reason, wipedMs, durationUs, mapped, ...more }: ReceiptRecord,
  nodeHostname: string,
): MessageInitShape<typeof KeptReceiptSchema> {
  const { takenMs, runId, number, signature, taskIds } = more;
  const said = { taskIds, version, reason, wipedMs, durationUs, mapped, runId, number, signature };
  return { nodeId, nodeHostname, secretId, secretName, ...said, takenMs };
}

/** Sorts by when it was taken. */
function placeOf({ takenMs }: ReceiptRecord, key: string): string {
  return `${String(takenMs).padStart(16, '0')} ${key}`;
}

/** Of what is not there any more its id and its name are all that is known. */
function isMeant(typed: string, id: string, name: string): boolean {
  return typed === '' || name === typed || id === typed || (typed.length >= 4 && id.startsWith(typed));
}
