/** What a receipt must be before it is believed. A node that was conquered says whatever it likes, but for itself alone. */
import { verifyBytes, type KeyObject } from '../crypto/signing.js';
import { receiptStatement } from '../crypto/statement.js';
import { InroError } from '../model/error.js';
import { isId } from '../model/id.js';
import { isWipeReason } from '../model/receipt.js';
import type { Receipt } from '../proto/gen/inro/v1/dispatcher_pb.js';
import { managerLimits } from './limits.js';

export interface Speaker {
  clusterId: string;
  nodeId: string;
  /** Of its certificate. */
  publicKey: KeyObject;
}

/**
 * Checks the receipts of one message: of one run, in the order of their numbers.
 * @param lastTaken up to this number they are known, and their signatures are not looked at again.
 * @throws protocol for what no agent sends; unauthenticated for one that the node's key did not sign.
 */
export async function checkReceipts(
  receipts: readonly Receipt[],
  speaker: Speaker,
  lastTaken: bigint,
): Promise<void> {
  let before: Receipt | undefined;
  for (const [n, receipt] of receipts.entries()) {
    if (n % managerLimits.receiptsPerTurn === managerLimits.receiptsPerTurn - 1)
      await new Promise((resolve) => setImmediate(resolve));
    checkShape(receipt);
    if (before !== undefined && (receipt.runId !== before.runId || receipt.number <= before.number))
      throw new InroError('protocol', 'receipts that are not in the order of one run');
    if (receipt.number > lastTaken) checkSignature(receipt, speaker);
    before = receipt;
  }
}

function checkShape({ runId, number, secretId, taskIds, reason, wipedMs, durationUs }: Receipt): void {
  if (taskIds.length > managerLimits.maxTasksPerReceipt || !taskIds.every(isId))
    throw new InroError('protocol', 'a receipt names tasks that cannot be, or too many');
  if (!isId(runId) || !isId(secretId) || !isWipeReason(reason))
    throw new InroError('protocol', 'a receipt that names no run, no secret or no reason that is known');
  if (number < 1n || !isSafe(number))
    throw new InroError('protocol', 'a receipt has a number that cannot be');
  if (!isSafe(wipedMs) || !isSafe(durationUs))
    throw new InroError('protocol', 'a receipt has a time that cannot be');
}

function isSafe(value: bigint): boolean {
  return value >= 0n && value <= BigInt(Number.MAX_SAFE_INTEGER);
}

function checkSignature(receipt: Receipt, { clusterId, nodeId, publicKey }: Speaker): void {
  const { runId, number, secretId, version, reason, wipedMs, durationUs, mapped, signature } = receipt;
  const statement = receiptStatement({
    clusterId,
    nodeId,
    runId,
    number: Number(number),
    secretId,
    version,
    taskIds: receipt.taskIds,
    reason,
    wipedMs: Number(wipedMs),
    durationUs: Number(durationUs),
    mapped,
  });
  if (!verifyBytes(publicKey, statement, signature))
    throw new InroError('unauthenticated', 'a receipt is not signed by the node key of this certificate');
}
