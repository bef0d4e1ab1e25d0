/** inro receipts */
import { isWipeReason } from '../../model/receipt.js';
import { Control, type KeptReceipt } from '../../proto/gen/inro/v1/control_pb.js';
import { call } from '../../rpc/client.js';
import { withManager, type ManagerOption } from '../operator.js';
import { iso, printJson, printTable } from '../print.js';

interface ReceiptsOptions extends ManagerOption {
  secret?: string;
  node?: string;
  json?: boolean;
}

export async function receiptsCommand({
  secret = '',
  node = '',
  json,
  ...options
}: ReceiptsOptions): Promise<void> {
  const receipts: KeptReceipt[] = [];
  await withManager(options, async (manager) => {
    for (let after = ''; ;) {
      const page = await call(manager, Control, 'listReceipts', { secret, node, after });
      receipts.push(...page.receipts);
      if (page.next === '') return;
      after = page.next;
    }
  });
  if (json === true) return printJson(receipts.map(receiptJson));
  const rows = receipts.map((receipt) => [
    iso(receipt.wipedMs),
    receipt.nodeHostname || receipt.nodeId,
    tasksText(receipt),
    `${receipt.secretName || receipt.secretId}@${receipt.version}`,
    reasonText(receipt),
    durationText(receipt),
    'checked',
  ]);
  printTable(['WIPED', 'NODE', 'TASK', 'SECRET', 'REASON', 'TOOK', 'SIGNATURE'], rows);
}

/** One copy may be for several: the one that was the latest to have it. */
function tasksText({ taskIds }: KeptReceipt): string {
  const latest = taskIds.at(-1) ?? '-';
  return taskIds.length > 1 ? `${latest} and ${taskIds.length - 1} more` : latest;
}

function reasonText({ reason, mapped }: KeptReceipt): string {
  return `${isWipeReason(reason) ? reason : 'unknown'}${mapped ? ', may be mapped yet' : ''}`;
}

function durationText({ durationUs }: KeptReceipt): string {
  return `${(Number(durationUs) / 1000).toFixed(1)} ms`;
}

function receiptJson(receipt: KeptReceipt) {
  return {
    node: receipt.nodeHostname,
    nodeId: receipt.nodeId,
    tasks: receipt.taskIds,
    secret: receipt.secretName,
    secretId: receipt.secretId,
    version: receipt.version,
    reason: receipt.reason,
    wipedAt: iso(receipt.wipedMs),
    takenAt: iso(receipt.takenMs),
    durationUs: Number(receipt.durationUs),
    mapped: receipt.mapped,
    run: receipt.runId,
    number: Number(receipt.number),
    // None is kept that was not.
    signatureChecked: true,
    signature: Buffer.from(receipt.signature).toString('base64'),
  };
}
