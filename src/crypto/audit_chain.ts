/** The chain of the control audit: each line names the digest of the one before. */
import { InroError } from '../model/error.js';
import { sha256 } from './signing.js';
import { auditStatement, type AuditFields } from './statement.js';

/** Before the first line. */
export const noDigest: Uint8Array = new Uint8Array(32);

export function auditDigest(clusterId: string, line: AuditFields): Uint8Array {
  return sha256(auditStatement(clusterId, line));
}

/** Looks at lines in their order; what it has seen so far is whole. */
export class AuditChain {
  readonly #clusterId: string;
  /** Undefined before the first line: what came before that is not known. */
  #last: { number: number; digest: Uint8Array } | undefined;

  constructor(clusterId: string) {
    this.#clusterId = clusterId;
  }

  /** @returns its digest. @throws store_corrupt when it is not the one that follows. */
  add(line: AuditFields): Uint8Array {
    const expected = this.#last === undefined ? line.number : this.#last.number + 1;
    if (line.number !== expected) throw broken(`line ${expected} is missing: line ${line.number} follows`);
    const before = this.#last?.digest ?? (line.number === 1 ? noDigest : line.previous);
    if (Buffer.compare(before, line.previous) !== 0)
      throw broken(`line ${line.number - 1} is not what it was when line ${line.number} was written`);
    const digest = auditDigest(this.#clusterId, line);
    this.#last = { number: line.number, digest };
    return digest;
  }
}

function broken(what: string): InroError {
  return new InroError('store_corrupt', `the audit is not whole: ${what}`, {
    remedy:
      'somebody, or a damaged disk, has changed it: compare with a backup of the manager, and with its log',
  });
}
