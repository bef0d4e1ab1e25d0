/** Receipts that are noted nowhere. */
import type { Identity } from '../../src/agent/identity.js';
import { Receipts } from '../../src/agent/receipts.js';

export function receiptsOf(identity: Pick<Identity, 'nodeId' | 'clusterId'>, runId: string): Receipts {
  return new Receipts({ identity, runId, keepNote: () => undefined, left: new Uint8Array() });
}
