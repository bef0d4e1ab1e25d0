/** How a record lies in a store: with its revision, and a check, because what keeps it may give back something else. */
import { sha256 } from '../crypto/signing.js';
import { InroError } from '../model/error.js';

const revisionBytes = 8;
const checkBytes = 8;
const headBytes = revisionBytes + checkBytes;

export interface Record {
  revision: number;
  /** A view of what was given. */
  value: Buffer;
}

/** revision (8 bytes, big endian) | check (8) | value. The check is of key, revision and value. */
export function packRecord(key: string, revision: number, value: Uint8Array): Buffer {
  const stored = Buffer.alloc(headBytes + value.length);
  stored.writeBigUInt64BE(BigInt(revision));
  stored.set(value, headBytes);
  checkOf(key, stored).copy(stored, revisionBytes);
  return stored;
}

/** @param remedy what to type when it is not what was written. @throws store_corrupt */
export function unpackRecord(key: string, stored: Buffer, remedy: string): Record {
  if (stored.length < headBytes || !checkOf(key, stored).equals(stored.subarray(revisionBytes, headBytes))) {
    throw new InroError(
      'store_corrupt',
      `the record ${JSON.stringify(key)} is damaged: it is not what was written`,
      { remedy },
    );
  }
  return { revision: Number(stored.readBigUInt64BE()), value: stored.subarray(headBytes) };
}

function checkOf(key: string, stored: Buffer): Buffer {
  const parts = [Buffer.from(`${key}\0`), stored.subarray(0, revisionBytes), stored.subarray(headBytes)];
  return Buffer.from(sha256(Buffer.concat(parts))).subarray(0, checkBytes);
}
