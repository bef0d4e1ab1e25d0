/** The control audit, as operators read it. */
import type { Clock } from '../model/clock.js';
import type { Control } from '../proto/gen/inro/v1/control_pb.js';
import type { AuditRecord } from '../proto/gen/inro/v1/records_pb.js';
import type { Handlers } from '../rpc/server.js';
import type { Store } from '../store/store.js';
import { auditKey, decodeRecord, tables } from '../store/tables.js';
import type { AuditBook } from './audit_book.js';
import { managerLimits } from './limits.js';
import { waitUntil } from './wait_until.js';

export interface AuditHandlersParts {
  clusterId: string;
  store: Store;
  audit: AuditBook;
  clock: Clock;
}

export function auditHandlers({
  clusterId,
  store,
  audit,
  clock,
}: AuditHandlersParts): Pick<Handlers<typeof Control, 'operator'>, 'listAudit'> {
  return {
    listAudit: async ({ after, waitMs }, { signal }) => {
      let lines = await audit.head();
      if (waitMs > 0 && lines.last <= Number(after)) {
        let grew = false;
        const look = (changed: () => void): (() => void) =>
          audit.onLine(() => {
            grew = true;
            changed();
          });
        const timeoutMs = Math.min(waitMs, managerLimits.maxWaitMs);
        await waitUntil(() => grew, look, { clock, timeoutMs, signal });
        lines = await audit.head();
      }
      const first = Math.max(lines.first, Number(after) + 1);
      const end = Math.min(lines.last, first + managerLimits.maxAuditLinesPerPage - 1);
      const records: AuditRecord[] = [];
      for (let number = first; number <= end && number > 0; number++) {
        const key = tables.audit.prefix + auditKey(number);
        const entry = await store.get(key);
        // One that is missing is for the reader to notice.
        if (entry !== undefined) records.push(decodeRecord(tables.audit, key, entry.value));
      }
      return { records, clusterId, first: BigInt(lines.first), last: BigInt(lines.last) };
    },
  };
}
