/**
 * The CA vouches for a manager's sealing key by a name in that manager's certificate: a digest of the key. So the CA signs
 * nothing but certificates, wherever its key is, and who has the manager's TLS key alone cannot have another sealing key believed.
 */
import { sha256 } from '../crypto/signing.js';
import { sealingKeyStatement } from '../crypto/statement.js';

const prefix = 'sealing-';
/** 36^50 is more than 2^256; with the prefix it is 58 characters, and a DNS label may have 63. */
const digits = 50;

/** @param publicKey 32 bytes, X25519. @returns a DNS name: `sealing-` and SHA-256 of the statement in base 36. */
export function sealingNameOf(clusterId: string, publicKey: Uint8Array): string {
  const digest = Buffer.from(sha256(sealingKeyStatement(clusterId, publicKey))).toString('hex');
  return prefix + BigInt(`0x${digest}`).toString(36).padStart(digits, '0');
}

export function isSealingName(name: string): boolean {
  return name.length === prefix.length + digits && name.startsWith(prefix) && /^[0-9a-z-]+$/.test(name);
}
