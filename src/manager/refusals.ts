/** Certificates that are refused though they are valid: of nodes that were removed, by node id, serial and key. */
import { sha256, spkiOf, type KeyObject } from '../crypto/signing.js';
import type { Certificate } from '../pki/certificate.js';
import type { RefusedRecord } from '../proto/gen/inro/v1/records_pb.js';

export class Refusals {
  /** By what it lies under in the store. */
  readonly #records = new Map<string, RefusedRecord>();
  readonly #byNode = new Map<string, RefusedRecord>();
  readonly #bySerial = new Map<string, RefusedRecord>();
  /** By the digest in hex. */
  readonly #byKey = new Map<string, RefusedRecord>();

  put(id: string, record: RefusedRecord): void {
    this.delete(id);
    this.#records.set(id, record);
    if (!record.nodeStays) this.#byNode.set(record.nodeId, record);
    for (const serial of record.serials) this.#bySerial.set(serial, record);
    for (const digest of record.keyDigests) this.#byKey.set(hex(digest), record);
  }

  delete(id: string): void {
    const record = this.#records.get(id);
    if (record === undefined) return;
    this.#records.delete(id);
    forget(this.#byNode, record.nodeId, record);
    for (const serial of record.serials) forget(this.#bySerial, serial, record);
    for (const digest of record.keyDigests) forget(this.#byKey, hex(digest), record);
  }

  /** By what each lies under in the store. */
  all(): [string, RefusedRecord][] {
    return [...this.#records];
  }

  ofNode(nodeId: string): RefusedRecord | undefined {
    return this.#byNode.get(nodeId);
  }

  ofKey(digest: Uint8Array): RefusedRecord | undefined {
    return this.#byKey.get(hex(digest));
  }

  /** Why this certificate is not accepted; undefined when it is. */
  of(certificate: Certificate): RefusedRecord | undefined {
    if (this.#records.size === 0) return undefined;
    return (
      this.#byNode.get(certificate.nodeId) ??
      this.#bySerial.get(certificate.serial) ??
      this.ofKey(keyDigest(certificate.publicKey))
    );
  }
}

/** 32 bytes, by which records name a public key. */
export function keyDigest(publicKey: KeyObject): Uint8Array {
  return sha256(spkiOf(publicKey));
}

function forget(map: Map<string, RefusedRecord>, key: string, record: RefusedRecord): void {
  if (map.get(key) === record) map.delete(key);
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
